"""Retraining on drawn items with real training: promotion, refusal, and SIGKILL at every step."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.records import RetrainRecord
from indexer.catalogue.schema import vectors
from indexer.generations.manifest import load_ids
from indexer.generations.store import list_generations, verify
from indexer.ingest.ingest import index_source
from indexer.ingest.promotion import rollback
from indexer.retrain.decision import CandidateEvidence, Decision, EncoderFigures
from indexer.retrain.plan import STEPS, RetrainPlan
from indexer.retrain.run import retrain
from indexer.search.searcher import Searcher
from tests.indexer.retrain.shop import decided
from training.data.sources import read_images
from training.data.studio.catalogue import write_catalogue
from training.loop import train
from training.recipes import load_recipe

pytestmark = pytest.mark.slow

ITEMS = 160
ROBUST = RetrainPlan(
    ("robust-vae-small",),
    (
        "preprocessing.size=32", "model.widths=[8, 16, 32]", "model.decoder_widths=[16, 16, 8]", "model.latent_dim=32",
        "epochs=16", "batch_size=64", "optimiser.warmup_steps=10", "backgrounds.count=32", "deterministic=true",
    ),
    held_out=0.4,
)  # fmt: skip
WORSE = RetrainPlan(("pca",), ("preprocessing.size=16", "model.components=4"), held_out=0.4)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio") / "shop"
    return write_catalogue(folder, items=ITEMS, photos_per_item=2, seed=5, size=64)


class Promoted(NamedTuple):
    home: Path
    record: RetrainRecord
    first: str  # encoder_id of the previously active encoder


@pytest.fixture(scope="module")
def promoted(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Promoted:
    """A home that served raw pixels, after it was retrained; read only."""
    path = tmp_path_factory.mktemp("promoted") / "home"
    with Home.open(path, create=True) as home:
        index_source(home, "default", shop, encoder_ref="pixels", processes=0)
        first = str(home.catalogue.search_state("default").encoder_id)
        return Promoted(path, retrain(home, "default", ROBUST), first)


@pytest.fixture
def home(promoted: Promoted, tmp_path: Path) -> Iterator[Home]:
    """A copy of it."""
    shutil.copytree(promoted.home, tmp_path / "home")
    with Home.open(tmp_path / "home") as opened:
        yield opened


def swapped(figures: EncoderFigures) -> float:
    return figures.swap["map@r"].swapped.value


def the_only(decision: Decision) -> CandidateEvidence:
    (candidate,) = decision.candidates.values()
    return candidate


def test_a_better_candidate_is_promoted_and_the_old_one_can_be_gone_back_to(
    promoted: Promoted, home: Home, shop: Path
) -> None:
    record, decision = promoted.record, decided(promoted.record)
    assert (record.status, record.generation) == ("promoted", 2)
    assert decision.winner == "robust-vae-small"
    assert decision.set.truth == "photos" and decision.set.items >= 50
    candidate = the_only(decision)
    verdict = candidate.verdict
    assert decision.active.encoder_id == promoted.first
    assert swapped(candidate.figures) > swapped(decision.active)
    assert 0 < verdict.swapped_bound < verdict.swapped_difference
    assert verdict.clean_difference >= -decision.rule.margin
    assert verdict.promoted
    assert [g.status for g in list_generations(home, "default")] == ["retired", "active"]
    assert verify(home, "default", 1) == verify(home, "default", 2) == []
    data = next((shop.parent / "images").glob("*-0.jpg")).read_bytes()
    after = Searcher(home).search_image("default", data, k=ITEMS)
    assert (after.encoder_id, after.total) == (decision.winner_id, ITEMS)
    rollback(home, "default")
    before = Searcher(home).search_image("default", data, k=ITEMS)
    assert (before.encoder_id, before.generation, before.total) == (promoted.first, 1, ITEMS)
    assert [page.results[0].score for page in (before, after)] == pytest.approx([1, 1], abs=1e-3)


def assert_refused(home: Home, record: RetrainRecord, promoted: Promoted) -> CandidateEvidence:
    """Nothing has changed except for the record; returns the evidence of the candidate."""
    decision = decided(record)
    assert (record.number, record.status, record.generation, decision.winner) == (2, "refused", None, None)
    assert decision.active.encoder_id == home.catalogue.search_state("default").encoder_id
    assert decision.active.encoder_id == decided(promoted.record).winner_id
    assert [g.status for g in list_generations(home, "default")] == ["retired", "active"]
    candidate = the_only(decision)
    assert not candidate.verdict.promoted
    return candidate


@pytest.mark.soak
def test_a_tie_is_refused(promoted: Promoted, home: Home) -> None:
    """The same recipe on the same photos gives the same weights, which are no improvement on themselves."""
    candidate = assert_refused(home, retrain(home, "default", ROBUST), promoted)
    assert candidate.figures.encoder_id == decided(promoted.record).winner_id
    verdict = candidate.verdict
    assert verdict.swapped_difference == verdict.clean_difference == 0
    assert verdict.swapped_bound <= 0


def test_a_worse_candidate_is_refused(promoted: Promoted, home: Home) -> None:
    record = retrain(home, "default", WORSE)
    candidate = assert_refused(home, record, promoted)
    assert swapped(candidate.figures) < swapped(decided(record).active)
    verdict = candidate.verdict
    assert verdict.swapped_bound < verdict.swapped_difference < 0


# SIGKILL

AE = """description: an autoencoder, trained by gradient in a few epochs
family: ae
preprocessing: {size: 16}
model: {widths: [8, 16], decoder_widths: [8, 8], latent_dim: 8}
epochs: 4
batch_size: 32
deterministic: true
"""
PIXELS = """description: raw pixels
family: pixels
preprocessing: {size: 24}
"""
OF_KILLS = 64  # items: enough to calibrate


class Kills(NamedTuple):
    """The common start of all kill tests, and the end of a run without a kill."""

    home: Path
    arguments: list[str]
    lines: list[str]
    end: dict[str, Any]


def start(home: Path, arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "service.cli", "retrain", *arguments, "--home", str(home), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def steps_in(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines that announce a step, as they arrive; progress bars are skipped."""
    assert process.stderr is not None
    for line in process.stderr:
        text = line.rpartition("\r")[2].strip()
        if text.partition(":")[0] in STEPS:
            yield text


def end_of(path: Path) -> dict[str, Any]:
    """The state that must be equal at the end; also checks that no temporary files remain."""
    import faiss

    with Home.open(path) as home:
        (record,) = home.catalogue.retrains.all("default")
        assert record.status == "promoted"
        state = home.catalogue.search_state("default")
        assert state.generation == record.generation
        records = list_generations(home, "default")
        assert [g.status for g in records if g.status != "removed"] == ["retired", "active"]
        kept = sorted(f"{g.number:06d}" for g in records if g.status != "removed")
        assert sorted(entry.name for entry in home.generations_directory("default").iterdir()) == kept
        directory = home.generation_directory("default", state.generation or 0)
        index = faiss.read_index(str(directory / "index.faiss"))
        ids = load_ids(directory)
        with home.catalogue.read() as connection:
            stored = sorted(map(tuple, connection.execute(sa.select(vectors))))
        calibration = home.catalogue.calibrations.get(state.collection_id, str(state.encoder_id))
        assert decided(record).winner_id == state.encoder_id
        return {
            "decision": record.decision,
            "served": {int(i): np.asarray(index.reconstruct(place)).tobytes() for place, (i, _) in enumerate(ids)},
            "vectors": stored,
            "calibration": calibration,
            "old": next(g.encoder_id for g in records if g.status == "retired"),
        }


@pytest.fixture(scope="module")
def kills(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Kills:
    """A collection served by two principal components, which raw pixels beat."""
    folder = tmp_path_factory.mktemp("kills")
    with shop.open(newline="") as file:
        rows = [row for row in csv.reader(file)][: 1 + 2 * OF_KILLS]
    part = shop.parent / "part.csv"
    with part.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    weak = load_recipe("pca", ["preprocessing.size=8", "model.components=2"])
    train(weak, read_images(part)[0], folder / "weak", progress=False)
    with Home.open(folder / "home", create=True) as home:
        index_source(home, "default", part, encoder_ref=str(folder / "weak"), processes=0)
    for name, recipe in (("small-ae", AE), ("raw", PIXELS)):
        (folder / f"{name}.yaml").write_text(recipe)
    arguments = [
        "--recipes", f"{folder / 'small-ae.yaml'},{folder / 'raw.yaml'}", "--held-out", "0.5", "--items", "40",
        "--device", "cpu", "--nice", "0",
    ]  # fmt: skip
    shutil.copytree(folder / "home", folder / "whole")
    with start(folder / "whole", arguments) as process:
        lines = list(steps_in(process))
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["status"] == "promoted"
    assert process.returncode == 0
    assert list(dict.fromkeys(line.partition(":")[0] for line in lines)) == list(STEPS)
    return Kills(folder / "home", arguments, lines, end_of(folder / "whole"))


def has_ended(path: Path) -> bool:
    """Whether all was done; the process may have been killed before it could say so."""
    with Home.open(path) as home:
        return any(record.status != "running" for record in home.catalogue.retrains.all("default"))


@pytest.mark.parametrize(
    ("number", "most"),
    [
        pytest.param(signal.SIGTERM, 0.2, id="told", marks=pytest.mark.soak),
        pytest.param(signal.SIGKILL, 0.5, id="killed"),
    ],
)
def test_killed_at_every_step_in_turn_it_ends_as_if_nothing_had_happened(
    number: signal.Signals, most: float, kills: Kills, tmp_path: Path
) -> None:
    """Every run is killed at the first line that none was killed at before, or up to `most` seconds after it.

    SIGTERM goes to the process alone, as from a container's runtime.
    """
    rng = random.Random(most)
    home = tmp_path / "home"
    shutil.copytree(kills.home, home)
    killed: list[str] = []
    while not has_ended(home):
        with start(home, kills.arguments if len(killed) % 2 == 0 else ["--nice", "0"]) as process:
            for line in steps_in(process):
                if line not in killed:
                    time.sleep(rng.uniform(0, most))  # a random point of progress
                    if number is signal.SIGKILL:
                        os.killpg(process.pid, number)
                    else:
                        process.send_signal(number)
                    killed.append(line)
                    break
        # A shell sees 143 too if SIGTERM ends the process itself, as where no handler is set.
        assert process.returncode in (0, -signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM)
    assert end_of(home) == kills.end
    verified = subprocess.run(
        [sys.executable, "-m", "service.cli", "generations", "verify", "--home", str(home)], capture_output=True
    )
    assert verified.returncode == 0, verified.stderr
