"""`nitamono retrain` step by step: plan, split, stored results, refusals, resuming and activation.

Most tests set the figures, so that the better encoder is known; the slow ones train and measure.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord, ImageWrite, RetrainRecord
from indexer.commands.retrain import text
from indexer.errors import BusyError, CorruptError, InvalidRequestError, MismatchError, NotFoundError
from indexer.generations import build as generations
from indexer.generations.store import find_generation, list_generations, verify
from indexer.ingest.ingest import embed_missing, index_source
from indexer.ingest.items import delete_item, put_item
from indexer.ingest.promotion import activate, rollback
from indexer.measures.metrics import NO_INTERVAL, Interval
from indexer.measures.robustness import SwapFigure
from indexer.retrain import evidence
from indexer.retrain import run as retrain
from indexer.retrain.decision import Decision, EncoderFigures, GateSetSummary
from indexer.retrain.evidence import EncoderEvidence
from indexer.retrain.gate import GateRule
from indexer.retrain.job import find_retrain, unfinished
from indexer.retrain.outlook import outlook
from indexer.retrain.photos import LEAST_HELD_OUT, split
from indexer.retrain.plan import BACKGROUNDS, STEPS, RetrainPlan
from indexer.retrain.run import abandon
from indexer.search.searcher import Searcher
from service.cli import main
from tests.conftest import COLOURS
from tests.indexer.conftest import served
from training.data import reader
from training.errors import EncoderError, NitamonoError, RecipeError, SourceError
from training.onnx import export
from training.reference import describe_encoder

ITEMS, PHOTOS, SIDE = 40, 2, 48
HELD_OUT = 0.6
PCA = ("preprocessing.size=8", "model.components=4")
NAN = float("nan")
WIDE = GateRule(margin=0.4)  # of twenty items: a narrower margin cannot be held with so few
PLAN = RetrainPlan(("pca",), PCA, WIDE, held_out=HELD_OUT)


def draw_product(number: int, photo: int) -> tuple[Image.Image, Image.Image]:
    """A photo of a product on noise, and the mask of it."""
    rng = np.random.default_rng([number, photo])
    noise = rng.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    mask = Image.new("L", (SIDE, SIDE))
    left, top = (int(v) for v in rng.integers(4, 10, 2))
    box = (left, top, left + 22 + number % 3 * 6, top + 22 + number % 5 * 3)
    for canvas, fill in ((image, COLOURS[number % len(COLOURS)]), (mask, 255)):
        draw = ImageDraw.Draw(canvas)
        (draw.ellipse if number % 2 else draw.rectangle)(box, fill=fill)
    return image, mask


def write_shop(folder: Path, items: int = ITEMS) -> Path:
    """A manifest of products with masks."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "shop.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "image", "mask"])
        for number in range(items):
            for photo in range(PHOTOS):
                name = f"{number:03d}-{photo}"
                image, mask = draw_product(number, photo)
                image.save(folder / f"{name}.png")
                mask.save(folder / f"{name}-mask.png")
                rows.writerow([f"item-{number:03d}", f"{name}.png", f"{name}-mask.png"])
    return folder / "shop.csv"


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read photos in this process, because starting others would take most of the time."""
    monkeypatch.setattr(reader, "INLINE", 1000)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> Path:
    """A folder with a shop and its home; read only."""
    folder = tmp_path_factory.mktemp("retrain")
    with Home.open(folder / "home", create=True) as home:
        index_source(home, "default", write_shop(folder / "shop"), encoder_ref=str(encoder_dir), processes=0)
    return folder


@pytest.fixture
def home(original: Path, tmp_path: Path) -> Iterator[Home]:
    """A copy of the shop and of the home that serves it, by the encoder `pixels`."""
    shutil.copytree(original / "home", tmp_path / "home")
    with Home.open(tmp_path / "home") as opened:
        yield opened


SetFigures = Callable[..., list[str]]


@pytest.fixture
def set_figures(monkeypatch: pytest.MonkeyPatch) -> SetFigures:
    """Replaces the measuring: `set_figures(pca=0.6)` gives recipe `pca` 0.6 swapped MAP@R, others 0.4, and 0.7 clean.

    Returns a list to which each measured family is appended. Candidates get no ONNX file, because that is slow.
    """

    def begin(clean: float = 0.7, **swapped: float) -> list[str]:
        measured: list[str] = []

        def measure(directory: Path, made: Any, seed: int) -> EncoderEvidence:
            described = describe_encoder(directory)
            measured.append(described.family)
            value = swapped.get(directory.name.partition("-")[0], 0.4)
            noise = np.random.default_rng(3).normal(0, 0.05, (LEAST_HELD_OUT, BACKGROUNDS))
            figure = SwapFigure(NO_INTERVAL, Interval(value, 0, 1), NO_INTERVAL)
            backgrounds = [f"room {number}" for number in range(BACKGROUNDS)]
            return EncoderEvidence(
                EncoderFigures(described.encoder_id, described.family, {"map@r": figure}, NO_INTERVAL, NO_INTERVAL),
                GateSetSummary(LEAST_HELD_OUT, LEAST_HELD_OUT, "photos", {}, {}, backgrounds),
                [f"item-{number}" for number in range(LEAST_HELD_OUT)],
                backgrounds,
                np.full(LEAST_HELD_OUT, 0.7 if described.family == "pixels" else clean),
                value + noise,
            )

        monkeypatch.setattr(export, "add_onnx", lambda directory: None)
        monkeypatch.setattr(evidence, "measure", measure)
        monkeypatch.setattr(evidence, "make_gate_set", lambda job, held_out: "a set")
        return measured

    return begin


def decided(record: RetrainRecord) -> Decision:
    decision = Decision.of(record)
    assert decision is not None
    return decision


class Killed(Exception):
    """Simulates a kill: no code catches it."""


def say_until(step: str) -> Callable[[str, str], None]:
    def say(now: str, what: str) -> None:
        if now == step:
            raise Killed(step)

    return say


def steps_of(home: Home, plan: RetrainPlan | None) -> list[str]:
    """Run to the end; returns the reported steps."""
    said: list[str] = []
    retrain.retrain(home, "default", plan, say=lambda step, what: said.append(step))
    return said


def active_family(home: Home) -> str:
    return home.encoder(str(home.catalogue.search_state("default").encoder_id)).family


def other_generation(home: Home, encoder: Path) -> int:
    """A generation by another encoder, not in service."""
    described = describe_encoder(encoder)
    embed_missing(home, "default", described)
    record = EncoderRecord(
        described.encoder_id, described.family, described.dim, described.metric, described.config, described.card
    )
    return generations.build_generation(home, "default", record, activated=False).number


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
        (RetrainPlan(("pca",), PCA, backgrounds="{empty}", held_out=HELD_OUT), SourceError, "no image there"),
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
    with home.lock("retrain-default"), pytest.raises(BusyError, match="retrain-default is being written"):
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
    assert "refused: the encoder in service stays" in text(record)
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
    monkeypatch.setattr(generations, "recall_against_exact", lambda *args: 0.9)
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


# Writes during a retraining


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    draw_product(number, 7)[0].save(buffer, "PNG")
    return buffer.getvalue()


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


# The command


@pytest.fixture
def call(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["nitamono", "retrain", *arguments, "--home", str(home.path), "--json"])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert stop.value.code == 0, printed.err
        return json.loads(printed.out), printed.err

    return run


OPTIONS = (
    "--recipes", "pca", "--set", PCA[0], "--set", PCA[1], "--held-out", str(HELD_OUT), "--margin", "0.4", "--nice", "0",
)  # fmt: skip


def test_a_dry_run_prints_the_plan_and_writes_nothing(call: Callable[..., Any], home: Home) -> None:
    document, _ = call(*OPTIONS, "--margin", "0.05", "--dry-run")
    assert set(document) == {
        "collection", "active_encoder", "training_images", "training_items", "held_out_items", "recipes", "encoders",
        "steps", "plan", "budget", "detectable",
    }  # fmt: skip
    assert document["steps"] == list(STEPS)
    assert document["plan"]["gate"] == {"confidence": 0.95, "margin": 0.05}
    assert home.catalogue.retrains.all("default") == []
    assert not (home.path / "retrains").exists()


def test_the_command_prints_what_is_stored_and_show_prints_it_again(
    call: Callable[..., Any], home: Home, set_figures: SetFigures
) -> None:
    set_figures(pca=0.6)
    document, errors = call(*OPTIONS)
    assert set(document) == {
        "collection", "number", "status", "plan", "decision", "generation", "created_at", "ended_at",
    }  # fmt: skip
    assert (document["number"], document["status"], document["generation"]) == (1, "promoted", 2)
    assert RetrainPlan.from_json(document["plan"]) == PLAN
    assert document["decision"] == find_retrain(home, "default", 1).decision
    said = [line.partition(":")[0] for line in errors.splitlines() if line.partition(":")[0] in STEPS]
    assert list(dict.fromkeys(said)) == list(STEPS)
    assert call("show")[0] == call("show", "1")[0] == document


def test_the_command_goes_on_without_options_and_abandons(
    call: Callable[..., Any], home: Home, set_figures: SetFigures
) -> None:
    set_figures(pca=0.3)
    with pytest.raises(Killed):
        retrain.retrain(home, "default", PLAN, say=say_until("gate"))
    assert call("show")[0]["status"] == "running"
    document, errors = call("--nice", "0")
    assert (document["number"], document["status"]) == (1, "refused")
    assert "train:" not in errors and "gate:" in errors
    with pytest.raises(Killed):
        retrain.retrain(home, "default", PLAN, say=say_until("gate"))
    assert call("abandon")[0]["status"] == "abandoned"


def test_an_encoder_that_is_trained_already_is_judged_as_it_is(home: Home, tmp_path: Path) -> None:
    """Its copy is measured under the same id, and nothing is trained."""
    from training.baselines import write_baselines

    write_baselines(tmp_path / "others")
    ref = str(tmp_path / "others" / "hog")
    said: list[tuple[str, str]] = []
    plan = RetrainPlan((), (), WIDE, held_out=HELD_OUT, encoders=(ref,))
    found = outlook(home, "default", plan)
    assert list(found.encoders) == [ref] and not found.recipes
    record = retrain.retrain(home, "default", plan, say=lambda step, text: said.append((step, text)))
    assert decided(record).candidates[ref].figures.encoder_id == describe_encoder(ref).encoder_id
    assert ("train", f"{ref} is used as it is") in said
    assert record.status in ("promoted", "refused")
    assert RetrainPlan.from_json(record.plan) == plan
