"""The swap sets of `benchmarks/background_swap.py`: equal and different parts, and the exit on leaks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image

from training.data.backgrounds import Folder
from training.data.studio import make_item, random_scene, render

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("background_swap", ROOT / "benchmarks/background_swap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["background_swap"] = module  # where its dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return Folder(tmp_path)


def test_a_swapped_query_is_the_clean_one_on_another_background(benchmark: ModuleType, folder: Folder) -> None:
    made = benchmark.drawn_set("shop", 3, 6, 5, folder)
    assert [len(pictures) for pictures in (made.gallery, made.clean, made.swapped)] == [3, 3, 18]
    assert made.kinds == ["texture", "room", "photo"] * 6
    for number, (item_id, clean) in enumerate(made.clean):
        item = make_item(5, number)
        mask = render(item, random_scene(item, 1), benchmark.SIDE).mask
        assert item_id == item.item_id == made.gallery[number][0]
        assert (clean[mask == 0] == 255).all()
        for swapped_id, swapped in made.swapped[6 * number : 6 * number + 6]:
            assert swapped_id == item_id
            np.testing.assert_array_equal(swapped[mask == 255], clean[mask == 255])
            assert (swapped[mask == 0] != clean[mask == 0]).mean() > 0.5
    assert set(made.check_leaks().values()) == {0}


def test_real_items_are_cut_out_and_photos_without_a_mask_are_counted(
    benchmark: ModuleType, folder: Folder, tmp_path: Path
) -> None:
    source = tmp_path / "items"
    source.mkdir()
    for number in range(3):
        photo = np.full((120, 120, 3), 240, np.uint8)
        cv2.circle(photo, (60, 60), 25 + 5 * number, (40 * number, 60, 160), -1)
        Image.fromarray(photo).save(source / f"{number}.png")
    Image.new("RGB", (120, 120), "white").save(source / "blank.png")
    (source / "bad.png").write_text("bad")
    made = benchmark.real_set(source, 2, 0, folder, 10)
    assert sorted(item for item, _ in made.gallery) == ["0.png", "1.png", "2.png"]
    assert [item for item, _ in made.swapped] == [item for item, _ in made.gallery for _ in range(2)]
    assert made.left_out["unreadable"] == 1 and sum(made.left_out.values()) == 2
    for _, picture in [*made.gallery, *made.clean]:
        assert (picture[:8, :8] == 255).all()
    assert set(made.check_leaks().values()) == {0}


def test_a_query_that_is_in_the_gallery_stops_the_program(benchmark: ModuleType, folder: Folder) -> None:
    made = benchmark.drawn_set("shop", 2, 1, 5, folder)
    made.swapped.append(made.gallery[0])
    with pytest.raises(SystemExit, match="'swapped_queries_in_gallery': 1"):
        made.check_leaks()


def test_a_colour_histogram_knows_colours_and_no_places(benchmark: ModuleType) -> None:
    red, halves = np.zeros((2, 16, 16, 3), np.uint8)
    red[..., 0] = 255
    halves[:8, :, 0] = 255
    vectors = benchmark.histogram([red, halves, halves[::-1]])
    np.testing.assert_allclose(vectors @ vectors.T, [[1, 0.5**0.5, 0.5**0.5], [0.5**0.5, 1, 1], [0.5**0.5, 1, 1]], 1e-6)
