"""Tiny training runs and the photos for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_photos
from training.data.sources import SourceImage, read_images
from training.loop import train
from training.recipes import Recipe, load_recipe

TINY = [
    "preprocessing.size=16", "model.widths=[8, 8]", "model.decoder_widths=[8, 8]", "model.latent_dim=4",
    "batch_size=16", "epochs=3", "patience=null", "pictures_every=2", "optimiser.warmup_steps=2",
]  # fmt: skip


def tiny(*overrides: str) -> Recipe:
    return load_recipe("vae", [*TINY, *overrides])


def run(recipe: Recipe, images: list[SourceImage], out: Path, **options: Any) -> Path:
    return train(recipe, images, out, device="cpu", progress=False, **options)


def card(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "card.json").read_text())
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[SourceImage]:
    return read_images(write_photos(tmp_path_factory.mktemp("sixty-four"), 64))[0]


@pytest.fixture(scope="module")
def trained(images: list[SourceImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny(), images, tmp_path_factory.mktemp("runs") / "vae")


def scalars(out: Path, name: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [event.value for event in EventAccumulator(str(out / "tensorboard")).Reload().Scalars(name)]
