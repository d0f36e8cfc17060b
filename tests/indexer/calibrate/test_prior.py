"""The share of searches for what is there: by simulation, and from queries that a catalogue has stored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from indexer.calibrate.calibrate import calibrate
from indexer.calibrate.prior import LEAST, MIN_RECENT, MOST, estimate_present, share_of
from indexer.catalogue.home import Home
from indexer.errors import CalibrationError
from indexer.ingest.ingest import index_source
from tests.conftest import write_photos
from training.reference import describe_encoder

DIM_NOISE = 0.1


def posteriors(rng: np.random.Generator, count: int, share: float, apart: float) -> np.ndarray:
    """P(there) at a share of 1/2 of scores that are normal about +- apart / 2, as exact as can be."""
    there = rng.random(count) < share
    scores = rng.normal(np.where(there, apart / 2, -apart / 2))
    return 1 / (1 + np.exp(-apart * scores))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_share_is_found_to_within_its_standard_error(share: float) -> None:
    rng = np.random.default_rng(0)
    found = np.array([share_of(posteriors(rng, 400, share, 2.0)) for _ in range(100)])
    assert found[:, 0].mean() == pytest.approx(share, abs=0.01)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.25)


def test_scores_that_tell_nothing_have_no_share() -> None:
    assert share_of(np.full(500, 0.5))[1] == np.inf
    assert share_of(posteriors(np.random.default_rng(0), 200, 0.5, 0.1))[1] > 0.3


def test_no_share_is_all_or_nothing() -> None:
    assert share_of(np.full(200, 0.999))[0] == MOST
    assert share_of(np.full(200, 0.001))[0] == LEAST


def stocked(home: Home, folder: Path, encoder_dir: Path, photos_per_item: int) -> None:
    """Sixty items that the encoder tells apart."""
    shop = write_photos(folder / "shop", 60 * photos_per_item, categories=("all",))
    rows = [f"item-{number // photos_per_item},all/{number:04d}.jpg" for number in range(60 * photos_per_item)]
    (shop / "shop.csv").write_text("\n".join(["item_id,image", *rows]) + "\n")
    index_source(home, "default", shop / "shop.csv", encoder_ref=str(encoder_dir), processes=0)


def test_a_share_needs_queries_and_items_with_several_photos(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    stocked(home, tmp_path, encoder_dir, 1)
    described = describe_encoder(encoder_dir)
    with pytest.raises(CalibrationError, match=f"0 recent queries are stored, {MIN_RECENT} are needed"):
        calibrate(home, "default", present="auto")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(MIN_RECENT, described.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = [(datetime.now(UTC), vector) for vector in vectors]
    home.catalogue.queries.add(1, described.encoder_id, stored, keep=1000)
    with pytest.raises(CalibrationError, match="items with several photos are needed"):
        estimate_present(home, 1, described, queries=100, seed=0)
