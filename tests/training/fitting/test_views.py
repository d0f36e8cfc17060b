"""What a step is given: pictures on other backgrounds, their targets, weights and labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.fitting.compositing import composite
from training.fitting.examples import Examples
from training.fitting.modes import in_use, untracked
from training.fitting.views import ViewMaker, boxes_on_items, plain_images
from training.models import MODELS
from training.recipes import Recipe

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


def brightness(x: Tensor) -> Tensor:
    """A latent that turns with the brightness of the corner: white lies along the first axis."""
    angle = 1.5 * (1.0 - x[:, :, 0, 0].mean(dim=1))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_hard_backgrounds_are_those_that_move_the_latent_furthest() -> None:
    """Of 10, 20 and 30 the darkest is furthest from white; with many candidates it is always among them."""
    found = examples()
    assert found.has_mask is not None
    hard = recipe(backgrounds={"hard": {"candidates": 40, "share": 1.0}}, objective={"condition": "background"})
    torch.manual_seed(0)
    batch = ViewMaker(hard, bank())(found, look=brightness)
    corner = (batch.x[:, 0, 0, 0] * 255).round()
    assert (corner[found.has_mask] == 10).all() and (corner[~found.has_mask] == 255).all()
    assert set(batch.label[found.has_mask].tolist()) <= {0, 1} and (batch.label[~found.has_mask] == 6).all()


def test_a_share_of_the_backgrounds_is_hard_and_none_without_a_look() -> None:
    hard = recipe(backgrounds={"hard": {"candidates": 40, "share": 0.5}})
    found = examples(400)
    torch.manual_seed(0)
    dark = (ViewMaker(hard, bank())(found, look=brightness).x[:, 0, 0, 0] * 255).round() == 10
    share = float(dark[found.has_mask].float().mean())
    assert 0.6 < share < 0.73  # half of them, and a third of the others
    torch.manual_seed(0)
    free = ViewMaker(hard, bank())(found).x
    torch.manual_seed(0)
    assert torch.equal(free, ViewMaker(recipe(backgrounds={}), bank())(found).x)


def test_the_look_is_at_what_the_encoder_will_be_shown() -> None:
    sides = []

    def look(x: Tensor) -> Tensor:
        sides.append(x.shape[2])
        return brightness(x)

    hard = recipe(backgrounds={"hard": {"candidates": 3, "share": 1.0}}, objective={"clean_target": True})
    batch = ViewMaker(hard, bank())(examples(), look=look, size=8)
    assert sides == [8] * 4  # the item on white and three candidates
    assert batch.x.shape == (40, 3, 8, 8) and batch.target.shape == (40, 3, SIDE, SIDE)


def test_smaller_pictures_are_the_same_pictures_and_their_targets_stay() -> None:
    made = []
    for size in (None, 8):
        torch.manual_seed(0)
        made.append(ViewMaker(recipe(backgrounds={}), bank())(examples(), size=size))
    whole, small = made
    assert torch.equal(whole.target, small.target)
    torch.testing.assert_close(small.x.mean(dim=(2, 3)), whole.x.mean(dim=(2, 3)), atol=0.02, rtol=0)
    assert small.x.shape[2] == 8


def test_the_first_epochs_of_a_progressive_recipe_are_small() -> None:
    found = recipe(progressive={"size": 32, "after": 0.5}, epochs=4, preprocessing={"size": 64})
    assert [found.size_shown(epoch) for epoch in range(4)] == [32, 32, 64, 64]
    short = recipe(progressive={"size": 32, "after": 0.67}, epochs=2, preprocessing={"size": 64})
    assert [short.size_shown(epoch) for epoch in range(2)] == [32, 64]  # the last one is never small
    assert recipe().size_shown(0) == 64


def test_small_views_are_parts_of_each_pairs_pictures_in_turn() -> None:
    """Pairs of a grey square of one level with one of another: the middle of a small view is on the square."""
    pairs = 6
    found = examples(2 * pairs)
    images, masks = found.images.clone(), torch.zeros_like(found.masks)
    masks[:, 4:12, 4:12] = 255
    levels = torch.arange(2 * pairs, dtype=torch.uint8) * 10 + 20
    images[:, :, 4:12, 4:12] = levels[:, None, None, None]
    found = Examples(images, torch.arange(pairs).repeat(2), masks, torch.ones(2 * pairs, dtype=torch.bool))
    asked = {"contrastive": {"weight": 1.0}, "small_views": {"count": 3, "least": 0.25, "most": 0.25, "size": 8}}
    torch.manual_seed(0)
    maker = ViewMaker(recipe(objective=asked, backgrounds={}), bank())
    small = maker(found).small
    assert small.shape == (3 * pairs, 3, 8, 8)
    middle = (small[:, 0, 3:5, 3:5].mean(dim=(1, 2)) * 255).reshape(3, pairs)
    for turn, half in enumerate((0, 1, 0)):
        inside = levels[half * pairs : (half + 1) * pairs].float()
        assert ((middle[turn] - inside).abs() < 40).all()
    assert maker.plain(found).small is None


def test_small_views_without_masks_have_the_models_size() -> None:
    plain = Examples(examples(8).images, torch.arange(4).repeat(2))
    asked = {"contrastive": {"weight": 1.0}, "small_views": {"count": 2}}
    assert ViewMaker(recipe(objective=asked))(plain).small.shape == (8, 3, SIDE, SIDE)


def test_the_rest_of_a_batch_is_the_same_with_small_views() -> None:
    made = []
    for more in ({}, {"small_views": {"count": 2}}):
        torch.manual_seed(0)
        asked = recipe(objective={"contrastive": {"weight": 1.0}, **more}, backgrounds={})
        made.append(ViewMaker(asked, bank())(examples()))
    assert torch.equal(made[0].x, made[1].x) and made[0].small is None


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.integers(0, 99))
def test_boxes_have_sides_in_range_and_stay_in_the_picture(one: float, other: float, seed: int) -> None:
    torch.manual_seed(seed)
    least, most = sorted((one, other))
    x = torch.zeros(20, 3, SIDE, SIDE)
    masks = torch.zeros(20, 1, SIDE, SIDE)
    masks[:, :, 0, 5] = 1.0
    for given_masks in (None, masks):
        boxes = boxes_on_items(x, given_masks, least, most)
        sides = boxes[:, 2:] - boxes[:, :2]
        torch.testing.assert_close(sides[:, 0], sides[:, 1])
        assert float(sides.min()) >= least - 1e-5 and float(sides.max()) <= most + 1e-5
        assert float(boxes.min()) >= -1e-5 and float(boxes.max()) <= 1.0 + 1e-5
    middle = boxes[:, [1, 3]].mean(dim=1)  # all of the mask is in the top row
    torch.testing.assert_close(middle, torch.clamp(0.5 * sides[:, 1], min=0.5 / SIDE))


def test_neither_looks_nor_small_views_change_a_models_statistics() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = plain_images(examples())[0]
    with untracked(model):
        untracked_out = model(x)
    with in_use(model):
        used = model(x)
    assert model.training and model[1].track_running_stats and untracked_out.requires_grad and not used.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(untracked_out, model(x)) and not torch.allclose(untracked_out, used)


def test_the_item_on_white_is_what_candidates_are_compared_with() -> None:
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.append(x)
        return brightness(x)

    found = examples(8).take(torch.arange(3))
    hard = recipe(backgrounds={"hard": {"candidates": 2, "share": 1.0}})
    ViewMaker(hard, bank())(found, look=look)
    x, masks = plain_images(found)
    assert masks is not None
    assert torch.equal(seen[0], composite(x, masks, torch.ones_like(x)))


def test_codebooks_do_not_learn_where_nothing_is_tracked() -> None:
    config = MODELS["vq-vae"].config(size=16, channels=3, pool=2)
    model = MODELS["vq-vae"].model(config).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with untracked(model):
        model.latent(torch.rand(4, 3, 16, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.latent(torch.rand(4, 3, 16, 16))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
