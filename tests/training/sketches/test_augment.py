"""Random changes of drawings in training: what they leave as it is, and what they change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.drawings import make_drawings
from training.fitting.examples import Examples
from training.recipes import load_recipe
from training.recipes.schema import DrawingSettings
from training.sketches.augment import change_form, change_strokes, drop_points, redrawn, warp
from training.sketches.dataset import prepare_drawings
from training.sketches.preparing import DrawingPreparation
from training.sketches.strokes import from_stroke3, from_stroke5
from training.sketches.views import SketchViews

LONGEST = 24
END = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
UNCHANGED = DrawingSettings(scale=0.0, drop=0.0)


def rows(count: int = 12) -> Tensor:
    """Drawings of one, two and three strokes."""
    found = make_drawings(count)
    for each in found[::3]:
        each.strokes.extend([np.array([[5.0, 5.0], [9.0, 7.0]]), np.array([[-3.0, 1.0]])])
    return torch.from_numpy(prepare_drawings(found, DrawingPreparation(longest=LONGEST)).rows)


def strokes_of(drawing: Tensor) -> list[np.ndarray]:
    """The strokes of rows, from the drawing's mean point."""
    strokes = from_stroke3(from_stroke5(drawing.numpy()))
    mean = np.concatenate(strokes).mean(0)
    return [stroke - mean for stroke in strokes]


def close(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(
        len(a) == len(b) and np.allclose(a, b, atol=1e-2) for a, b in zip(first, second, strict=True)
    )


def test_dropped_points_leave_all_others_where_they_are() -> None:
    x = rows()
    torch.manual_seed(0)
    chosen = torch.rand(x.shape[:2]) < 0.5
    thinned = drop_points(x, chosen)
    for before, after, drop in zip(x, thinned, chosen, strict=True):
        count = int((before[:, 4] == 0).sum())
        draws = before[:count, 2] == 1
        inside = draws & torch.cat([torch.tensor([False]), draws[:-1]])
        kept = ~(drop[:count] & inside)
        left = int(kept.sum())
        assert int((after[:, 4] == 0).sum()) == left < count + 1
        torch.testing.assert_close(after[:left, :2].cumsum(0), before[:count, :2].cumsum(0)[kept], atol=1e-3, rtol=0)
        assert torch.equal(after[:left, 2:], before[:count, 2:][kept])
        assert torch.equal(after[left:], END.expand(LONGEST - left, -1))
    torch.testing.assert_close(drop_points(x, torch.zeros_like(chosen)), x, atol=1e-3, rtol=0)


def test_drawings_are_stretched_and_turned_as_a_whole() -> None:
    x = rows()
    torch.manual_seed(0)
    stretched = change_form(x, DrawingSettings(scale=0.3, drop=0.0))
    ratio = stretched[..., :2] / x[..., :2]
    for each in ratio.unbind(0):
        for axis in each.unbind(-1):
            known = axis[axis.isfinite()]
            assert float(known.max() - known.min()) < 1e-3 and 0.7 <= float(known[0]) <= 1.3
    turned = change_form(x, DrawingSettings(scale=0.0, drop=0.0, rotate=90.0))
    torch.testing.assert_close(turned[..., :2].norm(dim=-1), x[..., :2].norm(dim=-1), atol=1e-3, rtol=0)
    assert not torch.allclose(turned[..., :2], x[..., :2])
    torch.testing.assert_close(change_form(x, UNCHANGED), x, atol=1e-3, rtol=0)


def test_a_slant_moves_points_across_by_their_height() -> None:
    x = rows()
    torch.manual_seed(0)
    slanted = change_form(x, DrawingSettings(scale=0.0, drop=0.0, shear=30.0))
    torch.testing.assert_close(slanted[..., 1:], x[..., 1:], atol=1e-3, rtol=0)
    slopes = torch.where(x[..., 1].abs() > 1.0, (slanted[..., 0] - x[..., 0]) / x[..., 1], torch.nan)
    for each in slopes.unbind(0):
        known = each[each.isfinite()]
        assert float(known.max() - known.min()) < 1e-3 and abs(float(known[0])) <= np.tan(np.radians(30.0))
    assert float(slopes.nan_to_num(0.0, 0.0, 0.0).abs().max()) > 0.1


def test_a_warp_moves_no_point_further_than_it_may_and_keeps_the_strokes() -> None:
    x = rows()
    torch.manual_seed(0)
    warped = warp(x, 0.1)
    assert torch.equal(warped[..., 2:], x[..., 2:])
    for before, after in zip(x, warped, strict=True):
        count = int((before[:, 4] == 0).sum())
        places = before[:count, :2].cumsum(0)
        moved = after[:count, :2].cumsum(0) - places
        side = float((places.amax(0) - places.amin(0)).max())
        assert 0 < float((moved.amax(0) - moved.amin(0)).max()) <= 2 * 0.1 * side + 1e-3
        assert torch.equal(after[count:], END.expand(LONGEST - count, -1))


@pytest.mark.parametrize("settings", [{"order": 1.0}, {"reverse": 0.5}, {"order": 1.0, "reverse": 0.5}])
def test_other_strokes_are_the_same_ink(settings: dict[str, float]) -> None:
    x = rows()
    torch.manual_seed(0)
    changed = change_strokes(x, UNCHANGED.model_copy(update=settings))
    assert torch.equal(changed[..., 4], x[..., 4])
    changes = 0
    for before, after in zip(x, changed, strict=True):
        given, found = strokes_of(before), strokes_of(after)
        assert sorted(map(len, found)) == sorted(map(len, given))
        for some, others in ((found, given), (given, found)):
            for stroke in some:
                assert any(close([stroke], [other]) or close([stroke[::-1]], [other]) for other in others)
        changes += not close(given, found)
    assert changes > 3


def test_strokes_by_hand() -> None:
    """Two lines and a dot, in the order 2, 0, 1, the first line drawn from its other end."""
    x = torch.tensor(
        [
            [0.0, 0.0, 1, 0, 0], [3.0, 1.0, 0, 1, 0],
            [1.0, 1.0, 1, 0, 0], [0.0, 2.0, 0, 1, 0],
            [5.0, 0.0, 0, 1, 0], [0.0, 0.0, 0, 0, 1],
        ]
    )[None]  # fmt: skip
    ranks = torch.tensor([[1, 2, 0, 3, 4, 5]])
    is_reversed = torch.tensor([[True, False, False, False, False, False]])
    expected = torch.tensor(
        [
            [0.0, 0.0, 0, 1, 0],
            [-6.0, -3.0, 1, 0, 0], [-3.0, -1.0, 0, 1, 0],
            [4.0, 2.0, 1, 0, 0], [0.0, 2.0, 0, 1, 0],
            [0.0, 0.0, 0, 0, 1],
        ]
    )[None]  # fmt: skip
    assert torch.equal(redrawn(x, ranks, is_reversed), expected)


def test_the_encoder_alone_sees_other_strokes() -> None:
    recipe = load_recipe("sketch-rnn", ["drawings={longest: 24, scale: 0, drop: 0, order: 1, reverse: 1}"])
    x = rows()
    torch.manual_seed(0)
    batch = SketchViews(recipe)(Examples(x, torch.arange(len(x))))
    torch.testing.assert_close(batch.target, x, atol=1e-3, rtol=0)
    assert not torch.allclose(batch.x, x, atol=0.1)
    plain = SketchViews(recipe)(Examples(x, torch.arange(len(x))), augmented=False)
    assert torch.equal(plain.x, x) and torch.equal(plain.target, x)
