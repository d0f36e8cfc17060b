"""The gate set: backgrounds of the run, clean views, pictures in blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from indexer.errors import InvalidRequestError
from indexer.evaluate.images import embed_pictures
from indexer.measures.robustness import LabelledVectors, query_metrics
from indexer.retrain import gate_set as module
from indexer.retrain.evidence import VERSION, EncoderEvidence, is_current, measure
from indexer.retrain.gate_set import CLEAN_VIEWS, FIRST_SEED, GateSet, background_seed, draw_bank, gate_set
from tests.indexer.swapped import Write
from training.data.backgrounds import SHOPS
from training.data.sources import read_images
from training.encoder import load_encoder
from training.errors import SourceError

SIDE = 32


def made_of(manifest: Path, **options: Any) -> GateSet:
    images, _ = read_images(manifest)
    return gate_set("shop", images, side=SIDE, processes=0, **options)


def test_every_run_draws_other_backgrounds_and_the_same_when_it_goes_on(write: Write) -> None:
    manifest = write([2] * 20)
    seeds = [background_seed("shop", number, 0) for number in (1, 2, 1)]
    one, other, again = (made_of(manifest, background_seed=seed) for seed in seeds)
    assert len(one.bank.names) == 20 and one.bank.pictures.shape == (20, SIDE, SIDE, 3)
    np.testing.assert_array_equal(one.bank.pictures, again.bank.pictures)
    assert one.summary() == again.summary()
    drawn = {picture.tobytes() for made in (one, other) for picture in made.bank.pictures}
    assert len(drawn) == 40, "two runs share a background"
    assert one.summary().background_seed == seeds[0]
    assert one.summary().background_sha256 != other.summary().background_sha256


def test_seeds_of_backgrounds_are_no_shops_and_not_those_of_training() -> None:
    seeds = [background_seed(name, number, seed) for name in "ab" for number in range(50) for seed in range(5)]
    assert len(set(seeds)) == len(seeds)
    assert all(FIRST_SEED <= seed < SHOPS for seed in seeds)


def test_backgrounds_of_a_folder_are_parts_of_different_photos_and_others_in_each_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(25):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no photo")
    one, other = (draw_bank(tmp_path, 20, SIDE, seed) for seed in (1, 2))
    assert len(set(one.names)) == 20 and "broken.png" not in one.names
    assert set(one.names) != set(other.names)
    assert not {picture.tobytes() for picture in one.pictures} & {picture.tobytes() for picture in other.pictures}


def test_parts_of_one_photo_are_one_background(write: Write, tmp_path: Path, encoder_dir: Path) -> None:
    """Twenty parts of six photos say as much of other photos as six do."""
    folder = tmp_path / "walls"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    made = made_of(write([2] * 20), backgrounds=folder)
    assert len(made.bank.names) == 20 and len(set(made.bank.names)) == 6
    assert measure(encoder_dir, made, 0).swapped.shape == (20, 6)
    for number in range(2, 6):
        (folder / f"{number}.png").unlink()
    with pytest.raises(InvalidRequestError, match="walls has 2 readable photos, but the gate needs 5") as error:
        draw_bank(folder, 20, SIDE, 0)
    assert error.value.field == "backgrounds"
    with pytest.raises(SourceError, match="no such folder"):
        draw_bank(tmp_path / "absent", 20, SIDE, 0)


def test_clean_queries_are_all_other_photos_filled_up_by_other_views(write: Write) -> None:
    """Items with 2, 4 and 6 photos, one of them without a mask, one twice: six views of each."""
    made = made_of(write([2] * 18 + [4, 6, 3], bare=("18-2",), doubled=("20-2",)))
    assert made.truth == "photos" and len(made) == 21
    counts = [[sum(view.variation == 0 for view in views), len(views)] for views in made.views]
    assert counts == [[1, 6]] * 18 + [[3, 6], [5, 6], [1, 6]]
    shown: dict[int, list[bytes]] = {row: [] for row in range(21)}
    for rows, pictures in made.clean():
        for row, picture in zip(rows.tolist(), pictures, strict=True):
            shown[row].append(picture.tobytes())
    assert [len(pictures) for pictures in shown.values()] == [len(views) for views in made.views]
    for row, views in shown.items():
        if row != 18:  # other views of a white photo are white
            assert len(set(views)) == len(views), "a view was shown twice"
        assert made.gallery[row].tobytes() not in views, "what is searched for is what is searched"
        assert views[0] == made.query[row].tobytes()
    assert made.summary().clean_views == 6


def test_items_of_single_photos_are_seen_again(write: Write) -> None:
    made = made_of(write([1] * 9))
    assert made.truth == "views" and {len(views) for views in made.views} == {CLEAN_VIEWS}
    first = next(pictures for _, pictures in made.clean())
    np.testing.assert_array_equal(first, made.query)
    assert (first != made.gallery).any(axis=(1, 2, 3)).all()
    with pytest.raises(InvalidRequestError, match="shop: 7 items can be cut out of their photos, 8 are needed"):
        made_of(write([1] * 7))


def test_pictures_of_all_blocks_are_items_on_the_background(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    made = made_of(write([2] * 20), background_seed=FIRST_SEED + 5)
    blocks = list(made.swapped(3))
    assert [len(block) for block in blocks] == [7, 7, 6]
    pictures = np.concatenate(blocks)
    for row in range(20):
        inside = cv2.erode(made.query_masks[row], np.ones((3, 3), np.uint8)) == 255
        outside = made.query_masks[row] == 0
        np.testing.assert_array_equal(pictures[row][inside], made.query[row][inside])
        np.testing.assert_array_equal(pictures[row][outside], made.bank.pictures[3][outside])


def test_evidence_has_the_map_of_each_product_on_each_background(write: Write, encoder_dir: Path) -> None:
    """Compared with a search for each single background; two items that share a photo are one product."""
    manifest = write([2] * 21)
    (manifest.parent / "05-0.png").write_bytes((manifest.parent / "04-0.png").read_bytes())
    made = made_of(manifest)
    encoder = load_encoder(encoder_dir)
    measured = measure(encoder_dir, made, 3)
    document = measured.to_json()
    assert is_current(document) and not is_current({"swapped": [0.5]})
    assert list(document) == [
        "version", "encoder_id", "family", "set", "swap", "displacement", "background_share", "products",
        "backgrounds", "clean", "swapped",
    ]  # fmt: skip
    again = EncoderEvidence.from_json(json.loads(json.dumps(document)))
    assert document["version"] == VERSION and again.to_json() == document
    evidence = measured.by_product
    assert list(evidence.products) == [f"item {n:02d}" for n in range(21) if n != 5]
    assert evidence.swapped.shape == (20, 20) and evidence.clean.shape == (20,)
    order = np.random.default_rng(3).permutation(21)
    gallery = LabelledVectors(embed_pictures(encoder, made.gallery), made.products)
    for place, name in enumerate(measured.backgrounds):
        number = made.bank.names.index(name)
        z = embed_pictures(encoder, np.concatenate(list(made.swapped(number))))
        found = query_metrics(gallery, LabelledVectors(z, made.products), encoder.metric, order)["map@r"]
        expected = [found[[p == product for p in made.products]].mean() for product in evidence.products]
        np.testing.assert_allclose(evidence.swapped[:, place], expected)
    figure = measured.figures.swap["map@r"]
    assert figure.swapped.value == pytest.approx(evidence.swapped.mean())
    assert figure.clean.value == pytest.approx(evidence.clean.mean())
    assert figure.retention.value == pytest.approx(evidence.swapped.mean() / evidence.clean.mean())
