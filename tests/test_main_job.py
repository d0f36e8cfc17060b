"""The main job by its real commands: draw or take photos, train, index, search, evaluate."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.commands import json_of

SMALL = [
    "--set", "epochs=25", "--set", "preprocessing.size=32", "--set", "model.widths=[16,32,64]",
    "--set", "model.decoder_widths=[64,32,16]",
]  # fmt: skip
CLOTHING = Path(__file__).parents[2] / "shared/data/clothing-validation.tar"


def test_from_drawn_photos_to_answers(tmp_path: Path) -> None:
    shop, home, encoder = tmp_path / "shop", tmp_path / "home", tmp_path / "encoder"
    drawn = json_of("sample-catalogue", "--out", shop, "--items", 45, "--photos-per-item", 2, "--size", 96)
    assert drawn["photos"] == 90
    trained = json_of("train", "vae", "--data", drawn["manifest"], "--out", encoder, "--set", "epochs=2")
    assert (trained["family"], trained["dim"]) == ("vae", 128)
    assert {"weights.safetensors", "encoder.json", "card.json", "encoder.onnx"} <= {p.name for p in encoder.iterdir()}
    indexed = json_of("index", drawn["manifest"], "--home", home, "--encoder", encoder)
    assert (indexed["added"], indexed["rejected"], indexed["encoder_id"]) == (90, 0, trained["encoder_id"])
    photo = next((shop / "images").glob("hat-*-0.jpg"))
    found = json_of("search", photo, "--home", home, "-k", 5, "--filter", "category=hat")
    assert found["results"][0]["item_id"] == photo.stem.removesuffix("-0")
    assert all(hit["attributes"]["category"] == "hat" for hit in found["results"])
    json_of("embed", drawn["manifest"], "--encoder", encoder, "--out", tmp_path / "vectors.npz")
    with np.load(tmp_path / "vectors.npz") as file:
        assert file["vectors"].shape == (90, 128) and file["vectors"].dtype == np.float32
        assert len(file["ids"]) == 90 and str(file["encoder_id"]) == trained["encoder_id"]
    measured = json_of(
        "evaluate", "--gallery", shop / "gallery.csv", "--queries", shop / "queries.csv", "--relevance", "item_id",
        "--encoder", encoder, "hog", "--report", tmp_path / "report.html",
    )  # fmt: skip
    assert list(measured["encoders"]) == [str(encoder), "hog", "pixels", "pca"]
    assert measured["queries"] == measured["gallery"] == 45
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert json_of("generations", "verify", "--home", home)["verified"] == {"1": []}


@pytest.mark.slow
def test_training_learns_what_kind_of_product_it_sees(tmp_path: Path) -> None:
    """A minute of the shipped recipe at 32 px on drawn photos: far above chance on photos of items it never saw."""
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    json_of("sample-catalogue", "--out", seen, "--items", 300, "--photos-per-item", 3, "--seed", 1)
    json_of("sample-catalogue", "--out", unseen, "--items", 150, "--photos-per-item", 2, "--seed", 2)
    encoder = tmp_path / "encoder"
    json_of("train", "vae", "--data", seen / "catalogue.csv", "--out", encoder, *SMALL)
    measured = json_of(
        "evaluate", "--gallery", unseen / "gallery.csv", "--queries", unseen / "queries.csv", "--encoder", encoder
    )
    chance = 10 / 150
    figures = measured["encoders"][str(encoder)]
    assert figures["precision@10"]["ci"][0] > 2 * chance
    assert figures["map"]["value"] > 1.5 * chance


@pytest.mark.slow
@pytest.mark.skipif(not CLOTHING.exists(), reason="the public clothing photos are not beside this checkout")
def test_the_shipped_encoder_on_real_photos(tmp_path: Path) -> None:
    with tarfile.open(CLOTHING) as archive:
        archive.extractall(tmp_path / "photos", filter="data")
    folder = next(path for path in (tmp_path / "photos", *(tmp_path / "photos").iterdir()) if (path / "hat").is_dir())
    report = json_of("index", folder, "--home", tmp_path / "home")
    assert (report["added"], report["rejected"]) == (341, 0)
    assert json_of("index", folder, "--home", tmp_path / "home")["unchanged"] == 341
    measured = json_of("evaluate", "--gallery", folder, "--queries", folder, "--encoder", "default")
    assert measured["identical_pairs_left_out"] == 341
    default, pixels = (measured["encoders"][name] for name in ("default", "pixels"))
    assert default["precision@10"]["value"] > pixels["precision@10"]["value"]
