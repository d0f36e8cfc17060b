"""Augmentation keeps what the likelihoods and the search rely on."""

from __future__ import annotations

import torch

from training.augment import augment_batch


def batch(count: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 12, 12), generator=torch.Generator().manual_seed(0)).float() / 255.0


def test_without_settings_nothing_changes() -> None:
    x = batch()
    assert torch.equal(augment_batch(x, flip=False, crop=1.0), x)


def test_flipping_gives_each_image_or_its_mirror_image() -> None:
    torch.manual_seed(0)
    x = batch()
    flipped = augment_batch(x, flip=True, crop=1.0)
    same = (flipped == x).flatten(1).all(dim=1)
    mirrored = (flipped == x.flip(3)).flatten(1).all(dim=1)
    assert bool((same ^ mirrored).all())
    assert 16 < int(mirrored.sum()) < 48


def test_crops_stay_8_bit_values_in_range() -> None:
    torch.manual_seed(0)
    cropped = augment_batch(batch(), flip=True, crop=0.6)
    levels = cropped * 255.0
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert 0.0 <= float(cropped.min()) and float(cropped.max()) <= 1.0


def test_a_crop_never_looks_outside_the_image() -> None:
    """A ramp from 0 to 1 over the width, cropped to a share, spans that share of the ramp and still rises."""
    torch.manual_seed(0)
    ramp = torch.linspace(0.0, 1.0, 51).expand(200, 1, 51, 51)
    cropped = augment_batch(ramp, flip=False, crop=0.5)
    left, right = cropped[:, 0, 25, 0], cropped[:, 0, 25, -1]
    span = right - left
    assert float(span.min()) > 0.47 and float(span.max()) <= 1.0
    assert float(span.std()) > 0.1
    rising = cropped.diff(dim=3)
    assert float(rising.min()) >= 0.0  # a reflection at the border would turn the ramp round


def test_one_seed_gives_one_outcome() -> None:
    outcomes = []
    for _ in range(2):
        torch.manual_seed(7)
        outcomes.append(augment_batch(batch(), flip=True, crop=0.8))
    assert torch.equal(*outcomes)
