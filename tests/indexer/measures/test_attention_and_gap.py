"""Background gap and attention score, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.measures.metrics import Bootstrap
from indexer.measures.robustness import (
    attention_score,
    background_gap,
)
from tests.indexer.measures.mixtures import COUNT, DONORS, KINDS, MIXTURES, PAIRED, seen

# --- background gap


def test_a_background_gap_worked_by_hand() -> None:
    """Six photos on a line, kinds a a a b b b at 0 1 2 and 10 11 12; each is seen where the photo behind it is.

    On the own kind's backgrounds the items 0 and 1 are on each other's, and so on: with own, that and the random donor
    barred, one of the kind is left where the random donor is of the other kind, and is nearest: 1 for those four items.
    The last of each kind, on the first's, has its random donor in its own kind: only the other kind is left, 0.
    On random backgrounds, 0, 1, 3 and 4 are among the other kind, whose two left photos are nearest: 0. The last are on
    the second of their own kind, where none of it is left: 0.
    """
    gallery = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]], np.float32)
    same, random = np.array([1, 0, 0, 4, 3, 3]), np.array([3, 4, 1, 0, 1, 4])
    own = Bootstrap(list("abcdef"), replicates=200)
    found = background_gap(
        gallery, (gallery[same], same), (gallery[random], random), list("aaabbb"), "l2", bootstrap=own
    )
    assert (found.same.value, found.random.value, found.gap.value) == pytest.approx((4 / 6, 0, 4 / 6))
    assert found.gap.low < 4 / 6 < found.gap.high
    assert list(found.to_json()) == ["same", "random", "gap"]


def test_the_photo_that_lends_its_background_is_not_what_is_found() -> None:
    """It is nearest, being on the very background, and on the own kind's side it always has the right category."""
    shown = seen(0.0, "l2")
    mixed = [f"kind {n}" for n in np.random.default_rng(2).permutation(COUNT) % KINDS]  # nothing to do with backgrounds
    labels = np.array(mixed)
    same = np.array([
        np.random.default_rng(n).choice(np.flatnonzero((labels == labels[n]) & (np.arange(COUNT) != n)))
        for n in range(COUNT)
    ])  # fmt: skip
    found = background_gap(
        shown.gallery, (shown.gallery[same], same), (shown.random, DONORS[1]), mixed, "l2", bootstrap=PAIRED
    )
    assert found.same.value < 0.6
    assert found.gap.low <= 0 <= found.gap.high


def test_the_gap_of_an_encoder_that_ignores_backgrounds_is_none_even_in_small_categories() -> None:
    """Of three in a category, its own and the donor's photo may not be found: one is left on either side."""
    rng = np.random.default_rng(3)
    items = rng.normal(size=(12, 4)).astype(np.float32)
    labels = [f"kind {n // 3}" for n in range(12)]
    same = np.array([3 * (n // 3) + (n + 1) % 3 for n in range(12)])
    random = (np.arange(12) + 4) % 12
    found = background_gap(
        items, (items, same), (items, random), labels, "cosine", bootstrap=Bootstrap(labels, replicates=20)
    )
    assert found.gap.value == 0


# --- attention


def test_an_attention_score_worked_by_hand() -> None:
    """The mask is a quarter of the photo. 3 of 4 inside: (3/4 - 1/4) / (3/4); nothing inside: (0 - 1/4) / (3/4)."""
    mask = np.array([[1.0, 0.0], [0.0, 0.0]])
    attribution = np.array([[[3, 1], [0, 0]], [[0, 1], [1, 2]], [[2, 2], [2, 2]], [[5, 0], [0, 0]]], np.float32)
    found = attention_score(attribution, np.broadcast_to(mask, (4, 2, 2)))
    assert found == pytest.approx([2 / 3, -1 / 3, 0, 1])
    half = attention_score(np.array([[[1.0, 1.0]]]), np.array([[[1.0, 0.5]]]))
    assert half == pytest.approx([0]), "a part that is half the item's counts half"


@pytest.mark.parametrize("share", MIXTURES)
def test_attention_is_the_share_that_looks_at_the_item(share: float) -> None:
    """Uniform attribution inside and outside: the score is 1 inside only, -area / (1 - area) outside only."""
    masks = np.zeros((3, 8, 8))
    for n, side in enumerate((2, 4, 6)):
        masks[n, :side, :side] = 1
    area = masks.mean(axis=(1, 2))
    inside, outside = (each / each.sum(axis=(1, 2), keepdims=True) for each in (masks, 1 - masks))
    found = attention_score(share * inside + (1 - share) * outside, masks)
    np.testing.assert_allclose(found, (share - area) / (1 - area))
    np.testing.assert_allclose(attention_score(7 * (share * inside + (1 - share) * outside), masks), found)


def test_nothing_attributed_and_no_background_have_no_score() -> None:
    photo, full = np.ones((1, 2, 2)), np.ones((1, 2, 2))
    assert np.isnan(attention_score(photo * 0, full / 2)).all()
    assert np.isnan(attention_score(photo, full)).all()
    with pytest.raises(ValueError, match="must have the same shape"):
        attention_score(photo, np.ones((1, 4, 4)))
