"""`nitamono encoders show` and `GET /v1/encoders` read the same card and calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from indexer.calibrate.calibrate import calibrate
from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from service.app import create_app
from service.cli import app
from service.settings import Settings
from tests.conftest import write_photos
from tests.service.conftest import running
from training.reference import describe_encoder, read_json


@pytest.fixture
def indexed(home: Home, tmp_path: Path, encoder_dir: Path) -> str:
    """Sixty items, enough to calibrate; returns the encoder's id."""
    shop = write_photos(tmp_path / "shop", 60, categories=("all",))
    index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    return describe_encoder(encoder_dir).encoder_id


def shown(home: Home, ref: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["encoders", "show", ref, "--home", str(home.path), "--json"])
    assert done.exit_code == 0, done.output
    card: dict[str, Any] = json.loads(done.stdout)["card"]
    return card


def served(home: Home, encoder_id: str) -> dict[str, Any]:
    with running(create_app(Settings(home=home.path))) as url:
        listed = httpx.get(f"{url}/v1/encoders", timeout=30).json()["encoders"]
    card: dict[str, Any] = next(entry["card"] for entry in listed if entry["encoder_id"] == encoder_id)
    return card


def stored(home: Home, encoder_id: str) -> dict[str, Any] | None:
    return home.catalogue.calibrations.get(home.catalogue.collection_id("default"), encoder_id)


def test_both_show_an_amended_card_with_the_calibration_that_searches_use(home: Home, indexed: str) -> None:
    assert stored(home, indexed) is not None
    assert shown(home, indexed[:12]) == served(home, indexed)
    evaluation = {"set": {"items": 60}}
    home.amend_card(indexed, evaluation=evaluation, calibration=stored(home, indexed))  # as a retraining does
    for present in (None, 0.5):
        calibrate(home, "default", present=present)
        card = shown(home, indexed[:12])
        assert card == served(home, indexed)
        assert card["evaluation"] == evaluation
        assert card["calibration"] == json.loads(json.dumps(stored(home, indexed)))
    assert card["calibration"]["present"] == 0.5


def test_a_card_that_only_the_directory_has_reaches_the_catalogue_with_the_next_index(
    home: Home, tmp_path: Path, indexed: str, encoder_dir: Path
) -> None:
    path = home.encoder_directory(indexed) / "card.json"
    path.write_text(json.dumps({**read_json(path), "evaluation": {"set": {}}}))  # as earlier versions left it
    index_source(home, "default", tmp_path / "shop", encoder_ref=str(encoder_dir), processes=0)
    assert shown(home, indexed[:12]) == served(home, indexed)
    assert served(home, indexed)["evaluation"] == {"set": {}}


def test_a_shipped_encoder_is_shown_with_the_card_of_the_copy_in_the_home(home: Home) -> None:
    described = describe_encoder("pixels")
    home.add_encoder(described)
    home.amend_card(described.encoder_id, evaluation={"set": {}})
    assert shown(home, "pixels") == shown(home, described.encoder_id[:12]) == served(home, described.encoder_id)
    assert shown(home, "pixels")["evaluation"] == {"set": {}}
    assert "evaluation" not in describe_encoder("pixels").card
