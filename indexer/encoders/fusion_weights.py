"""Choose the weights of a fusion's encoders on items that the encoders were not trained on.

Items are split randomly into two halves. On the first half, every photo is a query against the other photos of its
half, for each combination of weights on a grid; the weights with the best MAP@R win, ties go to the most even ones. The
reported figures are of the second half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidRequestError
from indexer.evaluate.images import ImageSet, batches, read_image_set
from indexer.measures.metrics import Bootstrap, Gains, Interval, in_order, metrics_of, rank
from indexer.measures.relevance import make_relevance
from indexer.vectors import Floats
from training.console import Progress
from training.data.sources import read_images
from training.preprocessing import Preprocessing

if TYPE_CHECKING:
    from training.encoder import Encoder

STEPS = 10  # grid resolution: weights are tenths
MAX_PARTS = 5
METRIC = "map@r"
MIN_FUSION_ITEMS = 8
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """Chosen weights with their MAP@R on the choosing half and on the reported half.

    Args:
        chosen_items, chosen_value: number of items and MAP@R of the choosing half.
        items, queries: of the reported half; a query is a photo with at least one relevant other photo.
        fusion: MAP@R of the fusion.
        parts: MAP@R of each encoder alone, by reference.
        best: the best encoder alone.
        difference: the fusion minus `best`, paired by query.
    """

    relevance: str
    seed: int
    weights: tuple[float, ...]
    chosen_items: int
    chosen_value: float
    items: int
    queries: int
    fusion: Interval
    parts: dict[str, Interval]
    best: str
    difference: Interval

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": METRIC,
            "relevance": self.relevance,
            "seed": self.seed,
            "weights": list(self.weights),
            "chosen_on": {"items": self.chosen_items, "value": self.chosen_value},
            "reported_on": {"items": self.items, "queries": self.queries},
            "value": self.fusion.to_json(),
            "parts": {name: interval.to_json() for name, interval in self.parts.items()},
            "best_part": self.best,
            "difference_to_best_part": self.difference.to_json(),
        }

    def to_text(self) -> str:
        lines = [
            f"weights chosen on {self.chosen_items} items ({METRIC} {self.chosen_value:.3f}); "
            f"on {self.items} others ({self.queries} queries, relevance {self.relevance}):",
            f"  fusion  {self.fusion.to_text()}",
            *(f"  {name}  {interval.to_text()}" for name, interval in self.parts.items()),
            f"  fusion minus {self.best}  {self.difference.to_text()}",
        ]
        return "\n".join(lines)


def read_items(source: Path, preprocessing: Preprocessing, count: int, seed: int, progress: Progress) -> ImageSet:
    """All photos of at most `count` random items of a source."""
    images, problems = read_images(source)
    names = sorted({image.item_id for image in images})
    chosen = {names[place] for place in np.random.default_rng([seed, 1]).permutation(len(names))[:count]}
    kept = [image for image in images if image.item_id in chosen]
    progress.started(len(kept))
    found = read_image_set(kept, preprocessing, progress.advance)
    return replace(found, rejected=[*problems, *found.rejected])


def choose_weights(
    fusion: Encoder, names: Sequence[str], images: ImageSet, relevance: str, *, seed: int = 0, replicates: int = 1000
) -> Choice:
    """Choose the weights of a fusion's parts on one half of the items and evaluate them on the other half.

    Args:
        fusion: the fusion of these parts, with any weights.
        names: names of the parts.
        relevance: `item_id`, `category` or `attribute:NAME`.

    Raises:
        InvalidRequestError: too many parts, too few items, or a half without any relevant pair of photos.
    """
    items = sorted({image.item_id for image in images.images})
    if len(names) > MAX_PARTS:
        raise InvalidRequestError(
            "encoders", f"weights can be chosen for at most {MAX_PARTS} encoders, not {len(names)}"
        )
    if len(items) < MIN_FUSION_ITEMS:
        raise InvalidRequestError(
            "choose_on", f"{len(items)} items are too few to choose weights; give {MIN_FUSION_ITEMS} or more"
        )
    first = set(np.random.default_rng([seed, 2]).permutation(items)[: len(items) // 2].tolist())
    vectors = _part_vectors(fusion, images)
    halves = []
    for wanted in (True, False):
        rows = [row for row, image in enumerate(images.images) if (image.item_id in first) == wanted]
        halves.append(_Half(images, rows, [part[rows] for part in vectors], relevance, seed))
    choosing, reported = halves
    values = {weights: float(np.nanmean(choosing.values(weights))) for weights in grid(len(names))}
    best = max(values, key=lambda weights: (round(values[weights], 12), -max(weights)))
    return _report(reported, names, relevance, seed, replicates, best, choosing, values[best])


def _report(
    half: _Half, names: Sequence[str], relevance: str, seed: int, replicates: int,
    weights: tuple[float, ...], choosing: _Half, value: float,
) -> Choice:  # fmt: skip
    bootstrap = Bootstrap(half.items, replicates=replicates, seed=seed)
    fused = half.values(weights)
    alone = {name: half.values(tuple(np.eye(len(names))[n].tolist())) for n, name in enumerate(names)}
    best = max(alone, key=lambda name: float(np.nanmean(alone[name])))
    return Choice(
        relevance=relevance,
        seed=seed,
        weights=weights,
        chosen_items=len(set(choosing.items)),
        chosen_value=value,
        items=len(set(half.items)),
        queries=int((~np.isnan(fused)).sum()),
        fusion=bootstrap.interval(fused),
        parts={name: bootstrap.interval(values) for name, values in alone.items()},
        best=best,
        difference=bootstrap.interval(fused - alone[best]),
    )


def grid(parts: int) -> Iterator[tuple[float, ...]]:
    """All combinations of weights in tenths, each at least 0.1, that sum to 1."""
    for tenths in product(range(1, STEPS), repeat=parts - 1):
        if sum(tenths) < STEPS:
            yield tuple(tenth / STEPS for tenth in (*tenths, STEPS - sum(tenths)))


class _Half:
    """Half of the photos, each a query against the others; a photo and files with the same bytes are left out."""

    def __init__(
        self, images: ImageSet, rows: Sequence[int], vectors: Sequence[Floats], relevance: str, seed: int
    ) -> None:
        photos = [images.images[row] for row in rows]
        self.items = [photo.item_id for photo in photos]
        content = np.array([images.sha256[row] for row in rows])
        self._same = content[:, None] == content[None, :]
        self._gains: Gains = make_relevance(relevance, photos, photos).gains(slice(0, len(photos)))
        self._gains[self._same] = 0.0
        if not self._gains.any():
            raise InvalidRequestError(
                "relevance",
                f"relevance {relevance!r}: no photo has a relevant other photo; "
                "give --relevance category, or more photos",
            )
        self._cosines = [part @ part.T for part in vectors]
        self._order = np.random.default_rng(seed).permutation(len(photos))

    def values(self, weights: Sequence[float]) -> Doubles:
        """MAP@R of each photo `(n,)`, NaN without a relevant other photo."""
        scores: Floats = sum(
            (np.float32(w) * cosines for w, cosines in zip(weights, self._cosines, strict=True)),
            np.zeros_like(self._cosines[0]),
        )
        scores[self._same] = -np.inf
        return metrics_of(in_order(self._gains, rank(scores, self._order)), (1,))[METRIC]


def _part_vectors(fusion: Encoder, images: ImageSet) -> list[Floats]:
    import torch

    found: list[list[Floats]] = []
    with torch.inference_mode():
        for batch in batches(images.pixels):
            x = torch.from_numpy(batch).float() / 255.0
            found.append([part.float().cpu().numpy() for part in fusion.model.part_vectors(x)])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]
