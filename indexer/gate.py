"""The gate: which candidate, if any, takes the place of the encoder in service.

A candidate is promoted when its swapped MAP@R is better with 95 % confidence and its clean MAP@R is not worse by more
than a margin, both on the same held-out items as the active encoder's:

    lower bound of mean(swapped_candidate - swapped_active) > 0
    mean(clean_candidate - clean_active) >= -margin

The bound is one-sided, by bootstrap over items, wider where these are few; with n candidates each must hold at
1 - (1 - confidence) / n, so that trying many does not let one through by luck (Bonferroni). Of several that pass, the
one with the best swapped MAP@R is promoted. A tie is no improvement: it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.evaluate.metrics import Bootstrap

REPLICATES = 10_000


@dataclass(frozen=True)
class GateRule:
    """How sure it must be that a candidate is better on other backgrounds, and what it may lose on clean ones."""

    confidence: float = 0.95
    margin: float = 0.02

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence must be between 0.5 and 1, not {self.confidence}")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin must be between 0 and 1, not {self.margin}")


@dataclass(frozen=True)
class Evidence:
    """An encoder's MAP@R of each held-out product `(products,)`, in one order for all encoders."""

    encoder_id: str
    products: Sequence[str]
    clean: NDArray[np.float64]
    swapped: NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate, with the differences to the active encoder that it rests on."""

    encoder_id: str
    promoted: bool
    swapped_difference: float
    swapped_bound: float
    clean_difference: float
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(rule: GateRule, active: Evidence, candidates: Mapping[str, Evidence], *, seed: int = 0) -> dict[str, Verdict]:
    """A verdict on each candidate.

    Raises:
        ValueError: the evidence is not of the same items.
    """
    for name, candidate in candidates.items():
        if list(candidate.products) != list(active.products):
            raise ValueError(f"{name} was measured on other items than the active encoder; measure both on the same")
    bootstrap = Bootstrap(active.products, replicates=REPLICATES, seed=seed)
    confidence = 1.0 - (1.0 - rule.confidence) / max(1, len(candidates))
    return {name: _judge(rule, confidence, active, candidate, bootstrap) for name, candidate in candidates.items()}


def winner(verdicts: Mapping[str, Verdict], candidates: Mapping[str, Evidence]) -> str | None:
    """The promoted candidate with the best swapped MAP@R; None where none is promoted."""
    promoted = [name for name, verdict in verdicts.items() if verdict.promoted]
    return max(promoted, key=lambda name: float(candidates[name].swapped.mean()), default=None)


def _judge(rule: GateRule, confidence: float, active: Evidence, candidate: Evidence, bootstrap: Bootstrap) -> Verdict:
    swapped, clean = candidate.swapped - active.swapped, candidate.clean - active.clean
    gained, lost = float(swapped.mean()), float(clean.mean())
    bound = bootstrap.lower_bound(swapped, confidence)
    better, holds = bound > 0, lost >= -rule.margin
    sure = f"with {confidence:.1%} confidence"
    reasons = (
        f"swapped MAP@R is {gained:+.3f}, at least {bound:+.3f} {sure}: "
        + ("better" if better else "not shown to be better"),
        f"clean MAP@R is {lost:+.3f}: {'within' if holds else 'worse by more than'} the margin of {rule.margin:g}",
    )
    return Verdict(candidate.encoder_id, better and holds, gained, bound, lost, reasons)
