"""Which photo of an item is shown: one whose file exists."""

from __future__ import annotations

from collections.abc import Iterable

from indexer.catalogue.home import Home


def existing_photos(home: Home, image_ids: Iterable[int]) -> dict[int, int]:
    """For each image, the image of the same item to show: itself, unless only another one's file exists."""
    files = home.catalogue.images.files(image_ids)
    shown = {image_id: image_id for image_id in files}
    gone = [image_id for image_id, (uri, _) in files.items() if not home.has_file(uri)]
    for image_id, siblings in home.catalogue.images.siblings(gone).items():
        shown[image_id] = next((other for other, uri in siblings if home.has_file(uri)), image_id)
    return shown
