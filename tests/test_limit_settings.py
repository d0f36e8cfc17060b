"""One limit of pixels for every command and for the server: NITAMONO_MAX_PIXELS."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.cli import main
from service.settings import load_settings
from tests.conftest import draw_photo, write_photos
from training.data.decode import ImageLimits

Run = Callable[..., tuple[int, str, str]]
REASON = "the image is 200 x 100 pixels; the limit is 15000 pixels in total (set NITAMONO_MAX_PIXELS to raise it)"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process; returns its status, output and messages."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nitamono", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(str(stop.value.code)), printed.out, printed.err

    return call


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Nine photos of 12,288 pixels and one of 20,000."""
    folder = write_photos(tmp_path / "shop", 9)
    draw_photo(1, (200, 100)).save(folder / "large.jpg")
    return folder


def test_the_setting_applies_to_every_command(
    run: Run, shop: Path, encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NITAMONO_MAX_PIXELS", "15000")
    home = ("--home", tmp_path / "home")
    _, out, _ = run("index", shop, "--encoder", encoder_dir, "--processes", 0, "--json", *home)
    assert (json.loads(out)["added"], json.loads(out)["rejected"]) == (9, 1)
    _, out, _ = run("rejects", "list", "--json", *home)
    assert [reject["reason"] for reject in json.loads(out)["rejects"]] == [REASON]
    status, _, err = run("search", shop / "large.jpg", *home)
    assert status == 1 and REASON in err
    _, out, _ = run("embed", shop, "--encoder", encoder_dir, "--out", tmp_path / "v.npz", "--json")
    assert [reject["reason"] for reject in json.loads(out)["rejected"]] == [REASON]
    sources = ("--gallery", shop, "--queries", shop, "--relevance", "item_id", "--no-baselines")
    _, out, err = run("evaluate", *sources, "--encoder", encoder_dir, "--json")
    assert REASON in out + err

    monkeypatch.setenv("NITAMONO_MAX_PIXELS", "20000")
    _, out, _ = run("index", shop, "--processes", 0, "--json", *home)
    assert (json.loads(out)["updated"], json.loads(out)["rejected"]) == (1, 0)
    status, out, _ = run("search", shop / "large.jpg", "-k", 1, *home)
    assert status == 0 and "large.jpg" in out


def test_a_wrong_setting_is_one_clear_line(run: Run, shop: Path, encoder_dir: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NITAMONO_MAX_PIXELS", "100 megapixels")
        status, _, err = run("index", shop, "--encoder", encoder_dir, "--processes", 0, "--home", tmp_path / "home")
    assert status == 1
    assert "NITAMONO_MAX_PIXELS: '100 megapixels' is not a whole number of at least 4096" in err.splitlines()[-1]


def test_the_server_and_the_commands_have_the_same_defaults() -> None:
    settings = load_settings()
    assert ImageLimits() == ImageLimits(settings.max_upload_bytes, settings.max_pixels)
