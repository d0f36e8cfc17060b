"""Calibrations: what a score means in a collection, as the probability of the same product.

A calibration belongs to one collection and one encoder, and is learnt from the catalogue's own photos without labels
(`indexer.calibrate.pairs`, `indexer.calibrate.probability`). Its probabilities are those of searches of which a share
`present` has its product in the catalogue: by default ten of eleven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.calibrate.probability import (
    Bin,
    Curve,
    HitCurve,
    Kind,
    best_others,
    ece_of_chance,
)
from indexer.catalogue.home import Home
from indexer.errors import CorruptError

if TYPE_CHECKING:
    from indexer.measures.ground_truth import Truth

MIN_CALIBRATION_ITEMS = 50  # to ask for: of fewer, one more or less would move every figure by percents
PRESENT = 10 / 11  # share of searches whose product is in the catalogue, where nobody says otherwise


@dataclass(frozen=True)
class Calibration:
    """A curve from a hit to its probability of the same product, and how well it did on pairs that it had not seen.

    Args:
        curve: fitted to all pairs.
        encoder_id: by whose scores.
        truth: `photos` or `views`, see `indexer.calibrate.pairs`.
        queries, pairs, positives: how many items were asked for, the hits, and those of one product with it.
        images: that the collection had.
        present: share of searches whose product is in the catalogue, that the probabilities are of.
        ece, ece_ci: expected calibration error, held out, with a 95 % interval of the true error.
        ece_chance: what it would be on average if the probabilities were true; of finite pairs it is not 0.
        ece_first, ece_first_ci, ece_first_chance: the same of each query's first hit alone.
        brier, log_loss: held out; nats a pair.
        reliability: (mean probability, share of the same product, pairs) of each bin, held out.
    """

    curve: HitCurve
    encoder_id: str
    truth: Truth
    queries: int
    pairs: int
    positives: int
    images: int
    present: float
    ece: float
    ece_ci: tuple[float, float]
    ece_chance: float
    ece_first: float
    ece_first_ci: tuple[float, float]
    ece_first_chance: float
    brier: float
    log_loss: float
    reliability: tuple[Bin, ...]

    @property
    def kind(self) -> Kind:
        return self.curve.curve.kind

    def probabilities(self, falling: Sequence[float]) -> list[float]:
        """The probability of the same product of each of a search's best hits, from the first one on, by their scores.

        Each depends on its own score and the best other one, so it is the same on whatever page the hit is shown.
        """
        scores = np.array(falling, dtype=np.float64)
        return [float(probability) for probability in self.curve(scores, best_others(scores))]

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        hit = document.pop("curve")
        curve = {**hit["curve"], "margin_share": self.curve.margin_share, "alone": hit["alone"]}
        return {**curve, **document, "reliability": [point._asdict() for point in self.reliability]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """`CorruptError` where it is not what `to_json` gives."""
        try:
            known = {name: value[name] for name in cls.__dataclass_fields__ if name != "curve"}
            known |= {name: tuple(value[name]) for name in ("ece_ci", "ece_first_ci")}
            known["reliability"] = tuple(Bin(**point) for point in value["reliability"])
            curve = HitCurve(_curve_of(value), float(value["margin_share"]), _curve_of(value["alone"]))
            return cls(curve, **known)
        except (KeyError, TypeError, ValueError) as exc:
            raise CorruptError(f"the stored calibration is not whole ({exc}); run `nitamono calibrate`") from exc


def stored_calibration(home: Home, collection_id: int, encoder_id: str) -> Calibration | None:
    """What `calibrate` stored last; None where it never could, or only in a form that is due for renewal."""
    content = home.catalogue.calibrations.get(collection_id, encoder_id)
    return Calibration.from_json(_upgraded(content)) if content is not None and is_current(content) else None


def is_current(content: Mapping[str, Any]) -> bool:
    return "margin_share" in content


def _upgraded(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what calibrations once stored lack: the share was the default, and chance is drawn from their bins."""
    if "present" in content or "reliability" not in content:
        return content
    bins = [Bin(**point) for point in content["reliability"]]
    probabilities = np.repeat([each.probability for each in bins], [each.pairs for each in bins])
    return {**content, "present": PRESENT, "ece_chance": ece_of_chance(probabilities)}


def _curve_of(value: Mapping[str, Any]) -> Curve:
    return Curve(value["kind"], tuple((float(score), float(probability)) for score, probability in value["knots"]))
