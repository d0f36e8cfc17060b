"""`benchmarks/ablations.py`: its interval, and a table from training to JSON that is not made twice."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from training.data.studio.catalogue import write_catalogue

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/ablations.py"
TINY = [
    "preprocessing.size=16", "model.widths=[8, 8]", "model.decoder_widths=[8, 8]", "model.latent_dim=8",
    "batch_size=16", "backgrounds.count=8", "pictures_every=9",
]  # fmt: skip


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module
    spec.loader.exec_module(module)
    return module


def test_the_interval_of_a_difference_by_hand(ablations: ModuleType) -> None:
    """Seeds gain .1 and .3, items .1 and .3: SE^2 = 2 * .02 / 2, one degree of freedom each, so two together."""
    values = np.array([[0.0, 0.2], [0.2, 0.4]])
    found = ablations.difference(values, np.zeros((2, 2)))
    half = 4.302653 * 0.02**0.5
    assert found == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-6)


def test_the_interval_of_one_seed_is_over_items_and_of_equal_runs_a_point(ablations: ModuleType) -> None:
    found = ablations.difference(np.array([[0.0, 0.2, 0.4]]), np.zeros((1, 3)))
    half = 4.302653 * (0.04 / 3) ** 0.5
    assert found == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-6)
    assert ablations.difference(np.ones((2, 3)), np.ones((2, 3))) == (0.0, 0.0, 0.0)


def test_the_interval_holds_the_true_difference(ablations: ModuleType) -> None:
    """Crossed effects of 3 seeds and 60 items, and noise: at least 93 % of 400 intervals hold the truth."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        gained = 0.1 + 0.05 * rng.normal(size=(3, 1)) + 0.3 * rng.normal(size=(1, 60)) + 0.3 * rng.normal(size=(3, 60))
        found = ablations.difference(gained, np.zeros((3, 60)))
        held += found.low <= 0.1 <= found.high
    assert held >= 0.93 * 400


def test_queries_with_nothing_to_find_take_no_part(ablations: ModuleType) -> None:
    assert ablations.by_item(["a", "b", "a", "c"], np.array([1.0, 0.5, 0.0, np.nan])) == {"a": 0.5, "b": 0.5}


@pytest.mark.soak
def test_a_table_from_training_to_json_that_is_not_made_twice(
    ablations: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_catalogue(tmp_path / "shop", items=24, photos_per_item=2, size=48, processes=0)
    out = tmp_path / "out"
    arguments = ["--data", str(manifest), "--out", str(out), "--seeds", "0", "1", "--epochs", "2", "--device", "cpu"]
    arguments += ["--only", "teacher", "--swap", str(manifest)]
    arguments += ["--category", f"shop={manifest},{manifest}", "--items", f"shop={manifest},{manifest}"]
    arguments += [part for setting in TINY for part in ("--set", setting)]

    def printed(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ablations.py", *arguments, *more])
        ablations.main()
        return capsys.readouterr().out

    first = printed()
    assert first.count("2 epochs, at most any minutes") == 4
    document = json.loads((out / "ablations.json").read_text())
    assert list(document) == ["baseline", "teacher"] and document["teacher"]["seeds"] == [0, 1]
    figures = document["teacher"]["figures"]
    assert set(figures) == {
        "shop: P@10", "shop: MAP", "shop: recall@1", "catalogue: clean recall@1", "catalogue: swapped recall@1",
    }  # fmt: skip
    gained, base = figures["shop: MAP"]["difference"], document["baseline"]["figures"]["shop: MAP"]["mean"]
    assert gained["value"] == pytest.approx(figures["shop: MAP"]["mean"] - base, abs=1e-9)
    assert gained["low"] <= gained["value"] <= gained["high"]
    weights = out / "teacher" / "seed-1" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert printed() in first and weights.stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="was trained with other settings; choose another --out"):
        printed("--set", "model.latent_dim=4")
