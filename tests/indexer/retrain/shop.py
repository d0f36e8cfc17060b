"""A shop of drawn products, its home, and figures set by hand for the tests of retraining."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from indexer.catalogue.home import Home
from indexer.catalogue.records import RetrainRecord
from indexer.ingest.ingest import index_source
from indexer.measures.metrics import NO_INTERVAL, Interval
from indexer.measures.robustness import SwapFigure
from indexer.retrain import evidence
from indexer.retrain import run as retrain
from indexer.retrain.decision import Decision, EncoderFigures, GateSetSummary
from indexer.retrain.evidence import EncoderEvidence
from indexer.retrain.gate import GateRule
from indexer.retrain.photos import LEAST_HELD_OUT
from indexer.retrain.plan import BACKGROUNDS, RetrainPlan
from tests.conftest import COLOURS
from training.data import reader
from training.onnx import export
from training.reference import describe_encoder

ITEMS, PHOTOS, SIDE = 40, 2, 48


HELD_OUT = 0.6


PCA = ("preprocessing.size=8", "model.components=4")


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


def active_family(home: Home) -> str:
    return home.encoder(str(home.catalogue.search_state("default").encoder_id)).family


# Writes during a retraining


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    draw_product(number, 7)[0].save(buffer, "PNG")
    return buffer.getvalue()


def steps_of(home: Home, plan: RetrainPlan | None) -> list[str]:
    """Run to the end; returns the reported steps."""
    said: list[str] = []
    retrain.retrain(home, "default", plan, say=lambda step, what: said.append(step))
    return said
