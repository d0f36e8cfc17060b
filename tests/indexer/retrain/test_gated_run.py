"""The stored evidence of the gate: backgrounds of the run, error budget, and records of earlier versions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.commands.retrain import _plan_text, text
from indexer.errors import InvalidRequestError
from indexer.retrain import run as retrain
from indexer.retrain.decision import Budget, Decision
from indexer.retrain.gate import GateRule
from indexer.retrain.gate_set import background_seed
from indexer.retrain.job import find_retrain
from indexer.retrain.outlook import outlook
from indexer.retrain.photos import LEAST_HELD_OUT, split
from indexer.retrain.plan import BACKGROUNDS, RetrainPlan
from tests.conftest import draw_photo
from tests.indexer.retrain import shop
from tests.indexer.retrain.shop import HELD_OUT, PCA, PLAN, Killed, SetFigures, decided, say_until, steps_of

# Fixtures of the tests below.
_read_here = shop._read_here
home = shop.home
original = shop.original
set_figures = shop.set_figures

OLD_PLAN = {
    "recipes": ["pca"], "overrides": list(PCA), "gate": {"confidence": 0.95, "margin": 0.02}, "backgrounds": None,
    "held_out": HELD_OUT, "items": 500, "per_item": 5, "minimum_recall": 0.95, "device": "auto", "precision": "32",
    "seed": 0,
}  # fmt: skip


def decision_of(opened: Home, number: int) -> Decision:
    return decided(find_retrain(opened, "default", number))


def budget_of(opened: Home, number: int) -> Budget:
    budget = decision_of(opened, number).budget
    assert budget is not None
    return budget


def old_decision(active: str) -> dict[str, Any]:
    """A decision as the previous version stored it."""
    interval = {"value": 0.5, "ci": [0.4, 0.6]}
    figure = dict.fromkeys(("clean", "swapped", "retention"), interval)
    row = {
        "encoder_id": active, "family": "pca", "swap": {"map@r": figure}, "displacement": interval,
        "background_share": interval,
    }  # fmt: skip
    verdict = {
        "encoder_id": active, "promoted": False, "swapped_difference": 0.0, "swapped_bound": 0.0,
        "clean_difference": 0.0, "reasons": ["swapped MAP@R is +0.000: not shown to be better"],
    }  # fmt: skip
    made = {"items": 24, "products": 24, "truth": "photos", "backgrounds": ["room 1"] * 5, "left_out": {}, "masks": {}}
    return {
        "rule": OLD_PLAN["gate"], "set": made,
        "active": row, "candidates": {"pca": {**row, "verdict": verdict}}, "winner": None, "winner_id": None,
    }  # fmt: skip


@pytest.mark.slow
def test_every_retraining_is_judged_on_backgrounds_of_its_own(home: Home) -> None:
    for _ in range(2):
        assert retrain.retrain(home, "default", PLAN).status == "refused"
    first, second = (decision_of(home, number).set for number in (1, 2))
    assert first.background_seed == background_seed("default", 1, 0) != second.background_seed
    assert len(first.backgrounds) == len(second.backgrounds) == BACKGROUNDS
    assert first.background_sha256 != second.background_sha256
    evidence = [json.loads(p.read_text()) for n in (1, 2)
                for p in (home.retrain_directory("default", n) / "evidence").iterdir()]  # fmt: skip
    assert {len(row) for document in evidence for row in document["swapped"]} == {BACKGROUNDS}


@pytest.mark.slow
def test_a_retraining_that_was_killed_keeps_its_backgrounds(home: Home) -> None:
    """Encoders measured after the kill see the same pictures as those measured before."""
    said: list[str] = []

    def say(step: str, what: str) -> None:
        said.append(step)
        if said.count("evaluate") == 2:
            raise Killed

    with pytest.raises(Killed):
        retrain.retrain(home, "default", PLAN, say=say)
    (path,) = (home.retrain_directory("default", 1) / "evidence").iterdir()
    before = path.read_bytes()
    assert steps_of(home, None).count("evaluate") == 1
    assert path.read_bytes() == before
    assert decision_of(home, 1).set.to_json() == json.loads(before)["set"]


def test_what_an_earlier_version_measured_is_measured_again(home: Home, set_figures: SetFigures) -> None:
    measured = set_figures(pca=0.6)
    with pytest.raises(Killed):
        retrain.retrain(home, "default", PLAN, say=say_until("gate"))
    for path in (home.retrain_directory("default", 1) / "evidence").iterdir():
        document = json.loads(path.read_text())
        del document["version"]
        path.write_text(json.dumps({**document, "swapped": [row[0] for row in document["swapped"]]}))
    assert retrain.retrain(home, "default", None).status == "promoted"
    assert measured == ["pixels", "pca"] * 2


def test_the_budget_is_spent_over_retrainings_and_outlives_the_process(home: Home, set_figures: SetFigures) -> None:
    set_figures(pca=0.3)
    for _ in range(3):
        retrain.retrain(home, "default", PLAN)
    with Home.open(home.path) as again:
        budgets = [budget_of(again, number) for number in (1, 2, 3)]
        found = outlook(again, "default", PLAN)
    assert [b.level for b in budgets] == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert [b.earlier for b in budgets] == [(), (1,), (1, 2)]
    assert found.budget.position == 4 and found.budget.earlier == (1, 2, 3)
    verdicts = [decision_of(home, number).candidates["pca"].verdict for number in (1, 2, 3)]
    assert [verdict.level for verdict in verdicts] == pytest.approx([b.level for b in budgets])
    held_out = {image.item_id for image in split(home, "default", HELD_OUT)[1]}
    assert set(decision_of(home, 1).held_out_items or ()) == held_out
    shown = text(find_retrain(home, "default", 3))
    assert "retrainings 1, 2 were judged on them and spent 0.033; level 0.0042 for this retraining" in shown
    other = RetrainPlan(("pca",), PCA, PLAN.gate, held_out=HELD_OUT, items=LEAST_HELD_OUT, seed=1)
    assert outlook(home, "default", other).budget.position == 4, "most of these items were judged on before"


def test_a_promotion_hands_its_level_to_the_next_retraining(home: Home, set_figures: SetFigures) -> None:
    set_figures(pca=0.6)
    assert retrain.retrain(home, "default", PLAN).status == "promoted"
    assert outlook(home, "default", PLAN).budget.level == pytest.approx(0.05 / 2 + 0.05 / 6)


def test_records_of_the_version_before_are_read_shown_and_count(home: Home, set_figures: SetFigures) -> None:
    set_figures(pca=0.3)
    collection = home.catalogue.collection_id("default")
    number = home.catalogue.retrains.add(collection, OLD_PLAN)
    active = str(home.catalogue.search_state("default").encoder_id)
    home.catalogue.retrains.decide(collection, number, old_decision(active))
    home.catalogue.retrains.end(collection, number, "refused", None)
    shown = text(find_retrain(home, "default", number))
    assert "evaluated on 24 held-out items and 5 backgrounds" in shown and "error budget" not in shown
    assert retrain.retrain(home, "default", PLAN).status == "refused"
    assert budget_of(home, 2).earlier == (1,)


def test_an_unfinished_retraining_of_the_version_before_goes_on(home: Home, set_figures: SetFigures) -> None:
    """It keeps its own rule, except for the number of backgrounds; the same plan resumes it."""
    set_figures(pca=0.3)
    home.catalogue.retrains.add(home.catalogue.collection_id("default"), OLD_PLAN)
    plan = RetrainPlan.from_json(OLD_PLAN)
    assert plan.per_item == BACKGROUNDS and plan.gate == GateRule(0.95, 0.02)
    record = retrain.retrain(home, "default", plan)
    assert (record.number, record.status) == (1, "refused")
    assert asdict(decision_of(home, 1).rule) == OLD_PLAN["gate"]


@pytest.mark.slow
def test_a_dry_run_says_what_can_be_found_and_what_may_be_spent(home: Home, set_figures: SetFigures) -> None:
    plan = RetrainPlan(("pca",), PCA, held_out=HELD_OUT)
    before = outlook(home, "default", plan)
    assert before.detectable.measured_by is None
    shown = _plan_text(before)
    assert f"a gain of {before.detectable.gain:.3f} swapped MAP@R (at 97.5% confidence" in shown
    assert f"the absence of a loss of {before.detectable.loss:.3f} clean" in shown
    assert "level 0.025 for this retraining" in shown
    assert "hold out more items, or accept a larger loss with --margin" in shown, "of so few items too little is found"
    retrain.retrain(home, "default", PLAN)
    after = outlook(home, "default", plan).detectable
    spread = decision_of(home, 1).candidates["pca"].verdict.spread
    assert after.measured_by == 1 and after.spread == pytest.approx(spread)
    assert after.level == pytest.approx(0.05 / 6)


def test_a_folder_with_too_few_photos_is_refused_before_anything_is_stored(
    home: Home,
    tmp_path: Path,
) -> None:
    walls = tmp_path / "walls"
    walls.mkdir()
    for number in range(4):
        draw_photo(number).save(walls / f"{number}.png")
    plan = RetrainPlan(("pca",), PCA, backgrounds=str(walls), held_out=HELD_OUT)
    with pytest.raises(InvalidRequestError, match="walls has 4 readable photos, but the gate needs 5"):
        retrain.retrain(home, "default", plan)
    assert home.catalogue.retrains.all("default") == []
