"""The images of a source, decoded once and held as 8-bit pixels: in memory, or in a file that is mapped into it."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from training.data.decode import ImageLimits
from training.data.memory import bytes_array
from training.data.reader import Loaded, Request, read_files
from training.data.sources import MaskSource, SourceImage
from training.errors import SourceError
from training.preprocessing import Preprocessing

FAILED = "failed"


class Skipped(NamedTuple):
    """An image that could not be used, and the reason."""

    where: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Images `(N, C, S, S)` uint8 in the order of the source, and the images that were skipped.

    Args:
        attributes: the attributes of each image's row.
        masks: `(N, S, S)` uint8, all 255 for an image without a usable mask; None if no masks were requested.
        mask_sources: the source of each mask, `failed` for an image without a usable mask.
    """

    images: NDArray[np.uint8]
    item_ids: list[str]
    sha256: list[str]
    skipped: list[Skipped]
    attributes: list[dict[str, str]] = field(default_factory=list)
    masks: NDArray[np.uint8] | None = None
    mask_sources: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted (item_id, SHA-256 of the file) pairs."""
        digest = hashlib.sha256()
        for item_id, content in sorted(zip(self.item_ids, self.sha256, strict=True)):
            digest.update(f"{item_id}\0{content}\n".encode())
        return digest.hexdigest()

    @property
    def mask_counts(self) -> dict[str, int]:
        """Number of masks by source, and number of images without a usable mask."""
        counts = Counter(self.mask_sources)
        return {source: counts[source] for source in (*get_args(MaskSource), FAILED)} if self.mask_sources else {}

    def split(self, fraction: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Split by item: positions of the training images and of the validation images.

        The side of an item depends only on the hash of its id, so that it stays the same when the catalogue grows.
        Each side gets at least one item.

        Raises:
            SourceError: there are fewer than two items.
        """
        return split_items(self.item_ids, fraction)


def load_dataset(
    images: Sequence[SourceImage],
    preprocessing: Preprocessing,
    *,
    processes: int | None = None,
    limits: ImageLimits | None = None,
    progress: bool = False,
    masks: tuple[MaskSource, ...] | None = None,
    folder: Path | None = None,
) -> Dataset:
    """Decode the images of a source; those that cannot be read are listed in `skipped`.

    Args:
        masks: sources of the items' masks, in the order in which they are tried; None finds no masks.
        processes: as in `read_files`.
        progress: show a progress bar on stderr, if that is a terminal.
        folder: for a file that holds the pixels if memory does not; None uses memory.

    Raises:
        SourceError: none of the images can be read.
    """
    from tqdm import tqdm

    shape = (len(images), preprocessing.channels, preprocessing.size, preprocessing.size)
    pixels = bytes_array(shape, folder)
    coverage = bytes_array((len(images), *shape[2:]), folder) if masks is not None else None
    found = Dataset(pixels, [], [], [], [], coverage, [])
    requests = ((image, _request(image, masks)) for image in images)
    outcomes = read_files(requests, preprocessing, processes=processes, limits=limits)
    for image, outcome in tqdm(
        outcomes, "decoding", len(images), disable=not progress or None, file=sys.stderr, unit="image"
    ):
        if isinstance(outcome, Loaded) and outcome.pixels is not None:
            _add(found, image, outcome, outcome.pixels)
        elif not isinstance(outcome, Loaded):
            found.skipped.append(Skipped(image.where or image.item_id, outcome.reason))
    if not len(found):
        first = f"; the first, {found.skipped[0].where}: {found.skipped[0].reason}" if found.skipped else ""
        raise SourceError(f"none of {len(images)} images can be read{first}")
    return replace(found, images=pixels[: len(found)], masks=None if coverage is None else coverage[: len(found)])


def _request(image: SourceImage, masks: tuple[MaskSource, ...] | None) -> Request:
    if masks is None:
        return Request(image.path)
    from training.data.masks import MaskRequest

    return Request(image.path, mask=MaskRequest(masks, image.mask))


def _add(found: Dataset, image: SourceImage, loaded: Loaded, pixels: NDArray[np.uint8]) -> None:
    place = len(found)
    found.images[place] = pixels
    if found.masks is not None:
        usable = loaded.mask if loaded.mask is not None and loaded.mask.is_usable else None
        found.masks[place] = usable.pixels if usable is not None else 255
        found.mask_sources.append(usable.source if usable is not None else FAILED)
    found.attributes.append(image.attributes)
    found.sha256.append(loaded.sha256)
    found.item_ids.append(image.item_id)


def split_items(item_ids: Sequence[str], fraction: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """See `Dataset.split`."""
    hashes = {item_id: unit_hash(item_id) for item_id in set(item_ids)}
    if len(hashes) < 2:
        raise SourceError(f"training needs at least 2 items, found {len(hashes)}")
    order = sorted(hashes, key=lambda item_id: hashes[item_id])
    held_out = {item_id for item_id in order if hashes[item_id] < fraction} or {order[0]}
    if len(held_out) == len(order):
        held_out.discard(order[-1])
    is_held_out = np.array([item_id in held_out for item_id in item_ids])
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def unit_hash(item_id: str) -> float:
    """A hash of an id, uniform in [0, 1)."""
    return int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big") / 2**64
