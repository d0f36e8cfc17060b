"""Drawn shapes as strokes and as SVG files, and a small encoder that has learnt to draw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.sketches.strokes import Strokes

SHAPES = ("circle", "square", "zigzag", "cross")


def draw_shape(number: int) -> Strokes:
    """A shape of the kind `SHAPES[number % 4]`, a little different for each number."""
    rng = np.random.default_rng(number)
    kind = SHAPES[number % len(SHAPES)]
    if kind == "circle":
        turns = np.linspace(0.0, 2.0 * np.pi, 13)
        strokes = [np.stack([np.cos(turns), np.sin(turns)], axis=1)]
    elif kind == "square":
        strokes = [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]], float)]
    elif kind == "zigzag":
        strokes = [np.array([[-1, 1], [-0.5, -1], [0, 1], [0.5, -1], [1, 1]], float)]
    else:
        strokes = [np.array([[-1, -1], [1, 1]], float), np.array([[-1, 1], [1, -1]], float)]
    stretch = rng.uniform(0.7, 1.0, 2)
    return [100.0 + 80.0 * stretch * stroke + rng.normal(0.0, 3.0, stroke.shape) for stroke in strokes]


def svg_of(strokes: Strokes) -> bytes:
    lines = "".join(
        f'<polyline points="{" ".join(f"{x:.2f},{y:.2f}" for x, y in stroke)}"/>' for stroke in strokes
    )  # fmt: skip
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200"><g fill="none">{lines}</g></svg>'.encode()


def write_shapes(folder: Path, count: int) -> Path:
    """`count` SVG files, `folder/KIND/NNNN.svg`."""
    for number in range(count):
        path = folder / SHAPES[number % len(SHAPES)] / f"{number:04d}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(svg_of(draw_shape(number)))
    return folder


def train_on_shapes(out: Path, *settings: str) -> Path:
    """Train a small `sketch-rnn` on 240 shapes and return its directory; with the usual settings in about 10 s."""
    from training.recipes import load_recipe
    from training.sketches.fit import train_on_drawings
    from training.sketches.reading import SourceDrawing

    small = [
        "drawings={longest: 16, scale: 0, drop: 0}", "model.latent_dim=8", "model.encoder_hidden=24",
        "model.decoder_hidden=64", "model.mixtures=2", "model.kl_weight=0.01", "epochs=50", "batch_size=24",
        "optimiser.lr=0.015", "optimiser.warmup_steps=10", "pictures_every=1000", "validation=0.1",
    ]  # fmt: skip
    drawings = [SourceDrawing(f"shape-{number}", draw_shape(number)) for number in range(240)]
    return train_on_drawings(load_recipe("sketch-rnn-small", [*small, *settings]), drawings, out, progress=False)
