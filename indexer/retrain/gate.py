"""The gate: which candidate, if any, replaces the active encoder.

A candidate is promoted if its swapped MAP@R is higher than the active encoder's and its clean MAP@R is not lower by
more than a margin, both measured on the same held-out products:

    lower bound of mean(swapped_candidate - swapped_active) > 0
    lower bound of mean(clean_candidate - clean_active) > -margin

The first bound treats products and backgrounds as random samples (`indexer.measures.crossed.crossed_bound`). Its level
is the share of the held-out items' error budget that this retraining may spend (`indexer.retrain.budget`), divided by
the number of candidates (Bonferroni). However often a collection is retrained, the probability of promoting any
candidate that is no better therefore stays below 1 - confidence.

The second is a non-inferiority test (`loss_bound`) of each candidate at 1 - confidence. It is not part of the budget: a
candidate that is better on other backgrounds but loses more than the margin on clean photos passes with that
probability each time one is tried. See docs/decisions/0013-errors-of-the-gate.md.

If several candidates pass, the one with the highest swapped MAP@R is promoted. A tie is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.measures.crossed import Bound, crossed_bound, loss_bound, loss_size, spread


@dataclass(frozen=True)
class GateRule:
    """How certain a gain on other backgrounds must be, and how large a loss on clean photos is acceptable.

    Args:
        confidence: 1 minus the probability that any retraining on one set of held-out items promotes a candidate that
            is no better.
        margin: loss of clean MAP@R that must be ruled out for each candidate. With 60 items, the default can be ruled
            out for most candidates that lose nothing (docs/studies/gate.md).
    """

    confidence: float = 0.95
    margin: float = 0.08

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence must be between 0.5 and 1, not {self.confidence}")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin must be between 0 and 1, not {self.margin}")

    @property
    def budget(self) -> float:
        return 1.0 - self.confidence


@dataclass(frozen=True)
class Evidence:
    """An encoder's MAP@R of each held-out product; the products are in the same order for all encoders.

    Args:
        clean: `(products,)`, mean over a product's clean views.
        swapped: `(products, backgrounds)`.
    """

    encoder_id: str
    products: Sequence[str]
    clean: NDArray[np.float64]
    swapped: NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on a candidate, with its differences to the active encoder.

    Bounds are NaN if they cannot be computed. The last three fields are None in rows of earlier versions.

    Args:
        level: error probability of the swapped bound; that of the clean bound is 1 - confidence.
        spread: standard deviations of the swapped differences (`product`, `background`, `interaction`) and of the clean
            differences between products (`clean`), and the typical size of a non-zero clean difference (`clean_size`).
    """

    encoder_id: str
    promoted: bool
    swapped_difference: float
    swapped_bound: float
    clean_difference: float
    reasons: tuple[str, ...]
    clean_bound: float | None = None
    level: float | None = None
    spread: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        newer = {"clean_bound": self.clean_bound, "level": self.level, "spread": self.spread}
        return {
            "encoder_id": self.encoder_id,
            "promoted": self.promoted,
            "swapped_difference": self.swapped_difference,
            "swapped_bound": self.swapped_bound,
            "clean_difference": self.clean_difference,
            **{name: value for name, value in newer.items() if value is not None},
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Verdict:
        nan = float("nan")
        values: dict[str, Any] = {name: nan if value is None else value for name, value in document.items()}
        return cls(**{**values, "reasons": tuple(values["reasons"])})


def give_verdicts(
    rule: GateRule, active: Evidence, candidates: Mapping[str, Evidence], *, level: float | None = None
) -> dict[str, Verdict]:
    """Compare each candidate with the active encoder.

    Args:
        level: error probability that this retraining may spend over all candidates; by default the whole budget.

    Raises:
        ValueError: the evidence is not of the same products and backgrounds.
    """
    for name, candidate in candidates.items():
        if list(candidate.products) != list(active.products):
            raise ValueError(f"{name} was measured on other items than the active encoder; measure both on the same")
        if candidate.swapped.shape != active.swapped.shape:
            raise ValueError(
                f"{name} was measured on {candidate.swapped.shape[1]} backgrounds, the active encoder on "
                f"{active.swapped.shape[1]}; measure both on the same"
            )
    each = (rule.budget if level is None else level) / max(1, len(candidates))
    return {name: _verdict(rule, each, active, candidate) for name, candidate in candidates.items()}


def best_promoted(verdicts: Mapping[str, Verdict], candidates: Mapping[str, Evidence]) -> str | None:
    """The promoted candidate with the highest swapped MAP@R; None if none is promoted."""
    promoted = [name for name, verdict in verdicts.items() if verdict.promoted]
    return max(promoted, key=lambda name: float(candidates[name].swapped.mean()), default=None)


def _verdict(rule: GateRule, level: float, active: Evidence, candidate: Evidence) -> Verdict:
    swapped, clean = candidate.swapped - active.swapped, candidate.clean - active.clean
    gain, loss = crossed_bound(swapped, 1.0 - level), loss_bound(clean, rule.confidence)
    better, holds = gain.low > 0, loss.low > -rule.margin
    if holds:
        lost = f"within the margin of {rule.margin:g}"
    else:
        chance = "likely" if loss.mean <= -rule.margin else "not ruled out"
        lost = f"a loss of {rule.margin:g} (the margin) or more is {chance}"
    return Verdict(
        encoder_id=candidate.encoder_id,
        promoted=better and holds,
        swapped_difference=gain.mean,
        swapped_bound=gain.low,
        clean_difference=loss.mean,
        clean_bound=loss.low,
        level=level,
        spread=_spread(swapped, clean),
        reasons=(
            f"swapped MAP@R {_bound_text(gain, level)}: " + ("better" if better else "not shown to be better"),
            f"clean MAP@R {_bound_text(loss, rule.budget)}: {lost}",
        ),
    )


def _bound_text(bound: Bound, level: float) -> str:
    return f"{bound.mean:+.3f}, at least {bound.low:+.3f} with {confidence_text(level)} confidence"


def confidence_text(level: float) -> str:
    """1 - level in percent, with enough digits to differ from 100 %."""
    digits = max(1, 1 - int(np.floor(np.log10(100 * level)))) if 0 < level < 1 else 1
    return f"{100 * (1 - level):.{digits}f}%"


def _spread(swapped: NDArray[np.float64], clean: NDArray[np.float64]) -> dict[str, float]:
    if min(swapped.shape) < 2:
        return {}
    return {**spread(swapped)._asdict(), "clean": float(clean.std(ddof=1)), "clean_size": loss_size(clean)}
