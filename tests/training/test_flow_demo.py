"""`nitamono demo-flow` as people run it, and the parts that it is made of."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from service.cli import main
from training.double_moon import NOISE, double_moon, log_density
from training.fitting.density import DensitySettings, fit_density, held_out_nats
from training.fitting.pictures import encode_gif
from training.flow_pictures import (
    BETWEEN,
    HELD,
    SIDE,
    Window,
    draw_density,
    draw_points,
    forward_frames,
    inverse_frames,
)
from training.layers.vector_flow import VectorFlow, VectorFlowConfig


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["nitamono", "demo-flow", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.slow
def test_demo_flow_trains_and_writes_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "flow"
    options = ["--steps", 3, "--hidden", 16, "--epochs", 4, "--points", 4000, "--actnorm", "--permutation", "1x1"]
    assert run(monkeypatch, "--out", out, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in out.iterdir()) == ["density.png", "forward.gif", "inverse.gif", "samples.png"]
    assert document["files"]["forward.gif"] == str(out / "forward.gif")
    assert document["true_nats"] < document["nats"] == min(document["curve"]) < document["curve"][0]
    assert document["nats"] < 1.9, "a Gaussian of the same mean and covariance has 1.9"
    for name, steps in (("forward.gif", 3), ("inverse.gif", 3)):
        with Image.open(out / name) as animation:
            assert animation.size == (SIDE, SIDE) and animation.info["loop"] == 0
            frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
        # GIF merges frames that are alike, as those of a held end are
        assert BETWEEN * steps <= len(frames) <= BETWEEN * steps + 2 * HELD
        assert not np.array_equal(frames[0], frames[-1])
    for name in ("density.png", "samples.png"):
        with Image.open(out / name) as picture:
            assert picture.size == (2 * SIDE, SIDE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--permutation", "none"], "permutation must be reverse or random or 1x1, not 'none'"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_demo_flow_says_what_it_cannot_do(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert run(monkeypatch, "--out", tmp_path, *options) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.strip().count("\n") == 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--steps", 2, "--hidden", 8, "--epochs", 1, "--points", 500]
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(monkeypatch, "--out", tmp_path / name, *options, "--seed", seed) == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1] != contents[2]


def test_the_density_of_the_double_moon_integrates_to_one_and_is_that_of_its_points() -> None:
    side = torch.linspace(-2.0, 3.0, 250, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    density = log_density(grid).exp()
    cell = float(side[1] - side[0]) ** 2
    assert float(density.sum()) * cell == pytest.approx(1.0, abs=1e-4)
    points = double_moon(40_000, torch.Generator().manual_seed(0))
    drawn = points.x.double()
    torch.testing.assert_close(drawn.mean(dim=0), (grid * density[:, None]).sum(dim=0) * cell, atol=0.02, rtol=0)
    for low, high in ((-1.5, -0.5), (-0.5, 0.5), (0.5, 1.5)):
        within = (grid[:, 0] >= low) & (grid[:, 0] < high) & (grid[:, 1] > 0.25)
        share = ((drawn[:, 0] >= low) & (drawn[:, 0] < high) & (drawn[:, 1] > 0.25)).double().mean()
        assert float(share) == pytest.approx(float(density[within].sum()) * cell, abs=0.01)
    radius = drawn[points.moon == 0].norm(dim=1)
    assert float(radius.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(radius.std()) == pytest.approx(NOISE, rel=0.05)


@pytest.mark.slow
def test_a_fit_keeps_the_best_epoch_on_the_held_out_points() -> None:
    torch.manual_seed(0)
    noise = torch.Generator().manual_seed(0)
    train, held_out = (double_moon(count, noise).x for count in (60, 2000))  # few points: it learns them by heart
    flow = VectorFlow(VectorFlowConfig(steps=6, hidden=(64, 64)))
    told: list[int] = []
    fit = fit_density(flow, train, held_out, DensitySettings(epochs=60, batch_size=20, lr=1e-2), told.append)
    assert told == [1] * 60 == [1] * len(fit.curve)
    assert min(fit.curve) == fit.nats < fit.curve[-1] - 0.1
    assert held_out_nats(flow, held_out) == pytest.approx(fit.nats, abs=1e-6)
    assert not flow.training


def test_frames_start_and_end_where_the_points_do() -> None:
    torch.manual_seed(0)
    flow = VectorFlow(VectorFlowConfig(steps=2, hidden=(8,), permutation="random", actnorm=True))
    points = double_moon(50, torch.Generator().manual_seed(0))
    flow.train()(points.x)
    flow.eval()
    forward = forward_frames(flow, points.x, points.moon)
    assert len(forward) == 2 * HELD + 2 * BETWEEN
    with torch.no_grad():
        z = flow(points.x).z
    inverse = inverse_frames(flow, z)
    shown = (forward[0], inverse[-1], forward[-1], inverse[0])
    x, again, end, start = ((frame.min(axis=2) < 200)[20:] for frame in shown)
    # The colours of the two animations differ, and with them the edges of the points.
    assert (x != again).sum() < 0.5 * x.sum(), "the inverse of z is not where the points were"
    assert (end != start).sum() < 0.5 * end.sum()
    assert (x != end).sum() > x.sum(), "nothing moved"


def test_points_are_drawn_where_the_window_says() -> None:
    window = Window(torch.tensor([[0.0, 0.0], [4.0, 2.0]]))
    picture = draw_points(torch.tensor([[4.0, 2.0]]), [(1.0, 0.0, 0.0)], window, "")
    rows, columns = np.nonzero(picture[..., 1] < 100)
    x, y = window.pixels(torch.tensor([[4.0, 2.0]]), SIDE)[0].tolist()
    assert abs(columns.mean() + 0.5 - x) < 1 and abs(rows.mean() + 0.5 - y) < 1
    assert x > SIDE / 2 and y < SIDE / 2, "y does not point upwards"
    grid = window.grid(SIDE)
    torch.testing.assert_close(window.pixels(grid, SIDE)[: SIDE + 1].floor()[[0, 1, SIDE]], torch.tensor(
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    ))  # fmt: skip


def test_a_density_is_darkest_where_it_is_highest() -> None:
    density = torch.zeros(SIDE, SIDE).log()
    density[100, 200], density[150, 50] = 0.0, float(np.log(0.2))
    picture = draw_density(density.flatten(), 1.0, "").sum(axis=2).astype(int)
    assert picture[100, 200] == picture.min() < picture[150, 50] < picture[200, 200] == 765


def test_an_animation_has_the_frames_it_was_given() -> None:
    frames = [np.full((8, 10, 3), shade, np.uint8) for shade in (0, 120, 255)]
    with Image.open(io.BytesIO(encode_gif(frames, 70))) as animation:
        found = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
        assert animation.info["duration"] == 70
    assert len(found) == 3 and all(np.array_equal(*pair) for pair in zip(found, frames, strict=True))
