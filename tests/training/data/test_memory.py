"""Images that memory does not hold are mapped from a file, and train as those in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import write_photos
from tests.training.runs import tiny
from training.data import memory
from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.fitting.training_data import build_training_data


def test_free_memory_is_the_least_of_what_the_computer_and_the_container_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (memory.free_memory() or 0) > 2**20
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    assert memory.free_memory() == 4096
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert memory.free_memory() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory() == 4096


def test_both_sides_of_a_split_are_mapped_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("objective.foreground_weight=0.5", "masks=[alpha, border]")
    images, _ = read_images(write_photos(tmp_path / "photos", 12))

    def prepared(folder: Path | None):  # type: ignore[no-untyped-def]
        dataset = load_dataset(images, recipe.preprocessing.build(), processes=0, masks=recipe.masks, folder=folder)
        dataset.mask_sources[0] = "border"  # drawn photos have no plain border
        return dataset, build_training_data(recipe, dataset, folder)

    held, usual = prepared(tmp_path)
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    mapped, large = prepared(tmp_path)
    assert isinstance(mapped.images, np.memmap) and isinstance(mapped.masks, np.memmap)
    assert not isinstance(held.images, np.memmap) and not isinstance(prepared(None)[0].images, np.memmap)
    for one, other in zip((usual.training, usual.held_out), (large.training, large.held_out), strict=True):
        for name in ("images", "items", "masks", "has_mask"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
