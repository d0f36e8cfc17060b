"""Retrainings that are killed and resumed, and what is written meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord
from indexer.errors import CorruptError, MismatchError
from indexer.generations import build as generations
from indexer.generations.store import find_generation, list_generations, verify
from indexer.ingest.ingest import embed_missing, index_source
from indexer.ingest.items import delete_item, put_item
from indexer.ingest.promotion import activate, rollback
from indexer.retrain import run as retrain
from indexer.retrain.job import find_retrain
from indexer.retrain.photos import split
from indexer.retrain.plan import STEPS, RetrainPlan
from indexer.retrain.run import abandon
from indexer.search.searcher import Searcher
from indexer.vectors import building
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
    draw_product,
    photo,
    say_until,
    steps_of,
    write_shop,
)
from training.errors import RecipeError
from training.reference import describe_encoder

# Fixtures of the tests below.
_read_here = shop._read_here
home = shop.home
original = shop.original
set_figures = shop.set_figures


def other_generation(home: Home, encoder: Path) -> int:
    """A generation by another encoder, not in service."""
    described = describe_encoder(encoder)
    embed_missing(home, "default", described)
    record = EncoderRecord(
        described.encoder_id, described.family, described.dim, described.metric, described.config, described.card
    )
    return generations.build_generation(home, "default", record, activated=False).number


# Resuming after a kill


@pytest.fixture(scope="module")
def uninterrupted(original: Path) -> dict[str, Any]:
    """Filled by the first test that needs it."""
    return {}


def end_of(home: Home) -> dict[str, Any]:
    (record,) = home.catalogue.retrains.all("default")
    assert not list(home.path.rglob(".building-*"))
    assert [verify(home, "default", g.number) for g in list_generations(home, "default") if g.status != "removed"] == [
        [],
        [],
    ]
    return {
        "decision": record.decision,
        "ended": (record.status, find_generation(home, "default", record.generation or 0).status),
        "served": served(home),
        "encoder": home.catalogue.search_state("default").encoder_id,
    }


@pytest.mark.parametrize("step", STEPS)
def test_ended_at_a_step_and_started_again_it_ends_the_same(
    step: str, home: Home, set_figures: SetFigures, uninterrupted: dict[str, Any], original: Path, tmp_path: Path
) -> None:
    set_figures(pca=0.6)
    if not uninterrupted:
        shutil.copytree(original / "home", tmp_path / "whole")
        with Home.open(tmp_path / "whole") as whole:
            uninterrupted["steps"] = steps_of(whole, PLAN)
            uninterrupted["end"] = end_of(whole)
    with pytest.raises(Killed):
        retrain.retrain(home, "default", PLAN, say=say_until(step))
    assert active_family(home) == "pixels"
    said = steps_of(home, None if step in ("gate", "build") else PLAN)
    assert end_of(home) == uninterrupted["end"]
    done = {"export", "train"} if step in ("evaluate", "gate") else {"export", "train", "evaluate", "gate"}
    if step not in ("export", "train"):
        assert not done & set(said)
    if step in ("verify", "calibrate", "activate"):
        assert "build" not in said
    assert list(dict.fromkeys(uninterrupted["steps"])) == list(STEPS)


def test_ended_between_taking_over_and_saying_so_it_is_promoted(
    home: Home, set_figures: SetFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_figures(pca=0.6)

    def killed(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(home.catalogue.retrains, "end", killed)
        retrain.retrain(home, "default", PLAN)
    assert active_family(home) == "pca"
    assert find_retrain(home, "default", None).status == "running"
    assert steps_of(home, None) == []
    record = find_retrain(home, "default", None)
    assert (record.status, record.generation) == ("promoted", 2)


def test_another_encoder_put_into_service_meanwhile_is_what_the_next_run_compares_with(
    home: Home, set_figures: SetFigures, other_encoder_dir: Path
) -> None:
    measured = set_figures(pca=0.6)
    number = other_generation(home, other_encoder_dir)
    first = str(home.catalogue.search_state("default").encoder_id)

    def say(step: str, what: str) -> None:
        if step == "verify":
            activate(home, "default", number)

    with pytest.raises(MismatchError, match="was activated during the retraining.*run `nitamono retrain` again"):
        retrain.retrain(home, "default", PLAN, say=say)
    second = describe_encoder(other_encoder_dir).encoder_id
    assert home.catalogue.search_state("default").encoder_id == second
    assert decided(find_retrain(home, "default", None)).active.encoder_id == first
    assert measured == ["pixels", "pca"]
    said = steps_of(home, None)
    assert measured == ["pixels", "pca", "pixels"]
    assert said[:2] == ["evaluate", "gate"] and "train" not in said
    record = find_retrain(home, "default", None)
    assert decided(record).active.encoder_id == second
    assert record.status == "promoted" and active_family(home) == "pca"
    assert verify(home, "default", record.generation or 0) == []


def test_an_index_that_finds_too_little_is_not_put_into_service(
    home: Home, set_figures: SetFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_figures(pca=0.6)
    monkeypatch.setattr(building, "recall_against_exact", lambda *args: 0.9)
    for _ in range(2):  # resuming changes nothing
        with pytest.raises(CorruptError, match=r"generation 2 has recall@10 0.900 .* 0.95 is required"):
            retrain.retrain(home, "default", PLAN)
        assert active_family(home) == "pixels"
        assert find_retrain(home, "default", None).status == "running"
    abandon(home, "default")
    plan = RetrainPlan(("pca",), PCA, WIDE, held_out=HELD_OUT, minimum_recall=0.9)
    assert retrain.retrain(home, "default", plan).status == "promoted"


def test_an_index_that_was_damaged_after_it_was_built_is_built_anew(home: Home, set_figures: SetFigures) -> None:
    set_figures(pca=0.6)

    def damage(step: str, what: str) -> None:
        if step == "verify":
            (home.generation_directory("default", 2) / "index.faiss").write_bytes(b"gone")

    with pytest.raises(CorruptError, match="generation 2 fails verification"):
        retrain.retrain(home, "default", PLAN, say=damage)
    assert active_family(home) == "pixels"
    record = retrain.retrain(home, "default", PLAN)
    assert (record.status, record.generation) == ("promoted", 3)
    assert [g.status for g in list_generations(home, "default")] == ["retired", "removed", "active"]
    assert verify(home, "default", 3) == []


@pytest.mark.parametrize("step", ["export", "embed", "build", "verify", "calibrate", "activate"])
def test_what_is_uploaded_and_deleted_at_a_step_is_so_afterwards(
    step: str, home: Home, set_figures: SetFigures
) -> None:
    set_figures(pca=0.6)
    said: list[str] = []

    def say(now: str, what: str) -> None:
        said.append(now)
        if now == step and said.count(step) == 1:
            put_item(home, Searcher(home), "default", "new", title=None, attributes={}, images=[photo(900)])
            delete_item(home, "default", "item-000")

    assert retrain.retrain(home, "default", PLAN, say=say).status == "promoted"
    page = Searcher(home).search_image("default", photo(900), k=ITEMS + 5)
    assert page.encoder_id == home.catalogue.search_state("default").encoder_id
    assert page.results[0].item_id == "new"
    expected = {f"item-{number:03d}" for number in range(1, ITEMS)} | {"new"}
    assert {hit.item_id for hit in page.results} == expected
    assert active_family(home) == "pca"


def test_what_is_indexed_between_a_kill_and_going_on_is_served(
    home: Home, set_figures: SetFigures, tmp_path: Path
) -> None:
    """The index that was built before does not hold it."""
    set_figures(pca=0.6)
    with pytest.raises(Killed):
        retrain.retrain(home, "default", PLAN, say=say_until("activate"))
    larger = write_shop(tmp_path / "shop", ITEMS + 5)
    report = index_source(home, "default", larger, processes=0)
    assert report.added == PHOTOS * (ITEMS + 5)  # the same products from another folder, and five more
    assert retrain.retrain(home, "default", None).status == "promoted"
    assert len(served(home)) == ITEMS + 5
    page = Searcher(home).search_image("default", (tmp_path / "shop" / "042-0.png").read_bytes(), k=1)
    assert page.results[0].item_id == "item-042" and active_family(home) == "pca"
    assert rollback(home, "default").encoder_id != page.encoder_id


@pytest.mark.slow
def test_a_held_out_photo_that_goes_between_two_measurements_has_all_measured_again(
    home: Home, original: Path, tmp_path: Path
) -> None:
    shutil.copytree(original / "shop", tmp_path / "shop")
    index_source(home, "own", tmp_path / "shop" / "shop.csv", encoder_ref="hog", processes=0)
    said: list[str] = []

    def say(step: str, what: str) -> None:
        said.append(step)
        if said.count("evaluate") == 2:
            raise Killed

    with pytest.raises(Killed):
        retrain.retrain(home, "own", PLAN, say=say)
    gone = split(home, "own", HELD_OUT)[1][0].item_id
    for path in (tmp_path / "shop").glob(f"{gone.removeprefix('item-')}-?.png"):
        path.unlink()
    record = retrain.retrain(home, "own", None)
    assert record.status in ("refused", "promoted")
    assert decided(record).set.items == len({i.item_id for i in split(home, "own", HELD_OUT)[1]} - {gone})


def test_a_training_photo_that_changed_meanwhile_is_said_with_the_remedy(
    home: Home, set_figures: SetFigures, original: Path, tmp_path: Path
) -> None:
    set_figures(pca=0.6)
    shutil.copytree(original / "shop", tmp_path / "shop")
    index_source(home, "own", tmp_path / "shop" / "shop.csv", encoder_ref="pixels", processes=0)
    with pytest.raises(Killed):
        retrain.retrain(home, "own", PLAN, say=say_until("evaluate"))
    changed = split(home, "own", HELD_OUT)[0][0].path
    draw_product(77, 0)[0].save(changed)
    with pytest.raises(RecipeError, match="another data.*nitamono retrain abandon"):
        retrain.retrain(home, "own", None)
