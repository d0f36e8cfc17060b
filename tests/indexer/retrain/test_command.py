"""The command nitamono retrain, and encoders that are trained already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.errors import BusyError
from indexer.retrain import run as retrain
from indexer.retrain.job import find_retrain, unfinished
from indexer.retrain.outlook import outlook
from indexer.retrain.plan import STEPS, RetrainPlan
from service.cli import main
from tests.commands import start
from tests.indexer.retrain import shop
from tests.indexer.retrain.shop import HELD_OUT, PCA, PLAN, WIDE, Killed, SetFigures, decided, say_until
from training.reference import describe_encoder

# Fixtures of the tests below.
_read_here = shop._read_here
home = shop.home
original = shop.original
set_figures = shop.set_figures

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


# A scheduler: a process of its own, without a terminal


def test_sigterm_ends_a_run_with_143_and_leaves_it_to_be_resumed(home: Home) -> None:
    words = ("retrain", *OPTIONS, "--home", home.path, "--json")
    with start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None and process.stdout is not None
        assert process.stderr.readline().startswith(b"export: ")
        with pytest.raises(BusyError, match=f"'default' is being retrained by process {process.pid}; try again"):
            retrain.retrain(home, "default", PLAN)
        process.send_signal(signal.SIGTERM)
        errors = process.stderr.read().decode()
        assert process.stdout.read() == b""
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.endswith("nitamono: interrupted; stored data is safe; run the same command to continue\n")
    assert "Traceback" not in errors
    assert unfinished(home, "default") == find_retrain(home, "default", 1)


def test_a_run_beside_another_one_exits_with_1_and_names_its_process(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nitamono", "retrain", *OPTIONS, "--home", str(home.path), "--json"])
    with home.lock("retrain-default"), pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    message = f"collection 'default' is being retrained by process {os.getpid()}; try again when that has ended"
    assert capsys.readouterr() == ("", f"nitamono: {message}\n")


@pytest.mark.slow
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
