"""Tiny training runs and the photos for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import write_photos
from training.data.sources import SourceImage, read_images
from training.fitting.examples import Examples
from training.fitting.training_data import TrainingData
from training.fitting.views import ViewMaker
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


def drawn_data(recipe: Recipe, training: int, held_out: int = 4) -> TrainingData:
    """Both sides of a split without any file: discs on noise with their masks, two of each item, and backgrounds."""
    size, channels = recipe.preprocessing.size, recipe.preprocessing.channels
    generator = torch.Generator().manual_seed(0)
    count = training + held_out
    noise = torch.rand(count, channels, size, size, generator=generator)
    middle = 0.3 + 0.4 * torch.rand(2, count, 1, 1, generator=generator)
    place = torch.arange(size) / size
    mask = ((place[:, None] - middle[0]) ** 2 + (place - middle[1]) ** 2 < 0.06).float()
    colour = torch.rand(count // 2 + 1, channels, 1, 1, generator=generator).repeat_interleave(2, 0)[:count]
    images = 255.0 * torch.where(mask[:, None] > 0, colour, 0.3 * noise)
    has_mask = torch.arange(count) % 5 != 4
    everything = Examples(images.byte(), torch.arange(count) // 2, (255.0 * mask).byte(), has_mask)
    if not recipe.needs_masks:
        everything = Examples(everything.images, everything.items)
    bank = (255.0 * torch.rand(8, channels, size, size, generator=generator)).byte()
    views = ViewMaker(recipe, bank if recipe.backgrounds is not None else None)
    sides = everything.take(torch.arange(training)), everything.take(torch.arange(training, count))
    return TrainingData(*sides, views, [], 0)


def scalars(out: Path, name: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [event.value for event in EventAccumulator(str(out / "tensorboard")).Reload().Scalars(name)]
