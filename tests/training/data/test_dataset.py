"""The in-memory dataset: order, bad files, fingerprint, and the split by item."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_photos
from training.data.dataset import Dataset, load_dataset
from training.data.decode import decode_image
from training.data.sources import SourceImage, read_images
from training.errors import SourceError
from training.preprocessing import Preprocessing

SMALL = Preprocessing(16)


def entries(folder: Path) -> list[SourceImage]:
    return read_images(folder)[0]


def made_up(item_ids: list[str]) -> Dataset:
    return Dataset(np.zeros((len(item_ids), 1, 8, 8), np.uint8), item_ids, ["0" * 64] * len(item_ids), [])


def test_images_come_in_the_sources_order_as_the_preprocessing_gives_them(photos: Path) -> None:
    images = entries(photos)
    dataset = load_dataset(images, SMALL)
    assert dataset.item_ids == [image.item_id for image in images]
    assert dataset.images.shape == (24, 3, 16, 16) and dataset.images.dtype == np.uint8
    data = images[5].path.read_bytes()
    assert np.array_equal(dataset.images[5], SMALL.apply(decode_image(data, at_least=SMALL.size).pixels))
    assert dataset.sha256[5] == hashlib.sha256(data).hexdigest()


def test_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    images = entries(write_photos(tmp_path, 60))
    alone, pooled = load_dataset(images, SMALL, processes=0), load_dataset(images, SMALL, processes=2)
    assert np.array_equal(alone.images, pooled.images)
    assert alone.fingerprint == pooled.fingerprint


def test_bad_files_are_skipped_and_listed_with_the_reason(tmp_path: Path) -> None:
    images = entries(write_photos(tmp_path, 6))
    images[1].path.write_bytes(b"this is text")
    images[4].path.unlink()
    dataset = load_dataset(images, SMALL)
    assert len(dataset) == len(dataset.images) == 4
    assert [skipped.where for skipped in dataset.skipped] == [images[1].item_id, images[4].item_id]
    assert "text" in dataset.skipped[0].reason and "does not exist" in dataset.skipped[1].reason
    kept = [image for image in images if image not in (images[1], images[4])]
    assert dataset.fingerprint == load_dataset(kept, SMALL).fingerprint


def test_nothing_readable_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"none of 1 images can be read; the first, a: .*0 bytes"):
        load_dataset([SourceImage("a", str(path))], SMALL)
    with pytest.raises(SourceError, match="none of 0 images can be read"):
        load_dataset([], SMALL)


def test_the_fingerprint_is_of_ids_and_contents_in_any_order() -> None:
    zeros = np.zeros((2, 1, 8, 8), np.uint8)
    one = Dataset(zeros, ["a", "b"], ["1", "2"], [])
    assert one.fingerprint == Dataset(zeros, ["b", "a"], ["2", "1"], []).fingerprint
    assert one.fingerprint == hashlib.sha256(b"a\x001\nb\x002\n").hexdigest()
    assert one.fingerprint != Dataset(zeros, ["a", "b"], ["2", "1"], []).fingerprint


def test_no_item_straddles_the_split() -> None:
    item_ids = [f"item-{i // 3}" for i in range(600)]
    dataset = made_up(item_ids)
    training, held_out = dataset.split(0.2)
    assert sorted([*training, *held_out]) == list(range(600))
    assert not {item_ids[i] for i in training} & {item_ids[i] for i in held_out}
    assert 60 < len(held_out) < 180


def test_an_item_stays_on_its_side_when_the_catalogue_grows() -> None:
    few, many = [f"item-{i}" for i in range(100)], [f"item-{i}" for i in range(1000)]
    sides = [{ids[i] for i in made_up(ids).split(0.3)[1]} for ids in (few, many)]
    assert sides[0] == sides[1] & set(few)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_both_sides_get_an_item_however_few_there_are(fraction: float) -> None:
    training, held_out = made_up(["a", "b"]).split(fraction)
    assert len(training) == len(held_out) == 1


def test_one_item_cannot_be_split() -> None:
    with pytest.raises(SourceError, match="training needs at least 2 items, found 1"):
        made_up(["a", "a", "a"]).split(0.5)
