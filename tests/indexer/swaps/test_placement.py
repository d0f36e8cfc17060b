"""Recall by scale and place: positions of items, and constructed encoders with known figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.measures.metrics import PerQuery
from indexer.measures.robustness import LabelledVectors, query_metrics
from indexer.swaps.placement import (
    CELLS,
    EMPTY,
    GROUNDS,
    KINDS,
    MIDDLE,
    PER_GROUND,
    SCALES,
    CutOut,
    PlacedItems,
    Placement,
    PlacementTest,
    cut_out,
    draw_placements,
    place,
    place_items,
    placement_test,
)
from indexer.vectors import Floats

SIDE = 60
COUNT = 24
NAMES = [f"item {number:02d}" for number in range(COUNT)]
Pixels = NDArray[np.uint8]


def pictures(count: int = COUNT) -> tuple[Pixels, Pixels]:
    """Rectangles of 5 x 4 patches of colour of their own in the middle of white pictures, and their masks."""
    rng = np.random.default_rng(4)
    made, masks = np.full((count, SIDE, SIDE, 3), 255, np.uint8), np.zeros((count, SIDE, SIDE), np.uint8)
    for number in range(count):
        patches = rng.integers(0, 200, (5, 4, 3), dtype=np.uint8)
        made[number, 4:56, 9:51] = patches.repeat(11, axis=0).repeat(11, axis=1)[:52, :42]
        masks[number, 4:56, 9:51] = 255
    return made, masks


def grounds(count: int = 3) -> Pixels:
    """Backgrounds lighter than any item."""
    return np.stack([np.full((SIDE, SIDE, 3), 215 + 10 * number, np.uint8) for number in range(count)])


def placed(count: int = COUNT, seed: int = 0, **more: int) -> PlacedItems:
    return place_items(*pictures(count), NAMES[:count], grounds(), seed, **more)


def box_of(picture: Pixels, background: Pixels) -> tuple[int, int, int, int]:
    """Left, top, width and height of the item."""
    differs = (picture != background).any(axis=-1)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


# --- geometry


def test_an_item_is_cut_out_by_its_bounding_box_without_the_pixel_at_its_outline() -> None:
    made, masks = pictures(1)
    item = cut_out(made[0], masks[0])
    assert item is not None and item.coverage.shape == (50, 40) and (item.coverage == 1).all()
    np.testing.assert_array_equal(item.colours, made[0, 5:55, 10:50])
    soft = masks[0] // 2
    assert cut_out(made[0], soft) is None, "what is half transparent everywhere has no inside"


@pytest.mark.parametrize("scale", [1.0, *SCALES])
@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.3, 0.8)])
@pytest.mark.parametrize(("height", "width"), [(50, 40), (20, 50), (9, 9), (60, 1)])
def test_the_box_has_the_asked_scale_and_place_to_a_pixel(
    scale: float, x: float, y: float, height: int, width: int
) -> None:
    item = CutOut(np.zeros((height, width, 3), np.float32), np.ones((height, width), np.float32))
    background = grounds(1)[0]
    left, top, across, down = box_of(place(item, background, Placement(scale, x, y)), background)
    assert max(across, down) == round(scale * SIDE)
    longer = scale * SIDE / max(height, width)
    assert abs(across - max(1, width * longer)) <= 0.5 and abs(down - max(1, height * longer)) <= 0.5
    assert abs(left - x * (SIDE - across)) <= 0.5 and abs(top - y * (SIDE - down)) <= 0.5
    assert left + across <= SIDE and top + down <= SIDE


def test_colours_are_kept_and_edges_are_mixed_with_the_ground() -> None:
    coverage = np.ones((20, 20), np.float32)
    coverage[:, 10:] = 0.5
    item = CutOut(np.repeat(100 * coverage[..., None], 3, axis=-1), coverage)
    picture = place(item, np.full((20, 20, 3), 200, np.uint8), MIDDLE)
    assert (picture[:, :10] == 100).all() and (picture[:, 10:] == 150).all()
    black = place(item, np.zeros((20, 20, 3), np.uint8), Placement(0.5, 0.0, 0.0))
    assert (black[:10, :5] == 100).all() and (black[:10, 5:10] == 50).all() and (black[10:] == 0).all()


def test_every_item_stands_once_in_each_kind_of_cell_at_each_scale() -> None:
    for seed in range(20):
        middle, *drawn = draw_placements(np.random.default_rng(seed))
        assert middle == MIDDLE and len(drawn) == PER_GROUND - 1
        cells = [(int(3 * each.x), int(3 * each.y)) for each in drawn]
        assert [each.scale for each in drawn] == [scale for scale in SCALES for _ in KINDS]
        for turn, kind in enumerate(KINDS):
            of_kind = cells[turn :: len(KINDS)]
            assert set(of_kind) <= set(CELLS[kind])
            assert len(set(of_kind)) == min(len(SCALES), len(CELLS[kind])), "drawn without replacement"


def test_places_are_uniform_over_the_room() -> None:
    """With the weights of their cells: a share of x has the mean 1/2 and the variance 1/12."""
    weight = np.tile([len(CELLS[kind]) / 9 for kind in KINDS], len(SCALES)) / len(SCALES)
    shares = np.array([[each[1:] for each in draw_placements(np.random.default_rng(s))[1:]] for s in range(2000)])
    mean = np.einsum("npk,p->k", shares, weight) / 2000
    square = np.einsum("npk,p->k", np.square(shares - 0.5), weight) / 2000
    np.testing.assert_allclose(mean, 0.5, atol=0.01)
    np.testing.assert_allclose(square, 1 / 12, atol=0.003)


# --- sets


def test_queries_are_on_white_and_on_one_background_for_each_item() -> None:
    queries = placed()
    first = next(queries.blocks())
    assert first.shape == (16, len(GROUNDS), PER_GROUND, SIDE, SIDE, 3)
    assert np.concatenate(list(queries.blocks())).shape[0] == COUNT
    for number in range(16):
        for row, each in enumerate(queries.placements[number][1:], start=1):
            for ground, below in enumerate((np.full((SIDE, SIDE, 3), 255, np.uint8), grounds()[queries.on[number]])):
                left, top, across, down = box_of(first[number, ground, row], below)
                assert down == round(each.scale * SIDE) and across == round(0.8 * each.scale * SIDE)
                assert abs(left - each.x * (SIDE - across)) <= 0.5 and abs(top - each.y * (SIDE - down)) <= 0.5
    assert np.bincount(queries.on).tolist() == [8, 8, 8], "backgrounds are shared out evenly"


def test_a_seed_draws_the_same_queries_whatever_the_blocks_and_another_draws_others() -> None:
    again, other = placed(), placed(seed=1)
    assert placed().placements == again.placements != other.placements
    np.testing.assert_array_equal(np.concatenate(list(placed().blocks())), np.concatenate(list(again.blocks())))
    np.testing.assert_array_equal(again.pictures(20), list(again.blocks())[1][4])
    few = placed(limit=5)
    assert len(few) == 5 and few.rows.tolist() == sorted(set(few.rows.tolist()))
    assert few.placements == [again.placements[row] for row in few.rows], "where an item stands is its own"
    assert few.items == [NAMES[row] for row in few.rows]


def test_items_without_an_inside_are_left_out_and_those_at_the_frame_counted() -> None:
    made, masks = pictures(4)
    masks[1] = 0
    masks[1, 30, 10:40] = 255  # a line
    masks[2, :30] = 255
    queries = place_items(made, masks, NAMES[:4], grounds(), 0)
    assert queries.items == [NAMES[0], NAMES[2], NAMES[3]] and queries.rows.tolist() == [0, 2, 3]
    assert queries.left_out == {EMPTY: 1} and queries.touching == 1


# --- encoders with known figures


def of_pixels(shown: Pixels) -> Floats:
    """Grey levels, darkness counting: a raw-pixel encoder."""
    flat = 255.0 - shown.astype(np.float32).mean(axis=-1).reshape(*shown.shape[:-3], -1)
    return np.asarray(flat / np.linalg.norm(flat, axis=-1, keepdims=True).clip(1e-6), np.float32)


def of_item(shown: Pixels) -> Floats:
    """A translation-invariant encoder: the item's box, which is darker than any ground, in 5 x 4 patches."""
    vectors = [_patches(picture) for picture in shown.reshape(-1, SIDE, SIDE, 3)]
    return np.stack(vectors).reshape(*shown.shape[:-3], -1)


def _patches(picture: Pixels) -> Floats:
    rows, columns = (np.flatnonzero((picture.min(axis=-1) < 205).any(axis=axis)) for axis in (1, 0))
    box = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    down, across = (
        ((np.arange(n) + 0.5) / n * length).astype(int) for n, length in zip((5, 4), box.shape, strict=False)
    )
    vector = box[np.ix_(down, across)].ravel() - 100
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def of_ground(shown: Pixels) -> Floats:
    """One vector for everything: finds by chance."""
    return np.ones((*shown.shape[:-3], 2), np.float32)


def measure(
    embed: Callable[[Pixels], Floats], queries: PlacedItems | None = None, base: PlacementTest | None = None
) -> PlacementTest:
    gallery = LabelledVectors(embed(pictures()[0]), NAMES)

    def score(vectors: Floats, rows: NDArray[np.intp]) -> PerQuery:
        return query_metrics(
            gallery, LabelledVectors(vectors, [NAMES[row] for row in rows]), "cosine", np.arange(COUNT), (1,)
        )

    found = placement_test(queries or placed(), embed, score, base=base, replicates=200, seed=3)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def exact() -> PlacementTest:
    return measure(of_item)


@pytest.fixture(scope="module")
def raw(exact: PlacementTest) -> PlacementTest:
    return measure(of_pixels, base=exact)


def test_an_encoder_that_crops_to_the_item_finds_it_at_every_scale_and_place(exact: PlacementTest) -> None:
    for ground in GROUNDS:
        for figures in exact.figures[ground].values():
            everything = [*figures[:3], *figures.by_scale.values(), *figures.by_place.values()]
            assert [each.value for each in everything] == [pytest.approx(1.0)] * 9
    assert exact.versus == {}


def test_raw_pixels_fall_with_the_scale_and_off_the_centre(raw: PlacementTest) -> None:
    for ground in GROUNDS:
        figures = raw.figures[ground]["recall@1"]
        assert figures.middle.value == 1.0, "the gallery has the items nearly as large"
        scales = [figures.by_scale[f"{scale:g}"].value for scale in SCALES]
        assert scales[0] > scales[-1] and max(scales) < 0.6
        places = [figures.by_place[kind].value for kind in KINDS]
        assert places[0] > places[1] > places[2], "the middle, then the edges, then the corners"
        assert figures.retention.value == pytest.approx(figures.anywhere.value)
        assert figures.retention.high < 0.5


def test_the_figures_are_the_weighted_means_of_their_cells(raw: PlacementTest) -> None:
    for ground in GROUNDS:
        for metric, figures in raw.figures[ground].items():
            by_scale = np.mean([each.value for each in figures.by_scale.values()])
            by_place = sum(len(CELLS[kind]) / 9 * figures.by_place[kind].value for kind in KINDS)
            assert figures.anywhere.value == pytest.approx(by_scale) == pytest.approx(by_place)
            assert figures.anywhere.value == pytest.approx(raw.anywhere[ground][metric].mean())
            assert figures.anywhere.low <= figures.anywhere.value <= figures.anywhere.high


def test_an_encoder_that_sees_nothing_finds_by_chance() -> None:
    figures = measure(of_ground).figures["white"]["recall@1"]
    everything = [figures.middle, figures.anywhere, *figures.by_scale.values(), *figures.by_place.values()]
    assert [each.value for each in everything] == [pytest.approx(1 / COUNT)] * 8


def test_differences_are_paired_on_the_same_queries_and_hold_together(exact: PlacementTest, raw: PlacementTest) -> None:
    assert list(raw.versus) == [
        f"{metric} anywhere, {ground}" for ground in GROUNDS for metric in ("recall@1", "map@r")
    ]
    for ground in GROUNDS:
        paired = raw.versus[f"recall@1 anywhere, {ground}"]
        gain = raw.figures[ground]["recall@1"].anywhere.value - exact.figures[ground]["recall@1"].anywhere.value
        assert paired.difference.value == pytest.approx(gain) and paired.difference.high < 0
        assert paired.p == pytest.approx(4e-4), "four times the least p-value that 9,999 permutations give"
    with pytest.raises(ValueError, match="the same items"):
        measure(of_item, placed(limit=8), base=exact)


def test_items_of_one_product_count_once() -> None:
    queries = placed()
    tied = PlacedItems(
        queries.rows, ["item 00" if name == "item 01" else name for name in queries.items], queries.cut,
        queries.placements, queries.backgrounds, queries.on,
    )  # fmt: skip
    found = measure(of_pixels, tied)
    assert len(found.items) == COUNT - 1 and len(found.anywhere["white"]["recall@1"]) == COUNT - 1
    alone = measure(of_pixels).anywhere["white"]["recall@1"]
    assert found.anywhere["white"]["recall@1"][0] == pytest.approx(alone[:2].mean())


def test_one_item_has_figures_and_none_has_no_test() -> None:
    single = measure(of_item, placed(limit=1))
    assert single.figures["white"]["recall@1"].anywhere == (1.0, 1.0, 1.0)
    made, masks = pictures(2)
    nothing = place_items(made, masks // 4, NAMES[:2], grounds(), 0)
    assert len(nothing) == 0 and nothing.left_out == {EMPTY: 2}
    assert placement_test(nothing, of_item, lambda vectors, rows: {}) is None


def test_the_json_has_both_grounds_with_intervals(raw: PlacementTest) -> None:
    document = raw.to_json()
    assert document["items"] == COUNT and document["left_out"] == {} and document["touching_the_frame"] == 0
    for ground in GROUNDS:
        for metric in ("recall@1", "map@r"):
            figures = document[ground][metric]
            assert list(figures) == ["middle", "anywhere", "retention", "by_scale", "by_place"]
            assert list(figures["by_scale"]) == ["0.7", "0.5", "0.3"] and list(figures["by_place"]) == list(KINDS)
            low, high = figures["anywhere"]["ci"]
            assert low <= figures["anywhere"]["value"] <= high
    assert set(document["difference_to_first"]["map@r anywhere, other"]) == {"value", "ci", "p"}
