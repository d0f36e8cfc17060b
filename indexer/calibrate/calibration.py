"""Calibrations: from the scores of a search to probabilities of the same product.

A calibration belongs to one collection and one encoder and is fitted to the catalogue's own photos without labels
(`indexer.calibrate.pairs`, `indexer.calibrate.probability`). Its probabilities hold for queries of which a share
`present` has its product in the catalogue; the default is 10/11.
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

MIN_CALIBRATION_ITEMS = 50  # queries; with fewer, a single one would change every figure by percents
PRESENT = 10 / 11  # default share of queries whose product is in the catalogue


@dataclass(frozen=True)
class Calibration:
    """A curve from a hit to its probability of the same product, with its quality on held-out pairs.

    Args:
        curve: fitted to all pairs.
        encoder_id: the encoder of the scores.
        truth: `photos` or `views`, see `indexer.calibrate.pairs`.
        queries, pairs, positives: number of query items, of their hits, and of the hits that are the same product.
        images: number of images in the collection.
        present: share of queries whose product is in the catalogue.
        ece, ece_ci: expected calibration error with a 95 % confidence interval of the true error.
        ece_chance: mean ECE if the probabilities were exact; with finitely many pairs it is not 0.
        ece_first, ece_first_ci, ece_first_chance: the same for the first hit of each query.
        brier, log_loss: Brier score, and log loss in nats per pair.
        reliability: (mean probability, share of the same product, pairs) of each bin.
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
        """Probabilities of the same product for the best hits of a search, whose scores must fall from the first on.

        A probability depends on the hit's score and the best other score, so it is the same on every page.
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
        """The inverse of `to_json`; raises `CorruptError` for another document."""
        try:
            known = {name: value[name] for name in cls.__dataclass_fields__ if name != "curve"}
            known |= {name: tuple(value[name]) for name in ("ece_ci", "ece_first_ci")}
            known["reliability"] = tuple(Bin(**point) for point in value["reliability"])
            curve = HitCurve(_curve_of(value), float(value["margin_share"]), _curve_of(value["alone"]))
            return cls(curve, **known)
        except (KeyError, TypeError, ValueError) as exc:
            raise CorruptError(f"the stored calibration is malformed ({exc}); run `nitamono calibrate`") from exc


def stored_calibration(home: Home, collection_id: int, encoder_id: str) -> Calibration | None:
    """The calibration that `calibrate` stored last; None without one, or if it must be renewed (`is_current`)."""
    content = home.catalogue.calibrations.get(collection_id, encoder_id)
    return Calibration.from_json(_upgraded(content)) if content is not None and is_current(content) else None


def is_current(content: Mapping[str, Any]) -> bool:
    """Whether a stored document is a calibration of score and margin; early ones were of the score alone."""
    return "margin_share" in content


def _upgraded(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the fields that early calibrations lack: the default share, and chance simulated from their bins."""
    if "present" in content or "reliability" not in content:
        return content
    bins = [Bin(**point) for point in content["reliability"]]
    probabilities = np.repeat([each.probability for each in bins], [each.pairs for each in bins])
    return {**content, "present": PRESENT, "ece_chance": ece_of_chance(probabilities)}


def _curve_of(value: Mapping[str, Any]) -> Curve:
    return Curve(value["kind"], tuple((float(score), float(probability)) for score, probability in value["knots"]))
