"""Drawings for tests: circles, squares and crosses that differ a little from each other, and an encoder of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from training.sketches.reading import SourceDrawing
from training.sketches.sheets import drawing_svg
from training.sketches.strokes import Strokes

KINDS = ("circle", "square", "cross")


def make_strokes(kind: str, seed: int) -> Strokes:
    """One drawing of a kind."""
    random = np.random.default_rng(seed)
    angles = np.linspace(0.0, 2.0 * math.pi, 17)
    shapes = {
        "circle": [np.column_stack([np.cos(angles), np.sin(angles)])],
        "square": [np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])],
        "cross": [np.array([[-1.0, -1.0], [1.0, 1.0]]), np.array([[1.0, -1.0], [-1.0, 1.0]])],
    }
    turn = random.uniform(-0.2, 0.2)
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    stretch = random.uniform(20.0, 40.0, size=2)
    return [(stroke + random.normal(0.0, 0.05, stroke.shape)) @ matrix * stretch for stroke in shapes[kind]]


def make_drawings(count: int, seed: int = 0) -> list[SourceDrawing]:
    """Drawings of all kinds by turns, with the kind as category."""
    found = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        strokes = make_strokes(kind, 1000 * seed + number)
        found.append(SourceDrawing(f"{kind}-{number}", strokes, {"category": kind}, f"drawing {number}"))
    return found


def write_ndjson(path: Path, drawings: list[SourceDrawing]) -> Path:
    """The drawings in QuickDraw's format."""
    lines = [
        json.dumps({"word": each.category, "key_id": each.item_id, "drawing": [s.T.tolist() for s in each.strokes]})
        for each in drawings
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def draw_shape(number: int) -> Strokes:
    """A drawing of the kind `KINDS[number % 3]`, a little different for each number."""
    return make_strokes(KINDS[number % len(KINDS)], number)


def svg_of(strokes: Strokes) -> bytes:
    """A drawing as an SVG file."""
    return drawing_svg(strokes).encode()


def write_shapes(folder: Path, count: int) -> Path:
    """`count` SVG files, `folder/KIND/NNNN.svg`."""
    for number in range(count):
        path = folder / KINDS[number % len(KINDS)] / f"{number:04d}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(svg_of(draw_shape(number)))
    return folder


def train_on_shapes(out: Path) -> Path:
    """Train a small `sketch-rnn` on 240 shapes and return its directory, in about 20 s."""
    import torch

    from training.recipes import load_recipe
    from training.sketches.fit import train_on_drawings

    small = [
        "drawings={longest: 20, scale: 0, drop: 0}", "objective={}", "model.latent_dim=4", "model.encoder_hidden=24",
        "model.decoder_hidden=96", "model.mixtures=2", "model.kl_weight=0.01", "epochs=50", "batch_size=24",
        "optimiser.lr=0.015", "optimiser.warmup_steps=10", "pictures_every=1000", "validation=0.1",
    ]  # fmt: skip
    recipe, threads = load_recipe("sketch-rnn-small", small), torch.get_num_threads()
    torch.set_num_threads(1)  # steps of so small a network take ten times as long with several, on a busy machine
    try:
        return train_on_drawings(recipe, make_drawings(240), out, progress=False)
    finally:
        torch.set_num_threads(threads)
