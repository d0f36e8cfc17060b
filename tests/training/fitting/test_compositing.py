"""Compositing: identities at the ends of a mask, ranges, edges that never let the old background through."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.fitting.compositing import cast_shadow, composite, feather, match_light, paste, roughen
from training.recipes.schema import Backgrounds


def images(seed: int, count: int = 6, channels: int = 3, side: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator).float() / 255.0


def disc(count: int = 6, side: int = 32) -> Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    inside = (x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 4) ** 2
    return inside.float().expand(count, 1, side, side)


@given(st.integers(0, 2**31), st.sampled_from([1, 3]))
@settings(max_examples=25, deadline=None)
def test_the_ends_of_a_mask_give_item_and_background_and_between_them_8_bit_values(seed: int, channels: int) -> None:
    item, background = images(seed, channels=channels), images(seed + 1, channels=channels)
    mask = images(seed + 2, channels=1)
    torch.testing.assert_close(composite(item, torch.ones_like(mask), background), item, atol=1e-6, rtol=0)
    torch.testing.assert_close(composite(item, torch.zeros_like(mask), background), background, atol=1e-6, rtol=0)
    mixed = composite(item, mask, background)
    levels = mixed * 255.0
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    slack = 0.5 / 255 + 1e-6
    assert bool((mixed <= torch.maximum(item, background) + slack).all())
    assert bool((mixed >= torch.minimum(item, background) - slack).all())


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_whatever_the_settings_the_item_is_inside_and_the_old_background_nowhere(seed: int) -> None:
    torch.manual_seed(seed)
    mask = disc()
    item = torch.where(mask > 0, 0.5, 1.0).expand(-1, 3, -1, -1)  # what was behind it is white
    black = torch.zeros_like(item)
    placed = paste(item, mask, black, Backgrounds(feather=1.5, light=0.0, shadow=0.5))
    assert float(placed.max()) <= 128 / 255 + 1e-6  # which a half is rounded to
    torch.testing.assert_close(placed[:, :, 16, 16], torch.full((6, 3), 128 / 255), atol=1e-2, rtol=0)
    assert float(placed[:, :, 0, 0].max()) == 0.0


def test_without_edges_light_and_shadow_placing_is_compositing() -> None:
    item, background, mask = images(1), images(2), images(3, channels=1)
    plain = Backgrounds(feather=0, light=0, shadow=0)
    assert torch.equal(paste(item, mask, background, plain), composite(item, mask, background))


def test_feathering_softens_edges_by_other_amounts_for_each_image() -> None:
    torch.manual_seed(0)
    soft = feather(disc(), 1.0)
    assert bool((soft <= disc()).all()) and float(soft[:, :, 16, 16].min()) > 0.999
    assert len(torch.unique(soft.sum(dim=(1, 2, 3)))) == 6


def test_light_goes_towards_the_items() -> None:
    torch.manual_seed(0)
    mask = disc(200)
    item, background = torch.full((200, 3, 32, 32), 0.2), torch.full((200, 3, 32, 32), 0.8)
    lit = match_light(background, item, mask, 0.5)[:, 0, 0, 0]
    assert 0.5 - 1e-4 <= float(lit.min()) < 0.52 and 0.78 < float(lit.max()) <= 0.8
    torch.testing.assert_close(match_light(background, item, mask, 0.0), background)


def test_a_shadow_is_below_its_item_and_within_its_darkness() -> None:
    torch.manual_seed(0)
    dark = cast_shadow(disc(50), 0.4)
    assert 0.3 < float(dark.max()) <= 0.4 and float(dark.min()) >= 0.0
    assert float(dark[:, 0, 26, 16].mean()) > float(dark[:, 0, 6, 16].mean())


def test_rough_masks_err_by_about_the_pixels_that_they_may() -> None:
    mask = torch.zeros(64, 1, 32, 32)
    mask[:, :, 8:24, 8:24] = 1.0
    torch.manual_seed(0)
    areas = roughen(mask, 2.0).sum(dim=(1, 2, 3))
    sides = areas.sqrt()
    assert float(sides.min()) < 15.0 and float(sides.max()) > 17.0
    assert float(sides.min()) > 10.0 and float(sides.max()) < 22.0  # twice 1.5 times the 2 pixels, about 16
