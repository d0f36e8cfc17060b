"""`nitamono train-finder`, from sources to a finder that an encoder can use."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from service.cli import app
from training.encoder import load_encoder
from training.errors import SourceError
from training.finder.make import FinderPlan, make_finder
from training.finder.network import FinderConfig
from training.finder.store import load_finder

TINY = FinderConfig(size=32, widths=(4, 6), depths=(0, 0), decoder_widths=(4,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of red objects on blue, and a cut-out."""
    folder = tmp_path_factory.mktemp("finder")
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = np.zeros((90, 90, 3), np.uint8)
        pixels[...] = (60, 80, 200)
        x, y = rng.integers(10, 40, 2)
        pixels[y : y + 35, x : x + 35] = (210, 50, 30)
        (folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    rgba = np.zeros((80, 80, 4), np.uint8)
    rgba[20:60, 10:70] = (30, 160, 60, 255)
    (folder / "cutouts").mkdir()
    Image.fromarray(rgba).save(folder / "cutouts" / "box.png")
    return folder


@pytest.mark.slow
def test_photos_cutouts_and_backgrounds_all_take_part(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("training.finder.make.BACKGROUNDS", 12)
    plan = FinderPlan(
        photos=[folder / "photos"], cutouts=folder / "cutouts", backgrounds=folder / "photos",
        shapes=6, studio=2, steps=6, self_training=0.5,
    )  # fmt: skip
    steps: list[int] = []
    directory, card = make_finder(plan, tmp_path / "finder", config=TINY, advance=lambda: steps.append(1))
    assert len(steps) == 6 and card["run"]["first"]["steps"] == card["run"]["second"]["steps"] == 3
    assert card["data"]["photos"] == 6 == card["data"]["photos_with_mask"]
    assert card["data"]["cutouts"] >= 6 + 5 + 6
    assert load_finder(directory).config.size == 32
    assert not any(str(tmp_path) in text or str(folder) in text for text in (json.dumps(card),))


def test_nothing_to_cut_out_and_missing_folders_are_errors(tmp_path: Path):
    with pytest.raises(SourceError, match="nothing to cut out"):
        make_finder(FinderPlan(shapes=0, studio=0, steps=1), tmp_path / "out", config=TINY)
    with pytest.raises(SourceError, match="no such folder"):
        make_finder(FinderPlan(shapes=1, studio=0, cutouts=tmp_path / "absent"), tmp_path / "out", config=TINY)


@pytest.mark.slow
def test_the_commands_train_a_finder_and_put_it_before_an_encoder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("training.finder.make.BACKGROUNDS", 8)
    run = CliRunner()
    finder, encoder = tmp_path / "finder", tmp_path / "first"
    options = ["--shapes", "4", "--studio", "0", "--steps", "2", "--json"]
    trained = run.invoke(app, ["train-finder", "--out", str(finder), *options])
    assert trained.exit_code == 0, trained.output
    assert (finder / "finder.onnx").is_file()
    made = run.invoke(
        app, ["encoders", "item-first", "vae-clothing-64", "--finder", str(finder), "--out", str(encoder), "--json"]
    )
    assert made.exit_code == 0, made.output
    assert load_encoder(encoder).encoder_id == json.loads(made.stdout)["encoder_id"]
