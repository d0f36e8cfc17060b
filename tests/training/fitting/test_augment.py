"""Augmentation keeps what the likelihoods, the masks and the search rely on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from training.fitting.augment import augment_batch, draw_edges, edges, erase
from training.recipes.schema import Augment

STILL = Augment(flip=False)


def batch(count: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, 3, 12, 12), generator=torch.Generator().manual_seed(0)).float() / 255.0


def augmented(x: Tensor, **settings: Any) -> Tensor:
    torch.manual_seed(0)
    return augment_batch(x, Augment(**{"flip": False, **settings}))[0]


def test_without_settings_nothing_changes() -> None:
    x, masks = batch(), torch.rand(64, 1, 12, 12)
    same, same_masks = augment_batch(x, STILL, masks)
    assert torch.equal(same, x) and same_masks is not None and torch.equal(same_masks, masks)
    assert torch.equal(erase(x, 0.0), x)


def test_a_drawing_of_edges_is_dark_where_the_image_changes_and_white_elsewhere() -> None:
    x = torch.full((1, 3, 24, 24), 0.2)
    x[:, :, :, 12:] = 0.7  # one vertical edge between the columns 11 and 12
    drawn = edges(x)
    assert drawn.shape == x.shape and torch.equal((drawn * 255).round(), drawn * 255)
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert bool((drawn[:, :, :, 11:13] == 0.0).all())
    assert bool((drawn[:, :, :, :8] == 1.0).all()) and bool((drawn[:, :, :, 16:] == 1.0).all())
    torch.testing.assert_close(edges(x.transpose(2, 3)), drawn.transpose(2, 3))
    torch.testing.assert_close(edges(1.0 - x), drawn)  # a darker or a lighter item
    assert bool((edges(torch.full((1, 1, 8, 8), 0.4)) == 1.0).all())


def test_a_share_of_the_images_is_drawn() -> None:
    x = batch()
    torch.manual_seed(0)
    shown = draw_edges(x, 0.3)
    drawn = (shown == edges(x)).flatten(1).all(dim=1)
    assert torch.equal(shown[~drawn], x[~drawn])
    assert 10 < int(drawn.sum()) < 30
    assert draw_edges(x, 0.0) is x


def test_flipping_gives_each_image_or_its_mirror_image() -> None:
    x = batch()
    flipped = augmented(x, flip=True)
    same = (flipped == x).flatten(1).all(dim=1)
    mirrored = (flipped == x.flip(3)).flatten(1).all(dim=1)
    assert bool((same ^ mirrored).all())
    assert 16 < int(mirrored.sum()) < 48


CHANGES = {
    "flip": True, "crop": 0.6, "rotate": 30.0, "scale": 0.3, "translate": 0.2, "shear": 20.0, "perspective": 0.4,
    "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2, "grey": 0.5, "blur": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CHANGES.items())
def test_each_setting_changes_images_differently_and_keeps_them_8_bit(name: str, value: Any) -> None:
    same = batch(1).expand(16, -1, -1, -1)
    changed = augmented(same, **{name: value})
    assert not torch.equal(changed, same)
    assert len(torch.unique(changed.flatten(1), dim=0)) > (1 if name in ("flip", "grey") else 8)
    levels = changed * 255.0
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert 0.0 <= float(changed.min()) and float(changed.max()) <= 1.0


def test_every_setting_of_the_section_is_tried_above_or_below() -> None:
    assert set(CHANGES) | {"aspect", "erase", "edges"} == set(Augment.model_fields)


@pytest.mark.parametrize("name", ["brightness", "contrast", "blur", "rotate"])
def test_grey_images_are_changed_too(name: str) -> None:
    x = batch()[:, :1]
    assert not torch.equal(augmented(x, **{name: CHANGES[name]}), x)
    assert torch.equal(augmented(x, saturation=0.5, hue=0.3, grey=0.5), x)


def test_a_crop_never_looks_outside_the_image() -> None:
    """A ramp from 0 to 1 over the width, cropped to a share, spans that share of the ramp and still rises."""
    ramp = torch.linspace(0.0, 1.0, 51).expand(200, 1, 51, 51)
    cropped = augmented(ramp, crop=0.5)
    left, right = cropped[:, 0, 25, 0], cropped[:, 0, 25, -1]
    span = right - left
    assert float(span.min()) > 0.47 and float(span.max()) <= 1.0
    assert float(span.std()) > 0.1
    rising = cropped.diff(dim=3)
    assert float(rising.min()) >= 0.0  # a reflection at the border would turn the ramp round


def test_aspect_makes_a_crop_keep_other_shares_of_its_sides() -> None:
    ramp = torch.linspace(0.0, 1.0, 51).expand(200, 1, 51, 51)
    both = torch.cat([ramp, ramp.transpose(2, 3), ramp], dim=1)
    for aspect, most in ((1.0, 1e-6), (1.5, 0.6)):
        cropped = augmented(both, crop=0.5, aspect=aspect)
        across, down = cropped[:, 0, 25, -1] - cropped[:, 0, 25, 0], cropped[:, 1, -1, 25] - cropped[:, 1, 0, 25]
        apart = (across / down).log().abs()
        assert float(apart.max()) <= most + 0.05
        assert (float(apart.mean()) > 0.1) == (aspect > 1)


def test_masks_go_through_the_same_geometry_as_their_images() -> None:
    shapes = torch.zeros(32, 1, 48, 48)
    shapes[:, :, 20:28, 20:28] = (torch.rand(32, 1, 8, 8) > 0.5).float()  # far enough in to stay in the picture
    settings = Augment(crop=0.6, aspect=1.3, rotate=40, scale=0.2, translate=0.1, shear=15, perspective=0.3)
    images, masks = augment_batch(shapes.expand(-1, 3, -1, -1), settings, shapes)
    assert masks is not None
    torch.testing.assert_close(images, masks.expand(-1, 3, -1, -1), atol=0.5 / 255 + 1e-6, rtol=0)
    assert float(masks.mean()) > 0.01


def test_what_lies_beyond_an_images_edge_is_no_item() -> None:
    """The picture goes on as its mirror image, which would show the item twice."""
    x, masks = torch.ones(50, 3, 32, 32), torch.ones(50, 1, 32, 32)
    images, moved = augment_batch(x, Augment(flip=False, scale=0.5), masks)
    assert moved is not None
    assert float(images.min()) == 1.0
    shares = moved.mean(dim=(1, 2, 3))
    assert float(shares.min()) < 0.4 and float(shares.max()) == 1.0


def test_colours_leave_masks_alone() -> None:
    masks = torch.rand(8, 1, 12, 12)
    settings = Augment(flip=False, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2, grey=0.5, blur=1.0)
    assert torch.equal(augment_batch(batch(8), settings, masks)[1], masks)  # type: ignore[arg-type]


def test_a_turn_of_the_hue_keeps_the_luminance() -> None:
    x = 0.4 + 0.2 * batch()
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    turned = augmented(x, hue=0.5)
    torch.testing.assert_close((turned * weights).sum(1), (x * weights).sum(1), atol=4e-3, rtol=0)


def test_erasing_hides_a_rectangle_of_some_images() -> None:
    torch.manual_seed(0)
    x = batch(200)
    erased = erase(x, 0.5)
    hidden = (erased != x).any(dim=1)
    share = hidden.float().mean(dim=(1, 2))
    assert 70 < int((share > 0).sum()) < 130
    assert float(share.max()) < 0.2
    rows, columns = hidden.any(dim=2).sum(dim=1), hidden.any(dim=1).sum(dim=1)
    torch.testing.assert_close(hidden.sum(dim=(1, 2)), rows * columns)


def test_one_seed_gives_one_outcome() -> None:
    assert torch.equal(augmented(batch(), flip=True, crop=0.8), augmented(batch(), flip=True, crop=0.8))
