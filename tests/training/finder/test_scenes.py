"""Training images: exact masks of one item among other objects."""

import numpy as np
import pytest
import torch

from training.finder import scenes
from training.finder.cutouts import SIDE, Cutouts
from training.finder.scenes import SceneMaker

SIZE = 48


def red_squares(count: int = 3) -> Cutouts:
    items = np.zeros((count, 4, SIDE, SIDE), np.uint8)
    items[:, 0, 8:-8, 8:-8] = 220
    items[:, 3, 8:-8, 8:-8] = 255
    return Cutouts(items, np.zeros((0, 4, SIDE, SIDE), np.uint8), np.full(count, -1))


def blue_backgrounds(count: int = 4) -> torch.Tensor:
    backgrounds = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    backgrounds[:, 2] = 200
    return backgrounds


def test_pictures_and_masks_are_of_one_size_and_in_range():
    torch.manual_seed(0)
    made = SceneMaker(red_squares(), blue_backgrounds(), SIZE)(32)
    assert made.images.shape == (32, 3, SIZE, SIZE) and made.masks.shape == (32, 1, SIZE, SIZE)
    for part in made:
        assert 0.0 <= float(part.min()) and float(part.max()) <= 1.0
    torch.testing.assert_close(made.images * 255.0, torch.round(made.images * 255.0), atol=1e-4, rtol=0.0)
    assert bool((made.masks.sum(dim=(1, 2, 3)) > 0).all())


def test_the_mask_is_where_the_item_is(monkeypatch: pytest.MonkeyPatch):
    """Without other objects, recolouring or light, exactly the red pixels are the item."""
    monkeypatch.setattr(scenes, "OTHERS", 0)
    monkeypatch.setattr(scenes, "HIDDEN", 0.0)
    monkeypatch.setattr(scenes, "_recoloured", lambda layer: layer)
    monkeypatch.setattr(scenes, "_photographed", lambda canvas: canvas)
    monkeypatch.setattr(scenes, "_flat", lambda count: torch.zeros(count, 3, 1, 1))
    torch.manual_seed(1)
    maker = SceneMaker(red_squares(), blue_backgrounds(), SIZE)
    monkeypatch.setattr(maker, "_with_others", lambda canvas, item, wanted: canvas)
    made = maker(64)
    is_red = (made.images[:, :1] > 0.5) & (made.images[:, 2:] < 0.5) & (made.images[:, 1:2] < 0.5)
    differ = (is_red != (made.masks > 0.6)).float().mean(dim=(1, 2, 3))
    assert float(differ.max()) < 0.02


def test_places_and_sizes_spread_over_the_frame():
    torch.manual_seed(2)
    at = scenes._placement(4000)
    assert float(at.scale.min()) < 0.22 and float(at.scale.max()) > 1.0
    small = at.scale < 0.4
    assert float(at.x[small].min()) < 0.25 and float(at.x[small].max()) > 0.75


def test_what_hides_a_part_of_the_item_is_not_the_items(monkeypatch: pytest.MonkeyPatch):
    maker = SceneMaker(red_squares(), blue_backgrounds(), SIZE)
    canvas, mask = torch.zeros(64, 3, SIZE, SIZE), torch.ones(64, 1, SIZE, SIZE)
    monkeypatch.setattr(scenes, "HIDDEN", 1.0)
    torch.manual_seed(3)
    covered, left = maker._hidden_in_part(canvas, mask)
    is_red = covered[:, :1] > 0.8
    assert bool(is_red.any()) and float(left[is_red].max()) < 0.1
    assert bool((left[covered[:, :1] == 0] == 1).all())


def test_small_items_are_not_aliased():
    """A fine chequerboard at a small scale shows its mean colour, not one of its two colours."""
    chequered = np.zeros((1, 4, SIDE, SIDE), np.uint8)
    chequered[0, :3] = ((np.indices((SIDE, SIDE)).sum(axis=0) // 2 % 2) * 255).astype(np.uint8)
    chequered[0, 3] = 255
    maker = SceneMaker(
        Cutouts(chequered, np.zeros((0, 4, SIDE, SIDE), np.uint8), np.array([-1])), blue_backgrounds(), SIZE
    )
    one = torch.ones(1)
    at = scenes.Placement(0.3 * one, 0.5 * one, 0.5 * one, 0.0 * one, one < 0, one)
    layer = maker._layer(maker._items, torch.zeros(1, dtype=torch.long), at)[0]
    inside = layer[:3][:, layer[3] > 0.99]
    assert float((inside - 0.5).abs().max()) < 0.15


@pytest.mark.parametrize("count", [1, 2])
def test_the_smallest_batches_are_made_whatever_is_drawn_for_them(count: int):
    maker = SceneMaker(red_squares(), blue_backgrounds(), SIZE)
    for seed in range(30):
        torch.manual_seed(seed)
        assert maker(count).images.shape[0] == count


def test_padded_pictures_have_white_bars_without_item(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scenes, "BARS", 1.0)
    torch.manual_seed(4)
    images, masks = scenes._with_bars(torch.zeros(8, 3, SIZE, SIZE), torch.ones(8, 1, SIZE, SIZE))
    white = (images == 1.0).all(dim=1, keepdim=True)
    assert bool(white.any(dim=(2)).any(dim=2).all())
    assert float(masks[white].max()) == 0.0
