"""Attribution of encoders that look at a known part of a photo, and at none."""

from __future__ import annotations

from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from indexer.measures.robustness import attention_score
from training.attribution import PATCHES, occlusion
from training.encoder import Encoder, load_encoder
from training.models.pixels import Pixels, PixelsConfig
from training.preprocessing import Preprocessing

SIDE = 32
PART = SIDE // PATCHES


class Peephole(Pixels):
    """Sees a window of the photo and nothing else, in plain distances."""

    metric = "l2"
    window = np.s_[8:16, 12:24]

    @property
    def dim(self) -> int:
        return self.config.channels * 8 * 12

    def embed(self, x: Tensor) -> Tensor:
        return x[:, :, *self.window].flatten(1)


def encoder(family: type[Pixels] = Pixels, channels: int = 3) -> Encoder:
    config = PixelsConfig(SIDE, channels)
    return Encoder(family(config), family="pixels", config=asdict(config), preprocessing=Preprocessing(SIDE, channels))


def noise(count: int = 3, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, SIDE, SIDE), dtype=np.uint8)


def test_an_encoder_that_sees_one_window_is_moved_by_its_parts_alone() -> None:
    moved = occlusion(encoder(Peephole), noise())
    assert moved.shape == (3, PATCHES, PATCHES) and moved.dtype == np.float32
    inside = np.zeros((PATCHES, PATCHES), bool)
    inside[8 // PART : 16 // PART, 12 // PART : 24 // PART] = True
    assert (moved[:, inside] > 0).all()
    assert (moved[:, ~inside] == 0).all()
    masks = np.repeat(inside[None].astype(float), 3, axis=0)
    np.testing.assert_allclose(attention_score(moved, masks), 1.0)
    area = masks[0].mean()
    np.testing.assert_allclose(attention_score(moved, 1 - masks), -(1 - area) / area)


def test_what_is_moved_is_the_distance_to_the_photo_with_that_part_blurred() -> None:
    photos = noise(2)
    moved = occlusion(encoder(Peephole), photos)
    for number, photo in enumerate(photos):
        soft = cv2.GaussianBlur(np.ascontiguousarray(photo.transpose(1, 2, 0)), (0, 0), 0.15 * SIDE).transpose(2, 0, 1)
        for down, across in np.ndindex(PATCHES, PATCHES):
            hidden = photo.copy()
            part = np.s_[:, PART * down : PART * (down + 1), PART * across : PART * (across + 1)]
            hidden[part] = soft[part]
            window = np.s_[:, 8:16, 12:24]
            away = np.linalg.norm((hidden[window].astype(float) - photo[window]) / 255)
            assert moved[number, down, across] == pytest.approx(away, abs=1e-5)


@pytest.mark.parametrize("metric_and_family", [("cosine", Pixels), ("l2", Peephole)])
def test_a_plain_photo_has_no_attribution_and_no_score(metric_and_family: tuple[str, type[Pixels]]) -> None:
    metric, family = metric_and_family
    looking = encoder(family)
    assert looking.metric == metric
    moved = occlusion(looking, np.full((2, 3, SIDE, SIDE), 255, np.uint8))
    assert (moved == 0).all()
    assert np.isnan(attention_score(moved, np.ones(moved.shape) / 2)).all()


def test_the_pixels_of_a_photo_are_moved_most_where_its_item_is() -> None:
    """A printed item of 4 x 4 parts on white; the blur carries a little of it into the parts around it."""
    photos = np.full((3, 3, SIDE, SIDE), 255, np.uint8)
    places = [(0, 0), (2, 3), (4, 4)]
    masks = np.zeros((3, PATCHES, PATCHES))
    for number, (down, across) in enumerate(places):
        item = noise(1)[0, :, : 4 * PART, : 4 * PART]
        photos[number, :, PART * down : PART * (down + 4), PART * across : PART * (across + 4)] = item
        masks[number, down : down + 4, across : across + 4] = 1
    moved = occlusion(encoder(), photos)
    assert all(moved[n][masks[n] > 0].min() > moved[n][masks[n] == 0].max() for n in range(3))
    assert (attention_score(moved, masks) > 0.45).all()
    assert (attention_score(moved[:1], masks[2:]) < -0.2).all(), "a mask that is elsewhere"


def test_photos_are_attributed_one_by_one_and_in_other_parts_and_channels(encoder_dir) -> None:
    photos = noise(3)
    moved = occlusion(encoder(), photos)
    np.testing.assert_allclose(occlusion(encoder(), photos[1:2])[0], moved[1], atol=1e-6)
    grey = noise(2, 1)
    assert (occlusion(encoder(channels=1), grey, patches=5) > 0).all()
    assert occlusion(encoder(channels=1), grey, patches=5).shape == (2, 5, 5)
    assert occlusion(load_encoder(encoder_dir), noise(1)[:, :, :16, :16], patches=1).shape == (1, 1, 1)
    assert occlusion(encoder(), photos[:0]).shape == (0, PATCHES, PATCHES)


def test_photos_are_left_as_they_were() -> None:
    photos = noise()
    before = photos.copy()
    occlusion(encoder(), photos)
    np.testing.assert_array_equal(photos, before)
    assert torch.is_inference_mode_enabled() is False


@pytest.mark.parametrize("patches", [0, SIDE + 1])
def test_parts_must_have_a_pixel(patches: int) -> None:
    with pytest.raises(ValueError, match=f"patches must be between 1 and the side of the photos, 32, not {patches}"):
        occlusion(encoder(), noise(), patches)
