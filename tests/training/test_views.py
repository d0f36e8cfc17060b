"""What a step is given: pictures on other backgrounds, their targets, weights and labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from training.examples import Examples
from training.recipes import Recipe
from training.views import ViewMaker

SIDE = 16


def recipe(**settings: Any) -> Recipe:
    plain = {"probability": 1.0, "count": 3, "feather": 0, "light": 0, "shadow": 0}
    values = {"name": "x", "description": "x", "family": "vae", "augment": {"flip": False}, **settings}
    if "backgrounds" in values:
        values["backgrounds"] = {**plain, **values["backgrounds"]}
    return Recipe.model_validate(values)


def examples(count: int = 40) -> Examples:
    """Grey squares on white; every fourth has no usable mask."""
    images = torch.full((count, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    images[:, :, 4:12, 4:12] = 100
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
    masks[:, 4:12, 4:12] = 255
    has_mask = torch.arange(count) % 4 != 3
    masks[~has_mask] = 255
    return Examples(images, torch.arange(count), masks, has_mask, torch.arange(count) % 5)


def bank() -> Tensor:
    return torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None, None].expand(3, 3, SIDE, SIDE).contiguous()


def on_bank(**settings: Any) -> tuple[Examples, Any]:
    torch.manual_seed(0)
    found = examples()
    return found, ViewMaker(recipe(backgrounds={}, **settings), bank())(found)


def test_without_settings_a_batch_is_the_images_themselves() -> None:
    plain = Examples(examples().images, examples().items)
    batch = ViewMaker(recipe())(plain)
    assert torch.equal(batch.x, plain.images.float() / 255.0) and batch.target is batch.x
    assert batch.weight is None and batch.label is None


def test_items_stay_and_backgrounds_come_from_the_bank_where_there_is_a_mask() -> None:
    found, batch = on_bank()
    corner, middle = (batch.x[:, 0, place, place] * 255 for place in (0, 8))
    assert found.has_mask is not None
    assert set(corner[found.has_mask].round().tolist()) == {10, 20, 30}
    assert (corner[~found.has_mask] == 255).all() and torch.allclose(middle, torch.tensor(100.0))
    assert torch.equal(batch.target, batch.x)


def test_masks_are_told_where_they_are_asked_for_and_known() -> None:
    found, batch = on_bank(objective={"foreground": 1.0}, model={"foreground": True})
    assert found.has_mask is not None and batch.mask is not None
    assert batch.mask[~found.has_mask].isnan().all()
    torch.testing.assert_close(batch.mask[found.has_mask][:, 0], found.masks[found.has_mask].float() / 255.0)
    assert on_bank()[1].mask is None


def test_a_share_keeps_its_own_background() -> None:
    torch.manual_seed(0)
    batch = ViewMaker(recipe(backgrounds={"probability": 0.5}), bank())(examples(400))
    kept = (batch.x[:, 0, 0, 0] == 1.0).float()[torch.arange(400) % 4 != 3].mean()
    assert 0.4 < float(kept) < 0.6


def test_the_clean_target_is_the_item_on_white_and_the_photo_itself_without_a_mask() -> None:
    found, batch = on_bank(objective={"clean_target": True})
    white = found.images.float() / 255.0
    torch.testing.assert_close(batch.target, white)
    assert found.has_mask is not None
    assert bool((batch.x != white).flatten(1).any(dim=1)[found.has_mask].all())
    dark = Examples((found.images // 2), found.items, found.masks, found.has_mask)
    without_bank = ViewMaker(recipe(objective={"clean_target": True}))(dark)
    assert torch.equal(without_bank.x, dark.images.float() / 255.0)
    assert (without_bank.target[0, :, 0, 0] == 1.0).all() and (without_bank.target[3] == without_bank.x[3]).all()


@pytest.mark.parametrize("least", [0.0, 0.25])
def test_background_pixels_weigh_less_in_the_likelihood(least: float) -> None:
    _, batch = on_bank(objective={"foreground_weight": least})
    assert batch.weight.shape == (40, 1, SIDE, SIDE)
    assert (batch.weight[0, 0, 0] == least).all() and (batch.weight[0, 0, 5, 5:11] == 1.0).all()
    assert (batch.weight[3] == 1.0).all()  # no mask: all of it counts


def test_labels_are_the_examples_own_where_an_attribute_conditions() -> None:
    found, batch = on_bank(objective={"condition": "category"})
    assert found.labels is not None and torch.equal(batch.label, found.labels)


def test_the_label_of_a_background_says_all_that_is_behind_the_item() -> None:
    torch.manual_seed(0)
    found = examples(80)
    slope = torch.arange(SIDE, dtype=torch.uint8).expand(3, SIDE, SIDE)
    slopes = torch.stack([slope + 10 * number for number in range(3)])  # (3, 3, S, S), each unlike its mirror image
    settings = recipe(backgrounds={"light": 1.0, "shadow": 1.0}, objective={"condition": "background"})
    batch = ViewMaker(settings, slopes)(found)
    own = 6
    assert set(batch.label.tolist()) == set(range(7))
    assert torch.equal(batch.label == own, ~found.has_mask)
    outside = found.masks[0] == 0
    for label in range(own):
        behind = slopes[label // 2].flip(2) if label % 2 else slopes[label // 2]
        shown = (batch.x[batch.label == label] * 255).round()
        assert (shown[:, :, outside] == behind.float()[:, outside]).all(), "neither light nor shadow nor another side"
    plain = ViewMaker(settings, slopes).plain(found)
    assert (plain.label == own).all() and torch.equal(plain.x, found.images.float() / 255.0)


def test_what_is_erased_is_hidden_from_the_encoder_alone() -> None:
    torch.manual_seed(0)
    found = examples()
    maker = ViewMaker(recipe(augment={"flip": False, "erase": 1.0}))
    batch = maker(found)
    assert torch.equal(batch.target, found.images.float() / 255.0) and not torch.equal(batch.x, batch.target)
    assert torch.equal(maker(found, augmented=False).x, batch.target)


def test_two_views_of_one_photo_differ() -> None:
    torch.manual_seed(0)
    twice = examples().take(torch.arange(8).repeat(2))
    x = ViewMaker(recipe(backgrounds={}, augment={"crop": 0.7}), bank())(twice).x
    assert bool((x[:8] != x[8:]).flatten(1).any(dim=1).all())


def test_mixed_precision_changes_no_pixel() -> None:
    maker = ViewMaker(recipe(backgrounds={"shadow": 0.3}, augment={"rotate": 20, "blur": 1, "hue": 0.1}), bank())
    made = []
    for mixed in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            made.append(maker(examples()).x)
    assert torch.equal(*made)
