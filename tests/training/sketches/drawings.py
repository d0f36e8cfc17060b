"""Drawings for tests: circles, squares and crosses that differ a little from each other."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from training.sketches.reading import SourceDrawing
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
