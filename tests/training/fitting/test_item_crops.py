"""Training images cut to their items."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data.dataset import Dataset
from training.data.sources import SourceImage
from training.encoder import load_encoder
from training.errors import RecipeError
from training.finder.network import Finder, FinderConfig, FinderOutput
from training.fitting.item_crops import crop_to_items
from training.loop import train
from training.recipes import load_recipe
from training.recipes.schema import ItemFirstSettings

SIDE = 96


class FindsRed(Finder):
    """A finder that takes what is red for the item."""

    def forward(self, x: torch.Tensor) -> FinderOutput:
        red = torch.nn.functional.avg_pool2d(40.0 * (x[:, :1] - x[:, 2:] - 0.3), 2)
        return FinderOutput(red, torch.full((len(x),), 6.0))


def finder() -> Finder:
    config = FinderConfig(size=48, widths=(4, 4), depths=(0, 0), decoder_widths=(4,), normalisation=False)
    return FindsRed(config).eval()


def dataset() -> Dataset:
    """A red square of 24 pixels in the corner; the second photo has no usable mask."""
    images = np.zeros((2, 3, SIDE, SIDE), np.uint8)
    images[:, 2] = 200
    images[:, :, 60:84, 60:84] = np.array([220, 20, 20], np.uint8)[None, :, None, None]
    masks = np.zeros((2, SIDE, SIDE), np.uint8)
    masks[0, 60:84, 60:84] = 255
    masks[1] = 255
    return Dataset(images, ["a", "b"], ["", ""], [], [{}, {}], masks, ["column", "failed"])


def test_images_and_masks_are_cut_to_the_item_together() -> None:
    cut = crop_to_items(dataset(), finder(), ItemFirstSettings(size=96, margin=0.25), 32)
    assert cut.images.shape == (2, 3, 32, 32) and cut.masks is not None
    is_red = cut.images[0, 0].astype(int) - cut.images[0, 2] > 0
    assert abs(is_red.mean() - (1 / 1.5) ** 2) < 0.08
    assert ((cut.masks[0] > 127) == is_red).mean() > 0.97
    assert (cut.masks[1] == 255).all()  # still none that is usable
    assert cut.item_ids == ["a", "b"] and cut.mask_sources == ["column", "failed"]


def test_without_masks_there_are_none_to_cut() -> None:
    plain = Dataset(dataset().images, ["a", "b"], ["", ""], [])
    assert crop_to_items(plain, finder(), ItemFirstSettings(size=96), 32).masks is None


def test_a_recipe_that_finds_the_item_first_ships_an_encoder_that_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = []
    for number in range(8):
        pixels = np.full((120, 90, 3), 235, np.uint8)
        x, y = rng.integers(5, 40, 2)
        pixels[y : y + 40, x : x + 40] = rng.integers(0, 160, 3)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append(SourceImage(f"item {number}", str(tmp_path / f"{number}.png")))
    changes = ["epochs=1", "batch_size=4", "model.widths=[4,6,8,8]", "model.decoder_widths=[8,8,6,4]",
               "model.latent_dim=8", "backgrounds.count=4", "item_first.passes=2"]  # fmt: skip
    recipe = load_recipe("item-first-vae", changes)
    encoder = load_encoder(train(recipe, images, tmp_path / "out", device="cpu", progress=False))
    assert encoder.family == "item-first" and encoder.preprocessing.size == 192 and encoder.preprocessing.fit == "pad"
    assert encoder.config["passes"] == 2 and encoder.config["encoder"]["family"] == "vae"
    assert "figures" in encoder.card and "inner_encoder_id" in encoder.card


def test_a_finder_needs_colours() -> None:
    with pytest.raises(RecipeError, match="preprocessing.channels must be 3 with item_first"):
        load_recipe("item-first-vae", ["preprocessing.channels=1"])
