"""Imported and fused encoders through everything that other encoders go through, by the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.encoders.fusion_weights import choose_weights, grid
from service.cli import main
from tests.conftest import save_pixels_encoder
from tests.indexer.retrain.shop import write_shop
from tests.training.onnx.graphs import DIM, save, vector_graph
from tests.training.onnx.test_importing import BAD
from training.data import reader
from training.onnx.importing import ImportRequest, import_onnx
from training.reference import describe_encoder

SHOP_ITEMS = 64
TEN = (
    "truncated", "two-outputs", "dynamic-rank", "float64-input", "external-above", "custom-op", "3-GB-initializer",
    "nan", "depends-on-the-batch", "not-onnx",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few photos are read in this process."""
    monkeypatch.setattr(reader, "INLINE", 1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop, other photos of the same kind, a graph, and the encoder made of it."""
    folder = tmp_path_factory.mktemp("imported")
    write_shop(folder / "shop", SHOP_ITEMS)
    save(vector_graph(), folder / "net.onnx")
    import_onnx(folder / "net.onnx", folder / "net", ImportRequest(trained_from="ImageNet labels"))
    save_pixels_encoder(folder / "pixels", 16)
    return folder


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*arguments: str, status: int = 0, home: bool = False) -> Any:
        monkeypatch.setattr(
            sys, "argv", ["nitamono", *arguments, *(["--home", str(folder / "home")] if home else []), "--json"]
        )
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert stop.value.code == status, printed.err
        return json.loads(printed.out) if status == 0 else printed.err

    return run


@pytest.mark.parametrize("name", TEN)
def test_the_command_refuses_a_bad_file_with_one_line_and_status_1(
    name: str, call: Callable[..., Any], tmp_path: Path
) -> None:
    make, options, _ = BAD[name]
    file = save(make(), tmp_path / "bad.onnx")
    arguments = []
    for option, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments += [f"--{option}", text]
    error = call("encoders", "import", str(file), "--out", str(tmp_path / "out"), *arguments, status=1)
    assert error.startswith(f"nitamono: {file}: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--mean", "a,b"), "--mean 'a,b': expected comma-separated numbers"),
        (("--std", ""), "--std '': expected comma-separated numbers"),
    ],
)
def test_numbers_that_are_none_are_named(
    arguments: tuple[str, ...], reason: str, call: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    error = call("encoders", "import", str(folder / "net.onnx"), "--out", str(tmp_path / "o"), *arguments, status=1)
    assert reason in error and error.count("\n") == 1
    assert "nowhere.onnx: no such file" in call(
        "encoders", "import", "nowhere.onnx", "--out", str(tmp_path / "o"), status=1
    )


def test_an_imported_encoder_goes_through_everything(call: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    out, shop = str(tmp_path / "by-command"), str(folder / "shop" / "shop.csv")
    made = call(
        "encoders", "import", str(folder / "net.onnx"), "--out", out, "--mean", ".5", "--std", ".25,.25,.25",
        "--size", "16", "--metric", "cosine", "--trained-from", "ImageNet labels", "--licence", "Apache-2.0",
    )  # fmt: skip
    assert made["card"]["licence"] == "Apache-2.0" and made["dim"] == DIM
    indexed = call("index", shop, "--encoder", out, home=True)
    assert indexed["added"] == 2 * SHOP_ITEMS
    hits = call("search", str(folder / "shop" / "007-1.png"), "-k", "5", home=True)["results"]
    assert hits[0]["item_id"] == "item-007" and hits[0]["score"] == pytest.approx(1, abs=1e-5)
    listed = call("encoders", "list", home=True)["encoders"]
    own = next(entry for entry in listed if not entry["shipped"])
    assert (own["encoder_id"], own["trained_from"]) == (made["encoder_id"], "ImageNet labels")
    shown = call("encoders", "show", made["encoder_id"][:8], home=True)
    assert shown["trained_from"] == "ImageNet labels" and shown["sizes"]["parameters"] == DIM * 3 * 16
    calibrated = call("calibrate", home=True)
    assert calibrated["pairs"] > 0
    drifted = call("drift", "--new", shop, home=True)
    assert drifted["drifted"] is False
    with Home.open(folder / "home") as home:
        kept = home.encoder(made["encoder_id"])
        assert [record.trained_from for record in home.catalogue.encoders.all()] == ["ImageNet labels"]
    assert {path.name for path in kept.directory.iterdir()} == {"encoder.onnx", "encoder.json", "card.json"}


def test_an_imported_encoder_is_measured_beside_others(call: Callable[..., Any], folder: Path) -> None:
    net, pixels, shop = str(folder / "net"), str(folder / "pixels"), str(folder / "shop" / "shop.csv")
    found = call(
        "evaluate", "--gallery", shop, "--queries", shop, "--relevance", "item_id", "--no-baselines",
        "--encoder", net, pixels,
    )["encoders"]  # fmt: skip
    assert found[net]["family"] == "onnx" and 0 < found[net]["map"]["value"] < 1
    assert found[pixels]["difference_to_first"]["map"]["value"] != 0
    compared = call("compare", "--data", shop, "--items", "10", "--per-item", "2", "--no-baselines", "--encoder", net)
    assert compared["encoders"][net]["dim"] == DIM


@pytest.mark.slow
def test_an_active_imported_encoder_is_what_a_retraining_has_to_beat(
    call: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    net = str(folder / "net")
    call("index", str(folder / "shop" / "shop.csv"), "--encoder", net, "-c", "judged", home=True)
    document = call(
        "retrain", "-c", "judged", "--recipes", "pca", "--set", "preprocessing.size=8", "--set", "model.components=4",
        "--held-out", ".4", "--nice", "0", home=True,
    )  # fmt: skip
    assert document["decision"]["active"]["encoder_id"] == describe_encoder(net).encoder_id
    assert document["decision"]["active"]["family"] == "onnx"


def test_a_fusion_with_given_weights_is_searched(call: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "fusion")
    made = call("encoders", "fuse", str(folder / "net"), str(folder / "pixels"), "--weights", "3,1", "--out", out)
    assert made["weights"] == [0.75, 0.25] and made["choice"] is None
    call("index", str(folder / "shop" / "shop.csv"), "--encoder", out, "-c", "fused", home=True)
    hits = call("search", str(folder / "shop" / "011-0.png"), "-c", "fused", home=True)["results"]
    assert hits[0]["item_id"] == "item-011"


def test_weights_are_chosen_on_some_items_and_reported_on_others(
    call: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    shop, out = str(folder / "shop" / "shop.csv"), str(tmp_path / "fusion")
    refs = (str(folder / "net"), str(folder / "pixels"))
    made = call("encoders", "fuse", *refs, "--choose-on", shop, "--out", out)
    choice = made["choice"]
    assert choice["weights"] == made["weights"] == describe_encoder(out).config["weights"]
    assert choice["chosen_on"]["items"] + choice["reported_on"]["items"] == SHOP_ITEMS
    assert made["card"]["figures"] == choice
    low, high = choice["value"]["ci"]
    assert low <= choice["value"]["value"] <= high
    alone = {name: figure["value"] for name, figure in choice["parts"].items()}
    best = choice["best_part"]
    assert alone[best] == max(alone.values()) and set(alone) == set(refs)
    told = choice["value"]["value"] - alone[best]
    assert choice["difference_to_best_part"]["value"] == pytest.approx(told, abs=1e-9)


def test_chosen_weights_are_those_of_the_highest_map_at_r(folder: Path) -> None:
    """By hand: the fusion's own vectors at every point of the grid, on the half that weights are chosen on."""
    import numpy as np
    import torch

    from indexer.encoders.fusion_weights import read_items
    from indexer.vectors import Floats
    from training.console import Progress
    from training.fusing import fuse

    refs = [folder / "net", folder / "pixels"]
    fusion = fuse(refs)
    silent = Progress(lambda count: None, lambda count: None)
    images = read_items(folder / "shop" / "shop.csv", fusion.preprocessing, 1000, 0, silent)
    choice = choose_weights(fusion, ["net", "pixels"], images, "item_id")

    items = np.array([image.item_id for image in images.images])
    first = set(np.random.default_rng([0, 2]).permutation(sorted(set(items.tolist())))[: SHOP_ITEMS // 2].tolist())

    def map_at_r(weights: tuple[float, ...], rows: list[int]) -> float:
        vectors: Floats = fuse(refs, weights).encode(torch.from_numpy(images.pixels[rows])).numpy()
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -1)
        return float(np.mean(items[rows][scores.argmax(axis=1)] == items[rows]))  # of two photos, R is 1

    chosen = [row for row, item in enumerate(items) if item in first]
    others = [row for row, item in enumerate(items) if item not in first]
    values = {weights: map_at_r(weights, chosen) for weights in grid(2)}
    assert choice.chosen_value == pytest.approx(max(values.values())) == pytest.approx(values[choice.weights])
    assert min(values.values()) < max(values.values())
    assert choice.fusion.value == pytest.approx(map_at_r(choice.weights, others))


def test_the_grid_has_every_combination_of_tenths_once() -> None:
    assert list(grid(2)) == [(n / 10, (10 - n) / 10) for n in range(1, 10)]
    assert len(set(grid(3))) == len(list(grid(3))) == 36
    assert all(sum(weights) == pytest.approx(1) and min(weights) > 0 for weights in grid(4))


def test_what_weights_cannot_be_chosen_on_is_said(call: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    refs, out = (str(folder / "net"), str(folder / "pixels")), str(tmp_path / "out")
    few = write_shop(tmp_path / "few", 5)
    fuse = ("encoders", "fuse", *refs, "--out", out)
    assert "5 items are too few to choose weights; give 8 or more" in call(*fuse, "--choose-on", str(few), status=1)
    rows = (folder / "shop" / "shop.csv").read_text().splitlines()
    (folder / "shop" / "single.csv").write_text("\n".join([rows[0], *rows[1::2]]) + "\n")
    single = folder / "shop" / "single.csv"
    assert "no photo has a relevant other photo" in call(*fuse, "--choose-on", str(single), status=1)
    assert "no image of the queries has 'category'" in call(
        *fuse, "--choose-on", str(single), "--relevance", "category", status=1
    )
    assert "either --weights or --choose-on" in call(*fuse, status=2)
    assert "--weights 'a,1': expected comma-separated numbers" in call(*fuse, "--weights", "a,1", status=1)
    assert not Path(out).exists()
