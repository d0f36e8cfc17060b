"""Random shapes: exact masks, variety, and reproducibility by seed."""

import numpy as np
import pytest

from training.finder.shapes import SILHOUETTES, draw_shape


@pytest.mark.parametrize("silhouette", sorted(set(SILHOUETTES), key=lambda draw: draw.__name__))  # type: ignore[attr-defined]
def test_every_silhouette_covers_a_part_of_its_square(silhouette):
    shares = []
    for seed in range(12):
        outline = silhouette(np.random.default_rng(seed), 96)
        assert outline.shape == (96, 96) and outline.dtype == np.uint8
        shares.append((outline > 127).mean())
    assert min(shares) > 0.005 and max(shares) < 0.98


def test_shapes_are_the_same_by_seed_and_differ_between_seeds():
    first, again, other = (draw_shape(np.random.default_rng(seed), 64) for seed in (1, 1, 2))
    assert first.shape == (64, 64, 4) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.2


def test_a_given_material_is_used():
    def red(rng, size):
        return np.tile(np.array([255.0, 0.0, 0.0], np.float32), (size, size, 1))

    shapes = [draw_shape(np.random.default_rng(seed), 48, red) for seed in range(20)]
    reds = [(s[..., 0].astype(int) - s[..., 1] > 80)[s[..., 3] > 200].mean() for s in shapes if (s[..., 3] > 200).any()]
    assert sum(share > 0.5 for share in reds) >= 4
