"""The typed decision: the stored JSON stays what it was, and rows of earlier versions can be read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from indexer.retrain.decision import Decision
from indexer.retrain.gate import GateRule

INTERVAL = {"value": 0.5, "ci": [0.4, 0.6]}
NOTHING = {"value": None, "ci": [None, None]}
FIGURES: dict[str, Any] = {
    "encoder_id": "one",
    "family": "pca",
    "swap": {"map@r": {"clean": INTERVAL, "swapped": INTERVAL, "retention": NOTHING}},
    "displacement": NOTHING,
    "background_share": INTERVAL,
}
OLD_VERDICT: dict[str, Any] = {
    "encoder_id": "one",
    "promoted": False,
    "swapped_difference": 0.1,
    "swapped_bound": None,
    "clean_difference": 0.0,
    "reasons": ["not shown to be better"],
}
VERDICT = {
    **OLD_VERDICT,
    "clean_bound": -0.1,
    "level": 0.025,
    "spread": {"product": 0.2, "background": 0.1, "interaction": 0.3, "clean": 0.1, "clean_size": 1.0},
}
OLD_SET: dict[str, Any] = {
    "items": 24,
    "products": 23,
    "truth": "photos",
    "left_out": {"photo cannot be read": 1},
    "masks": {"column": 48},
    "backgrounds": ["room 1", "texture 2"],
}
OLD: dict[str, Any] = {
    "rule": {"confidence": 0.95, "margin": 0.02},
    "set": OLD_SET,
    "active": FIGURES,
    "candidates": {"pca": {**FIGURES, "verdict": OLD_VERDICT}},
    "winner": None,
    "winner_id": None,
}
NEW: dict[str, Any] = {
    **OLD,
    "budget": {
        "alpha": 0.05, "position": 2, "handed_on": 0.0, "level": 0.025, "spent": 0.025, "earlier": [1], "judgements": 1,
    },
    "held_out_items": ["a", "b"],
    "set": {**OLD_SET, "background_seed": 7, "background_sha256": "0a", "clean_views": 6.0},
    "candidates": {"pca": {**FIGURES, "verdict": VERDICT}, "old": {**FIGURES, "verdict": OLD_VERDICT}},
    "winner": "pca",
    "winner_id": "one",
}  # fmt: skip


@pytest.mark.parametrize("document", [OLD, NEW], ids=["earlier version", "present version"])
def test_a_stored_decision_is_written_as_it_was_read(document: dict[str, Any]) -> None:
    assert Decision.from_json(document).to_json() == document


def test_the_fields_that_an_earlier_version_did_not_store_are_none() -> None:
    old = Decision.from_json({name: value for name, value in OLD.items() if name != "winner_id"})
    assert old.budget is None and old.held_out_items is None and old.winner_id is None
    verdict = old.candidates["pca"].verdict
    assert verdict.clean_bound is None and verdict.level is None and verdict.spread is None
    assert old.set.background_seed is None


def test_a_figure_without_a_value_is_nan_in_memory_and_null_in_json() -> None:
    decision = Decision.from_json(NEW)
    assert np.isnan(decision.active.displacement.value) and np.isnan(decision.candidates["pca"].verdict.swapped_bound)
    assert decision.active.swap["map@r"].clean.value == 0.5 and decision.rule == GateRule(0.95, 0.02)
    json.dumps(decision.to_json(), allow_nan=False)
