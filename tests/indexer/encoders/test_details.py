"""`nitamono encoders`: what is listed, shown and compared, and that no weights are loaded for the first two."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.encoders.details import count_numbers, find_encoder, flat, sizes
from service.cli import main
from training.encoder import load_encoder
from training.errors import EncoderError
from training.reference import describe_encoder, pretrained_names


@pytest.fixture
def call(
    home: Home, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    home.add_encoder(describe_encoder(encoder_dir))

    def run(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["nitamono", "encoders", *arguments, "--home", str(home.path)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert stop.value.code == 0, printed.err
        return json.loads(printed.out) if "--json" in arguments else printed.out

    return run


def test_the_list_has_shipped_encoders_with_one_default_and_those_of_the_home(
    call: Callable[..., Any], encoder_dir: Path, home: Home
) -> None:
    listed = call("list", "--json")["encoders"]
    assert [entry["name"] for entry in listed if entry["shipped"]] == pretrained_names()
    assert [entry["default"] for entry in listed].count(True) == 1
    own = next(entry for entry in listed if not entry["shipped"])
    described = describe_encoder(encoder_dir)
    assert own["encoder_id"] == described.encoder_id
    assert (own["family"], own["dim"], own["metric"], own["name"]) == ("pixels", 768, "cosine", "pixels")
    assert describe_encoder(own["ref"]).encoder_id == described.encoder_id
    assert len(call("list").splitlines()) == len(listed)


def test_showing_tells_description_sizes_recipe_and_figures(call: Callable[..., Any]) -> None:
    shown = call("show", "label-free", "--json")
    encoder = load_encoder("label-free")
    assert shown["encoder_id"] == encoder.encoder_id
    assert shown["sizes"]["parameters"] == sum(t.numel() for t in encoder.model.state_dict().values())
    text = call("show", "label-free")
    for part in (encoder.card["description"], "parameters", "recipe", "epochs", "figures", "validation.elbo"):
        assert part in text


def test_an_encoder_is_found_by_the_beginning_of_its_id(
    call: Callable[..., Any], encoder_dir: Path, home: Home
) -> None:
    for ref in (str(encoder_dir), "hog"):
        encoder_id = describe_encoder(ref).encoder_id
        assert call("show", encoder_id[:8], "--json")["encoder_id"] == encoder_id
    for ref in ("0" * 8, "abc"):
        with pytest.raises(EncoderError, match="no such encoder"):
            find_encoder(ref, home.path)


@pytest.mark.slow
def test_comparing_sets_settings_figures_sizes_and_speed_side_by_side(
    call: Callable[..., Any], encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.encoders.details.RUN_SECONDS", 0.01)
    refs = ["robust-vae-64", "hog", str(encoder_dir)]
    found = call("compare", *refs, "--json")
    rows = found["rows"]
    assert found["encoders"] == refs
    assert rows["dim"] == {"robust-vae-64": describe_encoder("robust-vae-64").dim, "hog": 1764, refs[2]: 768}
    assert rows["config.latent_dim"] == {
        "robust-vae-64": describe_encoder("robust-vae-64").config["latent_dim"],
        "hog": None,
        refs[2]: None,
    }
    assert rows["figures.validation.elbo"]["robust-vae-64"] < 0
    described = describe_encoder("robust-vae-64")
    assert rows["data.images"] == {"robust-vae-64": described.card["data"]["images"], "hog": None, refs[2]: None}
    assert rows["megabytes"]["robust-vae-64"] == round(
        sum(n for name, n in sizes(described).items() if "." in name) / 1e6, 3
    )
    assert all(speed > 10 for speed in rows["images_per_second"].values())
    kinds = [name.split(".")[0] for name in rows if "." in name]
    assert kinds == sorted(kinds, key=["config", "preprocessing", "data", "figures"].index)
    table = call("compare", *refs).splitlines()
    assert len(table) == len(rows) + 1


@pytest.mark.parametrize("arguments", [["list"], ["show", "robust-vae-64"]])
def test_listing_and_showing_load_no_torch(arguments: list[str], home: Home) -> None:
    code = (
        "import sys; from service.cli import app\n"
        f"try: app({['encoders', *arguments, '--home', str(home.path)]!r})\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not set(sys.modules) & {'torch', 'faiss', 'onnxruntime'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for data in (b"", b"junk", b"\xff" * 20, (4).to_bytes(8, "little") + b"true"):
        path.write_bytes(data)
        with pytest.raises(EncoderError, match="not a safetensors file"):
            count_numbers(path)
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert count_numbers(path) == 0


def test_figures_are_flattened_to_a_depth() -> None:
    figures = {"a": 1, "train": {"elbo": -2.0, "more": {"deep": 3}}, "long": list(range(9)), "short": [1, 2]}
    assert dict(flat(figures)) == {"a": 1, "train.elbo": -2.0, "short": [1, 2]}
