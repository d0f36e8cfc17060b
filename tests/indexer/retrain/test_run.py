"""`nitamono retrain` step by step: plan, split, stored results, refusals, resuming and activation.

Most tests set the figures, so that the better encoder is known; the slow ones train and measure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.catalogue.records import ImageWrite
from indexer.commands.retrain import text
from indexer.errors import BusyError, InvalidRequestError, NotFoundError
from indexer.generations.store import list_generations
from indexer.ingest.ingest import index_source
from indexer.ingest.promotion import rollback
from indexer.retrain import run as retrain
from indexer.retrain.gate import GateRule
from indexer.retrain.job import find_retrain, unfinished
from indexer.retrain.outlook import outlook
from indexer.retrain.photos import split
from indexer.retrain.plan import STEPS, RetrainPlan
from indexer.retrain.run import abandon
from tests.indexer.conftest import served
from tests.indexer.retrain import shop
from tests.indexer.retrain.shop import (
    HELD_OUT,
    ITEMS,
    PCA,
    PHOTOS,
    PLAN,
    WIDE,
    Killed,
    SetFigures,
    active_family,
    decided,
    say_until,
)
from training.errors import EncoderError, NitamonoError, RecipeError, SourceError
from training.reference import describe_encoder

# Fixtures of the tests below.
_read_here = shop._read_here
home = shop.home
original = shop.original
set_figures = shop.set_figures

NAN = float("nan")


# The plan


def test_a_plan_is_the_same_after_json() -> None:
    plan = RetrainPlan(
        ("pca", "my/own.yaml"), ("epochs=3",), GateRule(0.9, 0.05), "/rooms", 0.3, 50, 24, 0.9, "cpu", "bf16-mixed", 7
    )
    assert RetrainPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert RetrainPlan.from_json(RetrainPlan(("pca",)).to_json()) == RetrainPlan(("pca",))
    assert plan.to_json() != RetrainPlan(("pca",)).to_json()


@pytest.mark.parametrize(
    "values",
    [
        {"recipes": ()},
        {"recipes": ("pca", "pca")},
        {"encoders": ("pca",)},
        {"held_out": 0.0},
        {"held_out": 1.0},
        {"held_out": NAN},
        {"minimum_recall": 1.1},
        {"minimum_recall": NAN},
        {"per_item": 19},
    ],
)
def test_a_plan_that_cannot_be_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RetrainPlan(**{"recipes": ("pca",), **values})


def write_items(home: Home, contents: dict[str, list[str]]) -> None:
    """Items with photos of these contents, in the catalogue alone."""
    writes = [
        ImageWrite(item_id, f"/shop/{item_id}-{place}.jpg", "added", "ok", sha256=content)
        for item_id, found in contents.items()
        for place, content in enumerate(found)
    ]
    collection_id = home.catalogue.ensure_collection("other")
    home.catalogue.images.write(collection_id, "", writes, live=False)


def sides(home: Home, share: float) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """URIs of the photos by item, to train on and held out."""
    found: list[dict[str, set[str]]] = []
    for images in split(home, "other", share):
        by_item: dict[str, set[str]] = {}
        for image in images:
            by_item.setdefault(image.item_id, set()).add(str(image.path))
        found.append(by_item)
    return found[0], found[1]


def test_no_item_and_no_content_is_both_trained_on_and_held_out(home: Home) -> None:
    """Every photo is in three items: many are on both sides, and are only used for training."""
    contents = {f"item-{n}": [f"a{n % 67:063d}", f"b{n:063d}"] for n in range(200)}
    write_items(home, contents)
    learnt, held_out = sides(home, 0.3)
    assert not learnt.keys() & held_out.keys()
    assert learnt.keys() | held_out.keys() == contents.keys()
    assert 30 < len(held_out) < 90

    def hashes(side: dict[str, set[str]]) -> set[str]:
        place = {f"/shop/{i}-{n}.jpg": sha for i, found in contents.items() for n, sha in enumerate(found)}
        return {place[path] for paths in side.values() for path in paths}

    assert not hashes(learnt) & hashes(held_out)
    assert hashes(learnt) | hashes(held_out) == {sha for found in contents.values() for sha in found}
    assert any(len(paths) == 1 for paths in held_out.values()), "no photo stood on both sides"
    assert all(len(paths) == 2 for paths in learnt.values())


def test_what_is_held_out_stays_so_as_the_catalogue_grows(home: Home) -> None:
    write_items(home, {f"item-{n}": [f"{n:064d}"] for n in range(100)})
    learnt, held_out = sides(home, 0.4)
    write_items(home, {f"item-{n}": [f"{n:064d}"] for n in range(100, 300)})
    learnt_later, held_out_later = sides(home, 0.4)
    assert learnt.keys() < learnt_later.keys()
    assert held_out.keys() < held_out_later.keys()
    assert 0.3 < len(held_out_later) / 300 < 0.5


def test_too_few_items_are_said_in_one_line(home: Home) -> None:
    with pytest.raises(InvalidRequestError, match="items of 'default' would be held out, but 20 are needed") as error:
        retrain.retrain(home, "default", RetrainPlan(("pca",), PCA, held_out=0.1))
    assert error.value.field == "held_out" and "\n" not in str(error.value)
    assert home.catalogue.retrains.all("default") == []


def test_the_outlook_counts_what_the_split_gives_and_writes_nothing(home: Home) -> None:
    before = sorted(path.relative_to(home.path) for path in home.path.rglob("*"))
    found = outlook(home, "default", PLAN)
    learnt, held_out = split(home, "default", HELD_OUT)
    assert (found.training_images, found.held_out_items) == (len(learnt), len(held_out) / PHOTOS)
    assert found.training_items + found.held_out_items == ITEMS
    assert found.active_encoder == home.catalogue.search_state("default").encoder_id
    assert list(found.recipes) == ["pca"] and found.steps == STEPS
    assert sorted(path.relative_to(home.path) for path in home.path.rglob("*")) == before
    assert home.catalogue.retrains.all("default") == []


# Requests refused before anything is stored


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        (RetrainPlan(("gan",), held_out=HELD_OUT), RecipeError, "recipe 'gan': no such recipe"),
        (RetrainPlan(("pca", "vea"), held_out=HELD_OUT), RecipeError, "recipe 'vea': no such recipe"),
        (RetrainPlan(("pca",), ("nonsense=1",), held_out=HELD_OUT), RecipeError, "nonsense"),
        (RetrainPlan(("pca",), PCA, device="tpu", held_out=HELD_OUT), EncoderError, "device must be one of"),
        (RetrainPlan(("pca",), PCA, precision="8", held_out=HELD_OUT), EncoderError, "precision must be one of"),
        (RetrainPlan(("pca",), PCA, backgrounds="/nowhere", held_out=HELD_OUT), SourceError, "no such folder"),
        (RetrainPlan(("pca",), PCA, backgrounds="{empty}", held_out=HELD_OUT), SourceError, "no readable image"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_stored(
    plan: RetrainPlan, error: type[NitamonoError], message: str, home: Home, tmp_path: Path
) -> None:
    if plan.backgrounds == "{empty}":
        (tmp_path / "empty").mkdir()
        plan = RetrainPlan(plan.recipes, plan.overrides, backgrounds=str(tmp_path / "empty"), held_out=HELD_OUT)
    with pytest.raises(error, match=message):
        retrain.retrain(home, "default", plan)
    assert home.catalogue.retrains.all("default") == []
    assert not (home.path / "retrains").exists()


def test_a_collection_without_an_index_is_refused(home: Home) -> None:
    write_items(home, {f"item-{n}": [f"{n:064d}"] for n in range(100)})
    for plan in (PLAN, None):
        with pytest.raises((NotFoundError, InvalidRequestError), match="has no index yet|no retraining of 'other' is"):
            retrain.retrain(home, "other", plan)
    with pytest.raises(NotFoundError, match="no collection 'nope'; existing ones: default, other"):
        retrain.retrain(home, "nope", PLAN)
    assert home.catalogue.retrains.all("other") == []


def test_going_on_with_nothing_is_refused(home: Home) -> None:
    with pytest.raises(InvalidRequestError, match="no retraining of 'default' is unfinished; give --recipes"):
        retrain.retrain(home, "default", None)
    with pytest.raises(NotFoundError, match="no retraining of 'default' is unfinished"):
        abandon(home, "default")
    with pytest.raises(NotFoundError, match="'default' has no retraining; known retrainings: none"):
        find_retrain(home, "default", None)


def test_an_unfinished_plan_is_gone_on_with_and_another_one_refused(home: Home, set_figures: SetFigures) -> None:
    set_figures(pca=0.6)
    with pytest.raises(Killed):
        retrain.retrain(home, "default", PLAN, say=say_until("evaluate"))
    assert unfinished(home, "default") == find_retrain(home, "default", 1)
    with pytest.raises(InvalidRequestError, match="retraining 1 of 'default' is unfinished and has another plan"):
        retrain.retrain(home, "default", RetrainPlan(("pca",), PCA, held_out=0.7))
    assert find_retrain(home, "default", None).status == "running"
    assert retrain.retrain(home, "default", PLAN).status == "promoted"
    assert [record.number for record in home.catalogue.retrains.all("default")] == [1]


def test_an_abandoned_retraining_leaves_its_record_alone(home: Home, set_figures: SetFigures) -> None:
    """Its trained encoders and generations are removed, and it cannot be resumed."""
    set_figures(pca=0.6)
    with pytest.raises(Killed):
        retrain.retrain(home, "default", PLAN, say=say_until("activate"))
    assert home.retrain_directory("default", 1).is_dir()
    with (
        home.lock("retrain-default"),
        pytest.raises(BusyError, match="'default' is being retrained by process"),
    ):
        abandon(home, "default")
    record = abandon(home, "default")
    assert (record.status, record.generation, unfinished(home, "default")) == ("abandoned", None, None)
    assert not home.retrain_directory("default", 1).exists()
    assert [entry.name for entry in home.generations_directory("default").iterdir()] == ["000001"]
    assert [g.status for g in list_generations(home, "default")] == ["active", "removed"]
    assert "retraining 1 of 'default': abandoned" in text(record)
    again = retrain.retrain(home, "default", PLAN)
    assert (again.number, again.status, again.generation) == (2, "promoted", 3)
    with pytest.raises(NotFoundError, match="has no retraining 7; known retrainings: 1, 2"):
        find_retrain(home, "default", 7)


# The decision


def test_a_better_candidate_is_put_into_service_and_the_old_one_is_kept(home: Home, set_figures: SetFigures) -> None:
    set_figures(pca=0.6)
    record = retrain.retrain(home, "default", PLAN)
    assert (record.status, record.generation) == ("promoted", 2)
    decision = decided(record)
    assert decision.winner == "pca"
    verdict = decision.candidates["pca"].verdict
    assert verdict.promoted and verdict.swapped_difference == pytest.approx(0.2)
    assert verdict.swapped_bound > 0 and verdict.clean_difference == pytest.approx(0)
    assert [g.status for g in list_generations(home, "default")] == ["retired", "active"]
    assert active_family(home) == "pca"
    assert len(served(home)) == ITEMS
    card = describe_encoder(home.retrain_directory("default", 1) / "models" / "pca").card
    assert card["evaluation"]["encoder_id"] == decision.winner_id
    stored = home.encoder(str(decision.winner_id)).card["evaluation"]
    assert stored["verdict"] == verdict.to_json() and stored["set"] == decision.set.to_json()
    assert "promoted, generation 2" in text(record) and "<- promoted" in text(record)
    rollback(home, "default")
    assert active_family(home) == "pixels"


@pytest.mark.parametrize(
    ("swapped", "clean", "reason"),
    [(0.3, 0.7, "not shown to be better"), (0.4, 0.7, "not shown to be better"), (0.9, 0.2, "or more is likely")],
    ids=["worse", "tie", "better-but-loses-clean"],
)
def test_a_candidate_that_is_not_better_leaves_everything_as_it_is(
    swapped: float, clean: float, reason: str, home: Home, set_figures: SetFigures
) -> None:
    set_figures(clean, pca=swapped)
    before = home.catalogue.search_state("default"), served(home)
    record = retrain.retrain(home, "default", PLAN)
    assert (record.status, record.generation) == ("refused", None)
    assert decided(record).winner is None
    assert any(reason in line for line in decided(record).candidates["pca"].verdict.reasons)
    assert (home.catalogue.search_state("default"), served(home)) == before
    assert len(list_generations(home, "default")) == len(home.catalogue.encoders.all()) == 1
    assert "refused; the active encoder stays" in text(record)
    assert retrain.retrain(home, "default", PLAN).number == 2


def test_of_several_candidates_the_best_is_put_into_service(
    home: Home, set_figures: SetFigures, tmp_path: Path
) -> None:
    set_figures(one=0.6, two=0.8, three=0.7)
    recipes = []
    for components, name in enumerate(("one", "two", "three"), start=2):
        settings = f"preprocessing: {{size: 8}}\nmodel: {{components: {components}}}\n"
        (tmp_path / f"{name}.yaml").write_text(f"description: {name}\nfamily: pca\n{settings}")
        recipes.append(str(tmp_path / f"{name}.yaml"))
    record = retrain.retrain(home, "default", RetrainPlan(tuple(recipes), (), WIDE, held_out=HELD_OUT))
    decision = decided(record)
    assert decision.winner == recipes[1]
    assert [found.verdict.promoted for found in decision.candidates.values()] == [True] * 3
    state = home.catalogue.search_state("default")
    assert state.encoder_id == decision.candidates[recipes[1]].figures.encoder_id
    assert home.encoder(state.encoder_id).dim == 3
    assert len(home.catalogue.encoders.all()) == 2, "the others were stored as well"


def test_a_recipe_that_does_not_fit_the_catalogue_is_said_with_the_remedy(home: Home) -> None:
    plan = RetrainPlan(("pca",), ("preprocessing.size=8",), held_out=HELD_OUT)  # 64 components of fewer photos
    with pytest.raises(RecipeError, match="recipe pca: model.components.*nitamono retrain abandon") as error:
        retrain.retrain(home, "default", plan)
    assert "\n" not in str(error.value)
    assert abandon(home, "default").status == "abandoned"


def test_figures_without_a_value_are_stored_as_null_by_both_databases(
    set_figures: SetFigures, original: Path, encoder_dir: Path, tmp_path: Path, database_url: str
) -> None:
    set_figures(pca=0.6)
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as home:
        index_source(home, "default", original / "shop" / "shop.csv", encoder_ref=str(encoder_dir), processes=0)
        with pytest.raises(Killed):
            retrain.retrain(home, "default", PLAN, say=say_until("embed"))
        decision = find_retrain(home, "default", 1).decision
        assert decision is not None
        assert decision["active"]["displacement"] == {"value": None, "ci": [None, None]}
        json.dumps(decision, allow_nan=False)
        record = retrain.retrain(home, "default", PLAN)
        assert (record.status, record.generation, record.decision) == ("promoted", 2, decision)
        assert "clean -" in text(record)


def test_a_retraining_that_measures_for_real_stores_its_figures(home: Home) -> None:
    record = retrain.retrain(home, "default", PLAN)
    decision = decided(record)
    assert record.status == "refused"
    json.dumps(record.decision, allow_nan=False)
    assert decision.to_json() == record.decision
    held_out = len({image.item_id for image in split(home, "default", HELD_OUT)[1]})
    assert decision.set.items == held_out and decision.set.truth == "photos"
    assert decision.set.masks == {"column": PHOTOS * held_out}
    verdict = decision.candidates["pca"].verdict
    active, candidate = (figures.swap["map@r"] for figures in (decision.active, decision.candidates["pca"].figures))
    assert verdict.swapped_difference == pytest.approx(candidate.swapped.value - active.swapped.value, abs=1e-9)
    assert verdict.clean_difference == pytest.approx(candidate.clean.value - active.clean.value, abs=1e-9)
    assert verdict.swapped_bound <= verdict.swapped_difference
