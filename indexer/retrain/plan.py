"""The plan of a retraining, as the catalogue stores it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from indexer.retrain.gate import GateRule

HELD_OUT = 0.2  # share of the items that candidates are measured on and never train on
MIN_RECALL = 0.95  # recall@10 of the new index against exact search
BACKGROUNDS = 20  # backgrounds of each held-out item; fewer say little about other backgrounds (docs/studies/gate.md)
STEPS = ("export", "train", "evaluate", "gate", "embed", "build", "verify", "calibrate", "activate")


@dataclass(frozen=True)
class RetrainPlan:
    """What a retraining does; it is stored, and a resumed run keeps it.

    Args:
        recipes: names or YAML files; each is trained to be a candidate.
        overrides: `key=value`, for all recipes.
        backgrounds: folder of photos that held-out items are placed on; by default drawn backgrounds.
        held_out: share of the items, chosen by the hashes of their ids: an item stays held out as the catalogue grows.
        items: maximum number of held-out items that are measured.
        per_item: backgrounds that every item is placed on, 20 or more.
        minimum_recall: recall@10 against exact search that the new index must reach.
        encoders: directories or pretrained names of encoders that are candidates without training.
    """

    recipes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    gate: GateRule = GateRule()
    backgrounds: str | None = None
    held_out: float = HELD_OUT
    items: int = 500
    per_item: int = BACKGROUNDS
    minimum_recall: float = MIN_RECALL
    device: str = "auto"
    precision: str = "32"
    seed: int = 0
    encoders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("give one or more recipes or encoders")
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError("a recipe or encoder is listed twice; list each once")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, not {self.held_out}")
        if self.per_item < BACKGROUNDS:
            raise ValueError(f"per_item must be {BACKGROUNDS} or more, not {self.per_item}")
        if not 0 <= self.minimum_recall <= 1:
            raise ValueError(f"minimum recall must be between 0 and 1, not {self.minimum_recall}")

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names of all candidates, as the decision lists them."""
        return (*self.recipes, *self.encoders)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RetrainPlan:
        """A stored plan; a plan of an earlier version with fewer backgrounds is raised to the present minimum."""
        values: dict[str, Any] = {**document, "gate": GateRule(**document["gate"])}
        values["per_item"] = max(BACKGROUNDS, values.get("per_item", 0))
        values |= {name: tuple(values[name]) for name in ("recipes", "encoders", "overrides") if name in values}
        return cls(**values)
