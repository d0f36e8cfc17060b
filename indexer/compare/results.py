"""The result of a comparison: the measures of each encoder, as JSON and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.evaluate.placement_tables import placement_lines
from indexer.measures.disentanglement import Disentanglement, Probe
from indexer.measures.metrics import Interval
from indexer.measures.robustness import MAP_AT_R, BackgroundGap, SwapTest
from indexer.measures.significance import Paired
from indexer.swaps.placement import PlacementTest
from indexer.swaps.swap_set import Pixels, SwapSet
from indexer.vectors import Floats


@dataclass(frozen=True)
class EncoderComparison:
    """The measures of one encoder, and the arrays that the report draws.

    Args:
        swap: figures of clean and swapped queries by metric.
        shares: variance shares of item, background and their interaction.
        known_shares: variance shares of the synthetic shop's item, background, pose and light.
        probes: `background`, `category` and `item`, if their labels are known.
        versus: differences to the first encoder on the same items; p-values are adjusted for all of these tests.
        displacement, overtaken: see `indexer.measures.robustness`.
        displacements, attentions: values of each item `(I,)`.
        vectors: vectors of the swapped queries `(I, B, dim)`.
        top: gallery positions `(I, B, SHOWN)` of their nearest pictures.
        reconstructions: `(RECONSTRUCTED, B, C, S, S)` uint8; None without a decoder.
        placement: None if it was not requested.
    """

    name: str
    encoder_id: str
    family: str
    dim: int
    metric: str
    swap: SwapTest
    gap: BackgroundGap | None
    shares: dict[str, Interval]
    known_shares: dict[str, Interval]
    probes: dict[str, Probe]
    lure: Interval
    displacement: Interval
    overtaken: Interval
    attention: Interval
    disentanglement: Disentanglement | None
    versus: dict[str, Paired]
    displacements: NDArray[np.float64]
    attentions: NDArray[np.float64]
    vectors: Floats
    top: NDArray[np.intp]
    reconstructions: Pixels | None
    seconds: float
    placement: PlacementTest | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "encoder_id": self.encoder_id,
            "family": self.family,
            "dim": self.dim,
            "metric": self.metric,
            "swap": {name: figure.to_json() for name, figure in self.swap.figures.items()},
            "background_gap": None if self.gap is None else self.gap.to_json(),
            "shares": {name: share.to_json() for name, share in self.shares.items()},
            "known_shares": {name: share.to_json() for name, share in self.known_shares.items()},
            "probes": {name: probe.to_json() for name, probe in self.probes.items()},
            "lure_rate": self.lure.to_json(),
            "displacement": self.displacement.to_json(),
            "overtaken": self.overtaken.to_json(),
            "attention_score": self.attention.to_json(),
            "disentanglement": None if self.disentanglement is None else self.disentanglement.to_json(),
            "difference_to_first": {name: paired.to_json() for name, paired in self.versus.items()},
            "placement": None if self.placement is None else self.placement.to_json(),
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Comparison:
    """The swap set, and the encoders by descending swapped MAP@R."""

    set: SwapSet
    seed: int
    leaks: dict[str, int]
    encoders: dict[str, EncoderComparison] = field(default_factory=dict)
    first: str = ""  # the encoder that the others are compared with

    def to_json(self) -> dict[str, Any]:
        made = self.set
        of = {"mask_kind": made.mask_kind, "share_left_out": made.cut.left_out}  # repeated for each encoder
        return {
            "set": made.name,
            **made.to_json(),
            "leaks": self.leaks,
            "seed": self.seed,
            "first": self.first,
            "encoders": {name: {**of, **found.to_json()} for name, found in self.encoders.items()},
        }

    def to_text(self) -> str:
        """A table of the measures with their intervals, best first."""
        width = max(map(len, self.encoders))
        head = ("clean map@r", "swapped map@r", "retention", "background share", "overtaken", "lure rate")
        left_out = f"{self.set.cut.left_out:.0%} of photos"
        lines = [describe(self.set), " ".join([" " * width, *(f"{name:>20s}" for name in (*head, "left out"))])]
        for name, found in self.encoders.items():
            swap = found.swap.figures[MAP_AT_R]
            cells = (*swap, found.shares["background"], found.overtaken, found.lure)
            lines.append(
                " ".join([name.ljust(width), *(f"{cell.to_text():>20s}" for cell in cells), f"{left_out:>20s}"])
            )
        return "\n".join([*lines, *placement_lines({name: each.placement for name, each in self.encoders.items()})])


def describe(made: SwapSet) -> str:
    """A description of the set in one line."""
    truth = (
        "different photos of each item" if made.truth == "photos" else "a photo of each item and a random view of it"
    )
    left = ", ".join(f"{count} x {reason}" for reason, count in made.left_out.items()) or "nothing left out"
    tied = len(made) - len(set(made.products))
    more = f", {tied} merged with others because of near-duplicate photos" if tied else ""
    return (
        f"{made.name}: {len(made)} items{more} on {len(made.backgrounds)} backgrounds; ground truth: {truth}; "
        f"{made.masks_in_words()}; {left}"
    )
