"""What the gate can find on the held-out items there are: printed by `nitamono retrain --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from indexer.catalogue.records import RetrainRecord
from indexer.measures.crossed import POWER, Spread, detectable_gain, detectable_loss
from indexer.retrain.gate import GateRule, confidence_text

# Of the differences between two encoders, on drawn items; measured in docs/studies/gate.md.
ASSUMED = {"product": 0.2, "background": 0.05, "interaction": 0.32, "clean": 0.12, "clean_size": 0.6}


@dataclass(frozen=True)
class Prospect:
    """The smallest differences that the gate finds in 8 of 10 cases.

    Args:
        gain: of swapped MAP@R, that is shown to be one.
        loss: margin of clean MAP@R within which a candidate without a loss is found to be.
        products, backgrounds: expected to be measured.
        level: of each candidate's swapped bound.
        spread: standard deviations of differences to the active encoder that this rests on.
        measured_by: number of the retraining that the spread was measured by; None where it is assumed.
    """

    gain: float
    loss: float
    products: int
    backgrounds: int
    level: float
    spread: dict[str, float]
    measured_by: int | None
    power: float = POWER

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def prospect(
    rule: GateRule, records: Sequence[RetrainRecord], held_out: int, backgrounds: int, level: float
) -> Prospect:
    """What can be found on so many held-out items.

    Args:
        level: of each candidate's swapped bound.
        records: the collection's retrainings; the last one that stored its spread says how large that is, and which
            share of the held-out items could be measured.
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


def describe_prospect(found: dict[str, Any], margin: float) -> list[str]:
    """A prospect in lines, with what to do where the margin is too narrow for the items."""
    number = found["measured_by"]
    told = "assumed" if number is None else f"measured by retraining {number}"
    of = found["spread"]
    lines = [
        f"what can be found on {found['products']} products and {found['backgrounds']} backgrounds in "
        f"{found['power']:.0%} of cases: a gain of {found['gain']:.3f} swapped MAP@R (at "
        f"{confidence_text(found['level'])} confidence for each candidate), and that a candidate does not lose "
        f"{found['loss']:.3f} clean",
        f"spread of differences, {told}: products {of['product']:.2f}, backgrounds {of['background']:.2f}, both "
        f"{of['interaction']:.2f}; clean {of['clean']:.2f}",
    ]
    if found["loss"] > margin:
        lines.append(
            f"the margin is {margin:g}: many candidates that lose nothing will be refused; hold out more items, or "
            f"accept a loss by --margin {found['loss']:.2f}"
        )
    return lines


def _known(records: Sequence[RetrainRecord]) -> tuple[dict[str, float], int | None, float]:
    """The mean spread over the candidates of the last retraining with one, its number, and the share measured."""
    for record in reversed(records):
        decision = record.decision or {}
        found = [row["verdict"].get("spread") for row in decision.get("candidates", {}).values()]
        known = [row for row in found if row and any(row[name] for name in ("product", "interaction"))]
        if known:
            share = decision["set"]["products"] / max(1, len(decision["held_out_items"]))
            mean = {name: sum(row[name] for row in known) / len(known) for name in ASSUMED}
            return mean, record.number, min(1.0, share)
    return dict(ASSUMED), None, 1.0
