"""Claiming an output directory for a run, refusing another one, and publishing the encoder into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.baselines import baseline
from training.errors import RecipeError
from training.recipes import load_recipe
from training.run_directory import RunDirectory


def test_a_claimed_directory_is_only_available_to_a_resumed_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "out")
    run.check_available(resume=False)
    run.claim(load_recipe("pca"), "abc")
    assert not run.is_finished
    run.check_available(resume=True)
    with pytest.raises(RecipeError, match="already holds a training run; continue it with --resume"):
        run.check_available(resume=False)


def test_another_recipe_or_other_data_cannot_claim_the_directory(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.claim(load_recipe("pca"), "abc")
    before = (tmp_path / "run.json").read_bytes()
    run.claim(load_recipe("pca"), "abc")
    with pytest.raises(RecipeError, match="another recipe; give the same recipe and --set values"):
        run.claim(load_recipe("pca", ["model.components=3"]), "abc")
    with pytest.raises(RecipeError, match="another data; give the same photos"):
        run.claim(load_recipe("pca"), "def")
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_record_without_a_setting_that_was_added_since_is_the_same_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.claim(load_recipe("pca"), "abc")
    record = json.loads((tmp_path / "run.json").read_text())
    del record["recipe"]["progressive"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    run.claim(load_recipe("pca"), "abc")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RecipeError, match="run.json is damaged"):
        RunDirectory(tmp_path).claim(load_recipe("pca"), "abc")


def test_publishing_finishes_the_run_beside_its_other_files(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.claim(load_recipe("pca"), "abc")
    assert run.publish(baseline("pixels")) == tmp_path
    assert run.is_finished
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json", "card.json", "encoder.json", "weights.safetensors"
    }  # fmt: skip


def test_an_encoder_without_a_run_is_not_overwritten(tmp_path: Path) -> None:
    baseline("pixels").save(tmp_path / "encoder")
    with pytest.raises(RecipeError, match="already holds an encoder; choose another --out"):
        RunDirectory(tmp_path / "encoder").check_available(resume=True)
