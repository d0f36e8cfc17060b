"""The differences that the gate can detect with the available held-out items, for `nitamono retrain --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.catalogue.records import RetrainRecord
from indexer.measures.crossed import POWER, Spread, detectable_gain, detectable_loss
from indexer.retrain.decision import Decision
from indexer.retrain.gate import GateRule, confidence_text

# Spread of the differences between two encoders on drawn items; measured in docs/studies/gate.md.
ASSUMED = {"product": 0.2, "background": 0.05, "interaction": 0.32, "clean": 0.12, "clean_size": 0.6}


@dataclass(frozen=True)
class Prospect:
    """The smallest differences that the gate detects with a probability of `power`.

    Args:
        gain: smallest gain of swapped MAP@R that is shown to be one.
        loss: smallest margin within which a candidate that loses no clean MAP@R is shown to stay.
        products, backgrounds: numbers that are expected to be measured.
        level: error probability of each candidate's swapped bound.
        spread: standard deviations of the differences to the active encoder that these figures assume.
        measured_by: number of the retraining that measured the spread; None if it is assumed.
    """

    gain: float
    loss: float
    products: int
    backgrounds: int
    level: float
    spread: dict[str, float]
    measured_by: int | None
    power: float = POWER


def prospect(
    rule: GateRule, records: Sequence[RetrainRecord], held_out: int, backgrounds: int, level: float
) -> Prospect:
    """What the gate can detect with a number of held-out items.

    Args:
        level: error probability of each candidate's swapped bound.
        records: the collection's retrainings; the last one with a stored spread gives the spread, and the share of the
            held-out items that could be measured.
    """
    of, measured_by, share = _known(records)
    products = max(2, round(share * held_out))
    swapped = Spread(of["product"], of["background"], of["interaction"])
    return Prospect(
        gain=detectable_gain(swapped, products, backgrounds, 1.0 - level),
        loss=detectable_loss(of["clean"], of["clean_size"], products, rule.confidence),
        products=products,
        backgrounds=backgrounds,
        level=level,
        spread=of,
        measured_by=measured_by,
    )


def describe_prospect(found: Prospect, margin: float) -> list[str]:
    """A prospect in lines, with a remedy if there are too few items for the margin."""
    source = "assumed" if found.measured_by is None else f"measured by retraining {found.measured_by}"
    of = found.spread
    lines = [
        f"detectable in {found.power:.0%} of cases with {found.products} products and {found.backgrounds} backgrounds: "
        f"a gain of {found.gain:.3f} swapped MAP@R (at {confidence_text(found.level)} confidence for each candidate), "
        f"and the absence of a loss of {found.loss:.3f} clean MAP@R",
        f"standard deviation of differences ({source}): between products {of['product']:.2f}, between backgrounds "
        f"{of['background']:.2f}, interaction {of['interaction']:.2f}; clean {of['clean']:.2f}",
    ]
    if found.loss > margin:
        lines.append(
            f"the margin is {margin:g}: many candidates that lose nothing will be refused; hold out more items, or "
            f"accept a larger loss with --margin {found.loss:.2f}"
        )
    return lines


def _known(records: Sequence[RetrainRecord]) -> tuple[dict[str, float], int | None, float]:
    """The mean spread over the candidates of the last retraining that has one, its number, and the share measured."""
    for record in reversed(records):
        decision = Decision.of(record)
        if decision is None or decision.held_out_items is None:
            continue
        found = [candidate.verdict.spread for candidate in decision.candidates.values()]
        known = [row for row in found if row and any(row[name] for name in ("product", "interaction"))]
        if known:
            share = decision.set.products / max(1, len(decision.held_out_items))
            mean = {name: sum(row[name] for row in known) / len(known) for name in ASSUMED}
            return mean, record.number, min(1.0, share)
    return dict(ASSUMED), None, 1.0
