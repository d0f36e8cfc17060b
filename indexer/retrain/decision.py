"""The decision of a retraining and the figures behind it, as typed records.

The catalogue stores a decision as JSON, and the command line prints the same JSON. `from_json` also reads rows that
earlier versions stored. Fields that such a row lacks are None here, and `to_json` omits them again, so a row is written
as it was read. A figure without a value is NaN here and null in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indexer.catalogue.records import RetrainRecord
from indexer.measures.metrics import Interval
from indexer.measures.robustness import SwapFigure
from indexer.retrain.gate import GateRule, Verdict
from training.console import to_json

if TYPE_CHECKING:
    from indexer.measures.ground_truth import Truth


@dataclass(frozen=True)
class Budget:
    """The part of the error budget that a retraining may spend.

    Args:
        alpha: error budget of all retrainings on these held-out items.
        position: ordinal of this judgement among those on these items, from 1.
        handed_on: part of the level that the previous judgement passes on because it promoted a candidate.
        level: error probability that this judgement may spend, over all of its candidates.
        spent: part of alpha that earlier judgements have spent.
        earlier: numbers of the retrainings that were judged on mostly the same items.
        judgements: how often this retraining has been judged, including this time; more than once if another encoder
            was activated while it ran.
    """

    alpha: float
    position: int
    handed_on: float
    level: float
    spent: float
    earlier: tuple[int, ...]
    judgements: int = 1

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "earlier": list(self.earlier)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Budget:
        return cls(**{**document, "earlier": tuple(document["earlier"])})


@dataclass(frozen=True)
class GateSetSummary:
    """What a gate set consists of, without its pictures; see `indexer.retrain.gate_set.GateSet`.

    Args:
        left_out: photos and items that are not used, by reason.
        masks: photos by the source of their mask.
        background_seed, background_sha256, clean_views: None in rows of earlier versions.
    """

    items: int
    products: int
    truth: Truth
    left_out: dict[str, int]
    masks: dict[str, int]
    backgrounds: list[str]
    background_seed: int | None = None
    background_sha256: str | None = None
    clean_views: float | None = None

    def to_json(self) -> dict[str, Any]:
        return _known(vars(self))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> GateSetSummary:
        return cls(**document)


@dataclass(frozen=True)
class EncoderFigures:
    """An encoder's measures on the gate set: swap test by metric, displacement and background share."""

    encoder_id: str
    family: str
    swap: dict[str, SwapFigure]
    displacement: Interval
    background_share: Interval

    def to_json(self) -> dict[str, Any]:
        return {
            "encoder_id": self.encoder_id,
            "family": self.family,
            "swap": {metric: figure.to_json() for metric, figure in self.swap.items()},
            "displacement": self.displacement.to_json(),
            "background_share": self.background_share.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EncoderFigures:
        """The figures in a document; its other keys are ignored."""
        return cls(
            document["encoder_id"],
            document["family"],
            {metric: SwapFigure.from_json(figure) for metric, figure in document["swap"].items()},
            Interval.from_json(document["displacement"]),
            Interval.from_json(document["background_share"]),
        )


@dataclass(frozen=True)
class CandidateEvidence:
    """A candidate's figures and the gate's verdict on it."""

    figures: EncoderFigures
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {**self.figures.to_json(), "verdict": self.verdict.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CandidateEvidence:
        return cls(EncoderFigures.from_json(document), Verdict.from_json(document["verdict"]))


@dataclass(frozen=True)
class Decision:
    """Which candidate replaces the active encoder, if any, and the evidence.

    Args:
        set: the gate set.
        active: figures of the encoder that was active when the decision was made.
        candidates: by recipe, or by reference of an encoder.
        winner: name of the promoted candidate; None if the active encoder stays.
        budget, held_out_items: None in rows of earlier versions.
    """

    rule: GateRule
    set: GateSetSummary
    active: EncoderFigures
    candidates: dict[str, CandidateEvidence]
    winner: str | None
    winner_id: str | None
    budget: Budget | None = None
    held_out_items: Sequence[str] | None = None

    @classmethod
    def of(cls, record: RetrainRecord) -> Decision | None:
        """The decision of a stored retraining; None before there is one."""
        return None if record.decision is None else cls.from_json(record.decision)

    def to_json(self) -> dict[str, Any]:
        """The document that the catalogue stores."""
        document = {
            "rule": vars(self.rule),
            **_known({"budget": self.budget and self.budget.to_json(), "held_out_items": self.held_out_items}),
            "set": self.set.to_json(),
            "active": self.active.to_json(),
            "candidates": {name: candidate.to_json() for name, candidate in self.candidates.items()},
            "winner": self.winner,
            "winner_id": self.winner_id,
        }
        stored: dict[str, Any] = json.loads(to_json(document))  # NaN becomes null
        return stored

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Decision:
        return cls(
            GateRule(**document["rule"]),
            GateSetSummary.from_json(document["set"]),
            EncoderFigures.from_json(document["active"]),
            {name: CandidateEvidence.from_json(row) for name, row in document["candidates"].items()},
            document["winner"],
            document.get("winner_id"),
            Budget.from_json(document["budget"]) if "budget" in document else None,
            document.get("held_out_items"),
        )


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
