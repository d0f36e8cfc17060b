"""When a collection is calibrated, refused or left as it is; stored calibrations and the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import indexer.ingest.ingest
from indexer.calibrate.calibrate import calibrate, calibration_of
from indexer.calibrate.calibration import PRESENT, Calibration, stored_calibration
from indexer.catalogue.home import Home
from indexer.errors import (
    BusyError,
    CalibrationError,
    CorruptError,
    InvalidRequestError,
    MismatchError,
    NotFoundError,
)
from indexer.search.searcher import Searcher
from service.cli import app, main
from tests.conftest import write_photos
from tests.indexer.calibrate.catalogues import found, index, made_up
from training.reference import describe_encoder


def test_a_curve_of_the_score_alone_as_once_stored_is_not_used_and_is_renewed(
    home: Home, tmp_path: Path, encoder_dir: Path
) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    index(home, shop, encoder_dir)
    encoder_id = describe_encoder(encoder_dir).encoder_id
    now = home.catalogue.calibrations.get(1, encoder_id) or {}
    new = ("margin_share", "alone", "ece_first_ci", "ece_first_chance")
    home.catalogue.calibrations.put(1, encoder_id, {name: value for name, value in now.items() if name not in new})
    searcher = Searcher(home)
    assert set(found(home, searcher)) == {None}
    index(home, shop)
    assert home.catalogue.calibrations.get(1, encoder_id) == now
    assert None not in found(home, searcher)


def test_a_calibration_as_once_stored_without_a_share_is_used_and_is_of_the_default(
    home: Home, tmp_path: Path, encoder_dir: Path
) -> None:
    index(home, write_photos(tmp_path / "shop", 60), encoder_dir)
    encoder_id = describe_encoder(encoder_dir).encoder_id
    now = home.catalogue.calibrations.get(1, encoder_id) or {}
    once = {name: value for name, value in now.items() if name not in ("present", "ece_chance")}
    home.catalogue.calibrations.put(1, encoder_id, once)
    stored = stored_calibration(home, 1, encoder_id)
    assert stored is not None and stored.present == PRESENT
    assert stored.ece_chance == pytest.approx(now["ece_chance"], abs=0.01)
    assert None not in found(home, Searcher(home))


@pytest.mark.parametrize("present", [0.0, -0.5, 1.5])
def test_a_share_that_cannot_be_is_refused(home: Home, present: float) -> None:
    home.catalogue.ensure_collection("default")
    with pytest.raises(InvalidRequestError, match=f"above 0 and at most 1, or auto, not {present}"):
        calibrate(home, "default", present=present)


def test_too_few_items_are_indexed_without_and_refused_by_name(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    seconds = index(home, write_photos(tmp_path / "shop", 12), encoder_dir)
    assert seconds["calibrate"] >= 0
    assert set(found(home, Searcher(home))) == {None}
    with pytest.raises(CalibrationError, match="'default' cannot be calibrated: 12 items .* 50 are needed"):
        calibrate(home, "default")


def test_a_refusal_is_remembered_and_harms_nothing(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    """Sixty times the same photo: all one product, with nothing to tell it from."""
    shop = write_photos(tmp_path / "shop", 1, categories=("all",))
    for number in range(1, 60):
        shutil.copy(shop / "all/0000.jpg", shop / f"all/{number:04d}.jpg")
    index(home, shop, encoder_dir)
    tried = home.catalogue.search_state("default").calibrated_at
    assert tried is not None
    assert set(found(home, Searcher(home))) == {None}
    index(home, shop)
    assert home.catalogue.search_state("default").calibrated_at == tried
    with pytest.raises(CalibrationError, match="600 of 600 pairs are of the same product; 20 of each kind are needed"):
        calibrate(home, "default")


def test_a_busy_catalogue_leaves_the_index_in_service_and_the_calibration_due(
    home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise BusyError("the catalogue is being written by another process")

    shop = write_photos(tmp_path / "shop", 60)
    with monkeypatch.context() as held:
        held.setattr(home.catalogue.calibrations, "put", busy)
        index(home, shop, encoder_dir)
    assert set(found(home, Searcher(home))) == {None}
    index(home, shop)
    assert None not in found(home, Searcher(home))


def test_a_collection_is_calibrated_once_and_again_when_it_has_doubled(
    home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    with monkeypatch.context() as killed:
        killed.setattr(indexer.ingest.ingest, "calibrate_if_due", lambda *_, **__: None)
        index(home, shop, encoder_dir)
    searcher = Searcher(home)
    assert set(found(home, searcher)) == {None}
    index(home, shop)  # nothing has changed, but what was not done before is made up for
    assert None not in found(home, searcher), "a searcher that was open already does not see it"
    first = home.catalogue.search_state("default").calibrated_at
    for count, again in ((110, False), (120, True)):
        index(home, write_photos(tmp_path / "shop", count))
        assert (home.catalogue.search_state("default").calibrated_at != first) is again
    assert (home.catalogue.calibrations.get(1, str(home.catalogue.search_state("default").encoder_id)) or {})[
        "images"
    ] == 120


def test_another_encoders_calibration_is_never_used(
    home: Home, tmp_path: Path, encoder_dir: Path, other_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    index(home, shop, encoder_dir)
    old, new = describe_encoder(encoder_dir), describe_encoder(other_encoder_dir)
    searcher = Searcher(home)
    assert None not in found(home, searcher)
    with pytest.raises(MismatchError, match="60 images of 'default' lack a vector by encoder"):
        calibrate(home, "default", encoder_id=new.encoder_id)
    monkeypatch.setattr(indexer.ingest.ingest, "calibrate_if_due", lambda *_, **__: None)
    index(home, shop, other_encoder_dir)
    assert set(found(home, searcher)) == {None}
    assert calibrate(home, "default", encoder_id=old.encoder_id).encoder_id == old.encoder_id
    assert set(found(home, searcher)) == {None}
    assert calibrate(home, "default").encoder_id == new.encoder_id
    assert None not in found(home, searcher)


def test_a_calibration_comes_back_from_json_as_it_was() -> None:
    calibration = calibration_of(made_up(), "e" * 64)
    document = json.loads(json.dumps(calibration.to_json()))
    assert Calibration.from_json(document) == calibration
    assert (document["kind"], document["truth"], document["pairs"]) == (calibration.kind, "photos", 600)
    for name in document:
        with pytest.raises(CorruptError, match="run `nitamono calibrate`"):
            Calibration.from_json({key: value for key, value in document.items() if key != name})


def test_pairs_of_one_kind_alone_are_refused() -> None:
    pairs = made_up()
    none = replace(pairs, labels=pairs.scores > 2)
    with pytest.raises(CalibrationError, match="0 of 600 pairs are of the same product"):
        calibration_of(none, "e")


def test_the_catalogue_keeps_the_last_calibration_of_each_encoder(any_home: Home, encoder_dir: Path) -> None:
    described = describe_encoder(encoder_dir)
    any_home.add_encoder(described)
    collection_id = any_home.catalogue.ensure_collection("default")
    assert any_home.catalogue.calibrations.get(collection_id, described.encoder_id) is None
    for content in ({"images": 1, "knots": [[0.5, 0.25]]}, {"images": 2}):
        any_home.catalogue.calibrations.put(collection_id, described.encoder_id, content)
        assert any_home.catalogue.calibrations.get(collection_id, described.encoder_id) == content
    assert any_home.catalogue.calibrations.get(collection_id, "other") is None


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_the_command_says_what_was_found_or_what_is_missing(
    home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["nitamono", *command, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit, match="1"):
            main()
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        return err

    command = ("calibrate", "--home", str(home.path))
    home.catalogue.ensure_collection("default")
    with pytest.raises(NotFoundError, match="no index yet"):
        calibrate(home, "default")
    index(home, write_photos(tmp_path / "shop", 12), encoder_dir)
    assert "50 are needed" in refused()
    index(home, write_photos(tmp_path / "shop", 60))
    done = CliRunner().invoke(app, [*command, "--json"])
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["collection"], document["truth"], document["queries"]) == ("default", "views", 60)
    shown = {"kind", "pairs", "positives", "ece", "ece_ci", "ece_chance", "ece_first_ci", "knots", "margin_share"}
    assert shown <= document.keys() and document["present"] == PRESENT
    half = json.loads(CliRunner().invoke(app, [*command, "--json", "--present", "0.5"]).stdout)
    assert half["present"] == 0.5
    for wrong, told in (
        ("most", "'most' must be a fraction such as 0.8, or auto"),
        ("auto", "0 recent queries are stored"),
    ):
        assert told in refused("--present", wrong)


def test_indexing_what_has_not_changed_loads_nothing_to_calibrate_with(
    home: Home, tmp_path: Path, encoder_dir: Path
) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    index(home, shop, encoder_dir)
    code = (
        "import sys; from pathlib import Path; from indexer.catalogue.home import Home\n"
        "from indexer.ingest.ingest import index_source\n"
        f"with Home.open({str(home.path)!r}) as home:\n"
        f"    report = index_source(home, 'default', Path({str(shop)!r}))\n"
        "print(report.unchanged, *sorted({'torch', 'sklearn', 'scipy', 'cv2', 'faiss'} & set(sys.modules)))"
    )
    assert run("-c", code).stdout.split() == ["60"]
