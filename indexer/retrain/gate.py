"""The gate: which candidate, if any, replaces the active encoder.

A candidate is promoted when its swapped MAP@R is better and its clean MAP@R is not worse by more than a margin, on the
same held-out products as the active encoder's:

    lower bound of mean(swapped_candidate - swapped_active) > 0
    lower bound of mean(clean_candidate - clean_active) > -margin

The first bound takes products and backgrounds for what they are, some of many (`indexer.evaluate.crossed_bound`). Its
level is what the error budget of the held-out items gives this retraining (`indexer.retrain.budget`), divided by the
number of candidates (Bonferroni): however often a collection is retrained, the chance that anything is promoted that is
no better stays below 1 - confidence.

The second is a test of non-inferiority (`loss_bound`) of each candidate at 1 - confidence. It shares no budget: a
candidate that is better on other backgrounds and loses more than the margin on clean ones passes with that chance
whenever one is tried. See docs/decisions/0013-errors-of-the-gate.md.

Of several that pass, the one with the best swapped MAP@R is promoted. A tie is no improvement: it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.measures.crossed import Bound, crossed_bound, loss_bound, loss_size, spread


@dataclass(frozen=True)
class GateRule:
    """How sure it must be that a candidate is better on other backgrounds, and what it may lose on clean ones.

    Args:
        confidence: 1 minus the chance that any retraining on one set of held-out items promotes what is no better.
        margin: of clean MAP@R; a loss of as much or more has to be ruled out for each candidate. The default can be on
            60 items, for most candidates that lose nothing (docs/studies/gate.md).
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
    """An encoder's MAP@R of each held-out product, in one order for all encoders.

    Args:
        clean: `(products,)`, the mean over a product's clean views.
        swapped: `(products, backgrounds)`.
    """

    encoder_id: str
    products: Sequence[str]
    clean: NDArray[np.float64]
    swapped: NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate, with the differences to the active encoder that it rests on.

    Args:
        level: the chance of error that the swapped bound is at; the clean one is at 1 - confidence.
        spread: standard deviations of the swapped differences (`product`, `background`, `interaction`) and of the clean
            ones between products (`clean`), and how large these are where there is one (`clean_size`).
    """

    encoder_id: str
    promoted: bool
    swapped_difference: float
    swapped_bound: float
    clean_difference: float
    clean_bound: float
    level: float
    spread: dict[str, float]
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    rule: GateRule, active: Evidence, candidates: Mapping[str, Evidence], *, level: float | None = None
) -> dict[str, Verdict]:
    """A verdict on each candidate.

    Args:
        level: what this retraining may spend of the error budget over all candidates; all of it by default.

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
    return {name: _judge(rule, each, active, candidate) for name, candidate in candidates.items()}


def winner(verdicts: Mapping[str, Verdict], candidates: Mapping[str, Evidence]) -> str | None:
    """The promoted candidate with the best swapped MAP@R; None where none is promoted."""
    promoted = [name for name, verdict in verdicts.items() if verdict.promoted]
    return max(promoted, key=lambda name: float(candidates[name].swapped.mean()), default=None)


def _judge(rule: GateRule, level: float, active: Evidence, candidate: Evidence) -> Verdict:
    swapped, clean = candidate.swapped - active.swapped, candidate.clean - active.clean
    gain, loss = crossed_bound(swapped, 1.0 - level), loss_bound(clean, rule.confidence)
    better, holds = gain.low > 0, loss.low > -rule.margin
    reasons = (
        f"swapped MAP@R is {_told(gain, level)}: " + ("better" if better else "not shown to be better"),
        f"clean MAP@R is {_told(loss, rule.budget)}: "
        + (f"within the margin of {rule.margin:g}" if holds else f"a loss of the margin, {rule.margin:g}, or more is "
           + ("likely" if loss.mean <= -rule.margin else "not ruled out")),
    )  # fmt: skip
    return Verdict(
        candidate.encoder_id, better and holds, gain.mean, gain.low, loss.mean, loss.low, level,
        _spread(swapped, clean), reasons,
    )  # fmt: skip


def _told(bound: Bound, level: float) -> str:
    return f"{bound.mean:+.3f}, at least {bound.low:+.3f} with {confidence_text(level)} confidence"


def confidence_text(level: float) -> str:
    """1 - level in percent, with as many digits as tell it from 100 %."""
    digits = max(1, 1 - int(np.floor(np.log10(100 * level)))) if 0 < level < 1 else 1
    return f"{100 * (1 - level):.{digits}f}%"


def _spread(swapped: NDArray[np.float64], clean: NDArray[np.float64]) -> dict[str, float]:
    if min(swapped.shape) < 2:
        return {}
    return {**spread(swapped)._asdict(), "clean": float(clean.std(ddof=1)), "clean_size": loss_size(clean)}
