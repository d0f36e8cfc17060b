"""Vectors that mix an item and its background in known shares, with what each measure needs of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from indexer.measures.disentanglement import linear_probe
from indexer.measures.metrics import Bootstrap
from indexer.measures.robustness import (
    LabelledVectors,
    background_gap,
    displacement,
    lure_rate,
    swap_test,
)
from indexer.measures.variance import variance_shares

# --- encoders of which the answer is known: z(i, b) = a item_i + (1 - a) background_b + noise of the pose

MIXTURES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)


COUNT, BANK, DIM, KINDS = 30, 5, 12, 3


NAMES = [f"item {n:02d}" for n in range(COUNT)]


LABELS = [f"kind {n % KINDS}" for n in range(COUNT)]


LURES = np.arange(COUNT) % BANK


PAIRED = Bootstrap(NAMES, replicates=200)


@dataclass(frozen=True)
class Seen:
    """Vectors of a constructed encoder for a swap set: swapped `(I, B, dim)`, the others `(I, dim)`."""

    gallery: np.ndarray
    clean: np.ndarray
    swapped: np.ndarray
    lures: np.ndarray
    same: np.ndarray
    random: np.ndarray

    def figures(self, metric: str) -> dict[str, float]:
        swap = swap_test(
            LabelledVectors(self.gallery, NAMES), LabelledVectors(self.clean, NAMES),
            LabelledVectors(self.swapped.reshape(-1, DIM), np.repeat(NAMES, BANK).tolist()), metric, replicates=50,
        ).figures  # fmt: skip
        shares = variance_shares(self.swapped, ("item", "background"), replicates=50)
        gap = background_gap(self.gallery, (self.same, DONORS[0]), (self.random, DONORS[1]), LABELS, metric,
                             bootstrap=PAIRED)  # fmt: skip
        flat, items, backgrounds = (
            self.swapped.reshape(-1, DIM),
            np.repeat(NAMES, BANK),
            np.tile(np.arange(BANK), COUNT),
        )
        return {
            "swapped recall@1": swap["recall@1"].swapped.value,
            "swapped recall@5": swap["recall@5"].swapped.value,
            "swapped map@r": swap["map@r"].swapped.value,
            "retention": swap["map@r"].retention.value,
            "item share": shares["item"].value,
            "background share": shares["background"].value,
            "background gap": gap.gap.value,
            "lure rate": lure_rate(self.swapped, self.lures, LURES, metric, k=10, bootstrap=PAIRED).value,
            "displacement": PAIRED.interval(displacement(self.swapped).ratio).value,
            "overtaken": PAIRED.share(displacement(self.swapped).overtaken).value,
            "background probe": linear_probe(flat, backgrounds, items, replicates=50).score.value,
            "item probe": linear_probe(
                flat, items, backgrounds.astype(str), replicates=50, split=backgrounds > 2
            ).score.value,
        }


def donors() -> tuple[np.ndarray, np.ndarray]:
    """The donor of each item's background: of its own kind, and of any kind."""
    rng = np.random.default_rng(1)
    same = (np.arange(COUNT) + KINDS * rng.integers(1, COUNT // KINDS, COUNT)) % COUNT
    return same, (np.arange(COUNT) + rng.integers(1, COUNT, COUNT)) % COUNT


DONORS = donors()


def seen(a: float, metric: str, *, pose: float = 0.0, seed: int = 0) -> Seen:
    """Items and own backgrounds are grouped by kind, those of the bank are far from one another."""
    rng = np.random.default_rng(seed)
    kinds, rooms = (3 * rng.normal(size=(KINDS, DIM)) for _ in range(2))
    items, own = (groups[np.arange(COUNT) % KINDS] + rng.normal(size=(COUNT, DIM)) for groups in (kinds, rooms))
    bank = 3 * rng.normal(size=(BANK, DIM))

    def look(backgrounds: np.ndarray) -> np.ndarray:
        shown = items[:, None] if backgrounds.ndim == 3 else items
        z = a * shown + (1 - a) * backgrounds
        z = (z + pose * rng.normal(size=z.shape)).astype(np.float32)
        return z / np.linalg.norm(z, axis=-1, keepdims=True) if metric == "cosine" else z

    swapped = look(np.broadcast_to(bank, (COUNT, BANK, DIM)))
    same, random = (look(own[places]) for places in DONORS)
    return Seen(look(own), look(own), swapped, look(bank[LURES]), same, random)
