"""Which photo of an item is shown when the file of the best one is gone."""

from __future__ import annotations

from collections.abc import Sequence

from indexer.catalogue.home import Home


def other_photos(home: Home, image_ids: Sequence[int]) -> dict[int, int]:
    """For images whose file is gone, another image of the same item whose file exists, if there is one."""
    if not image_ids:
        return {}
    found = {
        image_id: next((other for other, uri in siblings if home.has_file(uri)), image_id)
        for image_id, siblings in home.catalogue.images.siblings(image_ids).items()
    }
    return {image_id: other for image_id, other in found.items() if other != image_id}
