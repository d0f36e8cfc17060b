"""Measures of robustness against hand-worked cases, plain loops, and encoders of which the answer is known."""

from __future__ import annotations

from dataclasses import dataclass, fields

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.measures.disentanglement import linear_probe
from indexer.measures.metrics import Bootstrap
from indexer.measures.robustness import (
    LabelledVectors,
    attention_score,
    background_gap,
    displacement,
    lure_rate,
    query_metrics,
    swap_test,
)
from indexer.measures.variance import variance_shares

RNG = np.random.default_rng(0)
ITEMS = [f"item {n}" for n in range(40)]
ITEM_AXES = RNG.normal(size=(40, 8)).astype(np.float32)
BACKGROUND_AXES = RNG.normal(size=(6, 8)).astype(np.float32)


def photos(backgrounds: list[int], of_background: float) -> LabelledVectors:
    """Every item on every one of the backgrounds, seen by an encoder to which the background matters so much."""
    vectors = [ITEM_AXES + of_background * BACKGROUND_AXES[b] for b in backgrounds]
    return LabelledVectors(np.concatenate(vectors), ITEMS * len(backgrounds))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_encoder_that_sees_no_background_retains_all(metric: str) -> None:
    gallery = LabelledVectors(ITEM_AXES / np.linalg.norm(ITEM_AXES, axis=1, keepdims=True), ITEMS)
    queries = LabelledVectors(np.tile(gallery.vectors, (5, 1)), ITEMS * 5)
    figures = swap_test(gallery, gallery, queries, metric).figures
    assert list(figures) == ["recall@1", "recall@5", "recall@10", "map@r"]
    for figure in figures.values():
        assert figure.clean.value == figure.swapped.value == figure.retention.value == 1


def test_the_more_an_encoder_sees_of_backgrounds_the_less_it_retains() -> None:
    retained = []
    for share in (0.0, 1.0, 5.0):
        gallery, clean, swapped = (photos(backgrounds, share) for backgrounds in ([0], [0], [1, 2, 3, 4, 5]))
        figure = swap_test(gallery, clean, swapped, "l2").figures["recall@1"]
        assert figure.clean.value == 1
        assert figure.retention.low <= figure.retention.value <= figure.retention.high
        retained.append(figure.retention.value)
    assert retained[0] == 1 and retained[0] > retained[1] > retained[2]
    assert retained[2] < 0.3


def test_a_case_worked_by_hand() -> None:
    """Two items, two gallery photos each, on a line; the second item's swapped queries lie among the first's."""
    gallery = LabelledVectors(np.array([[0.0], [1.0], [10.0], [11.0]], np.float32), ["a", "a", "b", "b"])
    clean = LabelledVectors(np.array([[0.4], [10.4]], np.float32), ["a", "b"])
    swapped = LabelledVectors(np.array([[0.4], [5.4], [0.1]], np.float32), ["a", "b", "b"])
    figures = swap_test(gallery, clean, swapped, "l2", ks=(1, 3)).figures
    assert figures["recall@1"].clean.value == 1
    assert figures["recall@1"].swapped.value == figures["recall@1"].retention.value == 0.5
    # 5.4 finds a, b, a, b: recall@3 is 1. 0.1 finds a, a, b, b: 1 as well.
    assert figures["recall@3"].swapped.value == 1
    # MAP@R: a has 1. b has (0 + 1/2) / 2 and 0, of which the mean is 1/8.
    assert figures["map@r"].swapped.value == pytest.approx((1 + 1 / 8) / 2)


def test_figures_equal_a_plain_loop() -> None:
    gallery, queries = photos([0, 1], 0.8), photos([2, 3, 4], 0.8)
    found = query_metrics(gallery, queries, "cosine", np.arange(80))
    for row, (vector, item) in enumerate(zip(queries.vectors, queries.items, strict=True)):
        ranked = np.argsort(-(gallery.vectors @ vector), kind="stable")
        hits = [gallery.items[place] == item for place in ranked]
        assert found["recall@5"][row] == any(hits[:5])
        assert found["map@r"][row] == pytest.approx(sum(sum(hits[: i + 1]) / (i + 1) for i in range(2) if hits[i]) / 2)


def test_the_interval_of_a_ratio_is_of_the_same_items_and_covers_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        base = rng.uniform(0.2, 1.0, 60)
        values = base * rng.uniform(0.3, 0.7, 60)
        ratio = Bootstrap([str(n) for n in range(60)], replicates=400, seed=trial).ratio(values, base)
        assert ratio.value == pytest.approx(values.mean() / base.mean())
        covered += ratio.low <= 0.5 <= ratio.high
    assert 0.89 <= covered / 200 <= 0.99
    exact = Bootstrap(list("abc")).ratio(np.array([0.1, 0.2, 0.4]), np.array([0.2, 0.4, 0.8]))
    assert exact == pytest.approx((0.5, 0.5, 0.5))


def test_a_base_of_nothing_has_no_ratio() -> None:
    assert np.isnan(Bootstrap(["a", "b"]).ratio(np.zeros(2), np.zeros(2)).value)


def test_items_that_do_not_match_are_refused() -> None:
    one = LabelledVectors(np.zeros((1, 2), np.float32), ["a"])
    other = LabelledVectors(np.zeros((1, 2), np.float32), ["b"])
    with pytest.raises(ValueError, match="the same items"):
        swap_test(one, one, other, "l2")
    with pytest.raises(ValueError, match="the same items"):
        swap_test(other, one, one, "l2")
    with pytest.raises(ValueError, match="1 vectors are given for 2 items"):
        LabelledVectors(np.zeros((1, 2), np.float32), ["a", "b"])


# --- encoders of which the answer is known: z(i, b) = a item_i + (1 - a) background_b + noise of the pose

MIXTURES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
COUNT, BANK, DIM, KINDS = 30, 5, 12, 3
NAMES = [f"item {n:02d}" for n in range(COUNT)]
LABELS = [f"kind {n % KINDS}" for n in range(COUNT)]
LURES = np.arange(COUNT) % BANK
PAIRED = Bootstrap(NAMES, replicates=200)


@dataclass(frozen=True)
class Seen:
    """Vectors of a constructed encoder for a swap set: swapped `(I, B, dim)`, the others `(I, dim)`."""

    gallery: np.ndarray
    clean: np.ndarray
    swapped: np.ndarray
    lures: np.ndarray
    same: np.ndarray
    random: np.ndarray

    def figures(self, metric: str) -> dict[str, float]:
        swap = swap_test(
            LabelledVectors(self.gallery, NAMES), LabelledVectors(self.clean, NAMES),
            LabelledVectors(self.swapped.reshape(-1, DIM), np.repeat(NAMES, BANK).tolist()), metric, replicates=50,
        ).figures  # fmt: skip
        shares = variance_shares(self.swapped, ("item", "background"), replicates=50)
        gap = background_gap(self.gallery, (self.same, DONORS[0]), (self.random, DONORS[1]), LABELS, metric,
                             bootstrap=PAIRED)  # fmt: skip
        flat, items, backgrounds = (
            self.swapped.reshape(-1, DIM),
            np.repeat(NAMES, BANK),
            np.tile(np.arange(BANK), COUNT),
        )
        return {
            "swapped recall@1": swap["recall@1"].swapped.value,
            "swapped recall@5": swap["recall@5"].swapped.value,
            "swapped map@r": swap["map@r"].swapped.value,
            "retention": swap["map@r"].retention.value,
            "item share": shares["item"].value,
            "background share": shares["background"].value,
            "background gap": gap.gap.value,
            "lure rate": lure_rate(self.swapped, self.lures, LURES, metric, k=10, bootstrap=PAIRED).value,
            "displacement": PAIRED.interval(displacement(self.swapped).ratio).value,
            "overtaken": PAIRED.share(displacement(self.swapped).overtaken).value,
            "background probe": linear_probe(flat, backgrounds, items, replicates=50).score.value,
            "item probe": linear_probe(
                flat, items, backgrounds.astype(str), replicates=50, split=backgrounds > 2
            ).score.value,
        }


def donors() -> tuple[np.ndarray, np.ndarray]:
    """The donor of each item's background: of its own kind, and of any kind."""
    rng = np.random.default_rng(1)
    same = (np.arange(COUNT) + KINDS * rng.integers(1, COUNT // KINDS, COUNT)) % COUNT
    return same, (np.arange(COUNT) + rng.integers(1, COUNT, COUNT)) % COUNT


DONORS = donors()


def seen(a: float, metric: str, *, pose: float = 0.0, seed: int = 0) -> Seen:
    """Items and own backgrounds are grouped by kind, those of the bank are far from one another."""
    rng = np.random.default_rng(seed)
    kinds, rooms = (3 * rng.normal(size=(KINDS, DIM)) for _ in range(2))
    items, own = (groups[np.arange(COUNT) % KINDS] + rng.normal(size=(COUNT, DIM)) for groups in (kinds, rooms))
    bank = 3 * rng.normal(size=(BANK, DIM))

    def look(backgrounds: np.ndarray) -> np.ndarray:
        shown = items[:, None] if backgrounds.ndim == 3 else items
        z = a * shown + (1 - a) * backgrounds
        z = (z + pose * rng.normal(size=z.shape)).astype(np.float32)
        return z / np.linalg.norm(z, axis=-1, keepdims=True) if metric == "cosine" else z

    swapped = look(np.broadcast_to(bank, (COUNT, BANK, DIM)))
    same, random = (look(own[places]) for places in DONORS)
    return Seen(look(own), look(own), swapped, look(bank[LURES]), same, random)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_encoder_that_ignores_backgrounds_has_the_ideal_of_every_measure(metric: str) -> None:
    assert seen(1.0, metric).figures(metric) == pytest.approx(
        {
            "swapped recall@1": 1, "swapped recall@5": 1, "swapped map@r": 1, "retention": 1,
            "item share": 1, "background share": 0, "background gap": 0, "displacement": 0, "overtaken": 0,
            "lure rate": 1,  # its neighbours are on each of the backgrounds as often as any photo
            "background probe": 1 / BANK,  # one answer for all photos of an item
            "item probe": 1,
        },
        abs=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_encoder_that_sees_only_backgrounds_is_at_chance_or_worst(metric: str) -> None:
    found = seen(0.0, metric).figures(metric)
    assert np.isnan(found.pop("displacement")), "all items are in one place: there is nothing to measure it by"
    # On the bank all photos of a background have one ranking, in which every item has each rank once: recall@k is k in
    # 30. A clean query finds its own background. Of the photos on random backgrounds those find their kind that are on
    # one of their own kind.
    by_luck = np.mean([LABELS[donor] == label for donor, label in zip(DONORS[1], LABELS, strict=True)])
    assert found == pytest.approx(
        {
            "swapped recall@1": 1 / COUNT, "swapped recall@5": 5 / COUNT, "swapped map@r": 1 / COUNT,
            "retention": 1 / COUNT, "item share": 0, "background share": 1,
            "background gap": 1 - by_luck,
            "lure rate": BANK,  # all of the neighbours, where one in five photos has the background
            "background probe": 1, "item probe": 1 / COUNT, "overtaken": 1,
        },
        abs=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("pose", [0.0, 0.2])
def test_every_measure_ranks_mixtures_rightly(metric: str, pose: float) -> None:
    ladder = [seen(a, metric, pose=pose).figures(metric) for a in MIXTURES]
    falling = {"swapped recall@1", "swapped recall@5", "swapped map@r", "retention", "item share", "item probe"}
    for name in ladder[0]:
        values = np.array([rung[name] for rung in ladder])
        known = values[~np.isnan(values)]
        steps = np.diff(known) * (-1 if name in falling else 1)
        assert len(known) >= 5, name
        assert (steps >= -0.03).all() and steps.sum() > 0.3, f"{name}: {values.round(3)}"


def test_an_encoder_that_sees_nothing_has_no_shares_and_no_displacement() -> None:
    """0.1 is no binary number: the inner products differ by rounding, which would be called the items' share."""
    z = np.full((8, BANK, DIM), 0.1, np.float32)
    for share in variance_shares(z, ("item", "background")).values():
        assert np.isnan(share).all()
    moved = displacement(z)
    assert np.isnan(moved.ratio).all()
    assert (moved.overtaken == 1).all(), "what ties with another product is not nearer"


def rotation(rng: np.random.Generator, dim: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(dim, dim)))[0]


# --- lure rate


def test_a_lure_rate_worked_by_hand() -> None:
    """Four items on a line, photos of 0 and 1 on background 0 and of 2 and 3 on background 1; the first neighbour.

    Each of the items is at its own place on background 0 and 10 further on background 1; gallery at 0, 1, 12, 13.
    On 0 (places 0 1 2 3): 0 finds 1, a lure; 1 finds 0, a lure; 2 finds 1, a lure; 3 finds 1, a lure: 4.
    On 1 (10 11 12 13): 0 finds 2, 1 finds 2, 2 finds 3, 3 finds 2, all lures: 4. So 8 of 8.
    Chance: of the three others, one is on the own background and two on the other: items have (1 + 2) / 3 / 2 = 1/2.
    """
    queries = np.array([[[n], [10.0 + n]] for n in range(4)], np.float32)
    gallery = np.array([[0.0], [1.0], [12.0], [13.0]], np.float32)
    own = Bootstrap(list("abcd"), replicates=50)
    backgrounds = np.array([0, 0, 1, 1])
    assert lure_rate(queries, gallery, backgrounds, "l2", k=1, bootstrap=own) == pytest.approx((2, 2, 2))
    # Where the second background moves nothing, 0 to 3 find 1 0 1 1 on it as well, and none is on it: 4 of 8.
    still = np.repeat(queries[:, :1], 2, axis=1)
    assert lure_rate(still, gallery, backgrounds, "l2", k=1, bootstrap=own).value == pytest.approx(1)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_lure_rate_equals_a_plain_loop(metric: str) -> None:
    shown = seen(0.5, metric, pose=0.3)
    found = 0.0
    expected = 0.0
    for item in range(COUNT):
        others = [place for place in range(COUNT) if place != item]
        for background in range(BANK):
            query = shown.swapped[item, background]
            nearest = sorted(others, key=lambda place: float(np.square(query - shown.lures[place]).sum()))[:4]
            found += np.mean([LURES[place] == background for place in nearest])
            expected += np.mean([LURES[place] == background for place in others])
    rate = lure_rate(shown.swapped, shown.lures, LURES, metric, k=4, bootstrap=PAIRED)
    assert rate.value == pytest.approx(found / expected)
    assert rate.low < rate.value < rate.high


def test_no_more_neighbours_are_looked_at_than_can_be_lures() -> None:
    """With eight items every neighbour is among the first ten: the rate of any encoder would be 1."""
    shown = seen(0.0, "l2")
    few = Bootstrap(NAMES[:10], replicates=20)
    rate = lure_rate(shown.swapped[:10], shown.lures[:10], LURES[:10], "l2", k=10, bootstrap=few)
    assert rate.value == pytest.approx(BANK), "each background has two photos, of which one may be the item's own"


# --- displacement


def test_a_displacement_worked_by_hand() -> None:
    """On the first background items are at 0, 2, 5, on the second 1 further but for the last, which is at 9.

    Moved 1, 1, 4. Nearest other products on any background: 2 and 1 of the first item (0 to 2, 1 to 2), 1 and 2 of the
    second (2 to 1, 3 to 1), 2 and 6 of the third (5 to 3, 9 to 3). A tie counts as overtaken.
    """
    z = np.array([[[0.0], [1.0]], [[2.0], [3.0]], [[5.0], [9.0]]])
    found = displacement(z)
    assert found.ratio == pytest.approx([(1 / 2 + 1 / 1) / 2, (1 / 1 + 1 / 2) / 2, (4 / 2 + 4 / 6) / 2])
    assert found.overtaken == pytest.approx([1 / 2, 1 / 2, 1 / 2])


def test_displacement_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    z = seen(0.6, "l2", pose=0.3).swapped
    monkeypatch.setattr("indexer.measures.robustness.BLOCK_NUMBERS", 7 * COUNT * BANK)
    found = displacement(z)
    for item in range(COUNT):
        ratios = []
        for query in range(BANK):
            others = np.delete(z, item, axis=0).reshape(-1, z.shape[-1])
            nearest = np.linalg.norm(others - z[item, query], axis=1).min()
            ratios += [
                np.linalg.norm(z[item, query] - z[item, other]) / nearest for other in range(BANK) if other != query
            ]
        assert found.ratio[item] == pytest.approx(np.mean(ratios), rel=1e-6)
        assert found.overtaken[item] == pytest.approx(np.mean(np.array(ratios) >= 1))


def test_what_is_overtaken_is_what_a_search_does_not_find_first() -> None:
    """A gallery of the item's photo on one background and of all other items on every background."""
    z = seen(0.8, "l2", pose=0.3).swapped
    missed = []
    for item in range(COUNT):
        for query in range(BANK):
            for own in set(range(BANK)) - {query}:
                gallery = np.concatenate([np.delete(z, item, axis=0).reshape(-1, z.shape[-1]), z[item, own][None]])
                found = np.linalg.norm(gallery - z[item, query], axis=1).argmin()
                missed.append(found != len(gallery) - 1)
    assert displacement(z).overtaken.mean() == pytest.approx(np.mean(missed))
    assert 0.05 < np.mean(missed) < 0.95


def test_a_mean_displacement_below_1_is_not_safe() -> None:
    """Nine of ten items hardly move, the tenth far beyond the others: its queries find another product."""
    rng = np.random.default_rng(0)
    z = np.repeat(rng.normal(size=(10, 1, 16)), 5, axis=1) + 0.01 * rng.normal(size=(10, 5, 16))
    z[0] += 2 * rng.normal(size=(5, 16))
    found = displacement(z)
    assert found.ratio.mean() < 0.5 and found.overtaken.mean() > 0.04


def test_an_item_is_set_against_other_products_not_against_copies_of_itself() -> None:
    z = seen(0.6, "l2").swapped[:6]
    twice = np.concatenate([z, z[:1] + np.float32(1e-4)])
    products = ["a", "b", "c", "d", "e", "f", "a"]
    assert displacement(twice).ratio[0] > 100
    known, apart, alone = displacement(twice, products), displacement(z), displacement(twice, ["a"] * 7)
    for part in ("ratio", "overtaken"):
        np.testing.assert_allclose(getattr(known, part)[:6], getattr(apart, part), rtol=1e-3)
        assert np.isnan(getattr(alone, part)).all()


@hypothesis.settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_no_figure_depends_on_where_the_axes_lie_or_on_their_unit(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    shown = seen(0.6, "l2", pose=0.3)
    turn = scale * rotation(rng, DIM)
    turned = Seen(*((getattr(shown, each.name) @ turn).astype(np.float32) for each in fields(Seen)))
    np.testing.assert_allclose(displacement(turned.swapped).ratio, displacement(shown.swapped).ratio, rtol=1e-3)
    for measure in (rates, gaps, retained):
        assert measure(turned) == pytest.approx(measure(shown), abs=1e-6)


def rates(shown: Seen) -> tuple[float, ...]:
    return lure_rate(shown.swapped, shown.lures, LURES, "l2", k=5, bootstrap=PAIRED)


def gaps(shown: Seen) -> tuple[float, ...]:
    found = background_gap(
        shown.gallery, (shown.same, DONORS[0]), (shown.random, DONORS[1]), LABELS, "l2", bootstrap=PAIRED
    )
    return found.gap


def retained(shown: Seen) -> tuple[float, ...]:
    queries = LabelledVectors(shown.swapped.reshape(-1, DIM), np.repeat(NAMES, BANK).tolist())
    test = swap_test(
        LabelledVectors(shown.gallery, NAMES), LabelledVectors(shown.clean, NAMES), queries, "l2", replicates=20
    )
    return test.figures["map@r"].retention


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
