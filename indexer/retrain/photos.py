"""The photos of a retraining: those it trains on, and the held-out ones that encoders are measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.catalogue.home import Home
from indexer.errors import InvalidRequestError
from indexer.retrain.job import RetrainJob
from indexer.retrain.plan import RetrainPlan
from training.data.dataset import unit_hash
from training.data.sources import SourceImage
from training.files import publish_file

LEAST_HELD_OUT = 20


def export_photos(job: RetrainJob) -> tuple[list[SourceImage], list[SourceImage]]:
    """The training and the held-out photos; they stay the same if the catalogue changes during the retraining."""
    path = job.directory / "export.json"
    if not path.exists():
        training, held_out = split(job.home, job.collection, job.plan.held_out)
        job.say("export", f"{len(training)} training photos, {len(held_out)} held-out photos")
        document = {"training": to_rows(training), "held_out": to_rows(held_out)}
        publish_file(path, (json.dumps(document, ensure_ascii=False) + "\n").encode())
    document = json.loads(path.read_text(encoding="utf-8"))
    return from_rows(document["training"]), from_rows(document["held_out"])


def split(home: Home, collection: str, share: float) -> tuple[list[SourceImage], list[SourceImage]]:
    """Split the catalogue's photos into training and held-out ones; no item and no file content is on both sides.

    Raises:
        InvalidRequestError: fewer than 20 items would be held out.
    """
    photos = home.catalogue.images.photos(home.catalogue.collection_id(collection))
    held_out_ids = {photo.item_id for photo in photos if _place(photo.item_id) < share}
    if len(held_out_ids) < LEAST_HELD_OUT:
        raise InvalidRequestError(
            "held_out",
            f"{len(held_out_ids)} items of {collection!r} would be held out, but {LEAST_HELD_OUT} are needed, which "
            f"takes about {round(LEAST_HELD_OUT / share * 1.2)} items at --held-out {share:g}; raise --held-out, or "
            "index more items",
        )
    learnt = {photo.sha256 for photo in photos if photo.item_id not in held_out_ids}
    sides: tuple[list[SourceImage], list[SourceImage]] = ([], [])
    for photo in photos:
        is_held_out = photo.item_id in held_out_ids
        if is_held_out and photo.sha256 in learnt:
            continue
        mask = home.uri_path(photo.mask_uri) if photo.mask_uri else None
        image = SourceImage(photo.item_id, str(home.uri_path(photo.uri)), None, photo.attributes, mask, photo.uri)
        sides[is_held_out].append(image)
    return sides


def gate_items(held_out: Sequence[SourceImage], plan: RetrainPlan) -> list[str]:
    """The held-out items that encoders are measured on, before those without a usable mask are left out."""
    from indexer.swaps.sources import choose

    return sorted({image.item_id for image in choose(held_out, plan.items, plan.seed)})


def _place(item_id: str) -> float:
    """A hash of the id in [0, 1), independent of the hash that splits training from validation photos."""
    return unit_hash("held out\0" + item_id)


def to_rows(images: Sequence[SourceImage]) -> list[dict[str, Any]]:
    return [
        {"item_id": i.item_id, "path": str(i.path), "mask": str(i.mask) if i.mask else None, "attributes": i.attributes}
        for i in images
    ]


def from_rows(rows: Sequence[Mapping[str, Any]]) -> list[SourceImage]:
    return [
        SourceImage(r["item_id"], r["path"], None, r["attributes"], Path(r["mask"]) if r["mask"] else None, r["path"])
        for r in rows
    ]
