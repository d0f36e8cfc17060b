"""The report of `nitamono sketch evaluate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.layers.strokes import lengths_of
from training.sketches.encoder import SketchEncoder
from training.sketches.judging import interval, lengths, lengths_of_drawn, pixel_vectors, precision_at, queries
from training.sketches.reading import SourceDrawing


def evaluate_sketches(
    encoder: SketchEncoder,
    drawings: Sequence[SourceDrawing],
    *,
    k: int = 10,
    samples: int = 1_000,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Bound, lengths, and retrieval by category, of drawings that the encoder can take.

    Returns:
        `nats` per drawing; `lengths` of `data` and `samples`; `retrieval`: precision at k with 95 % intervals over
        categories, of the `encoder`, of `pixels`, and of their `difference`, and that by `chance`; None if no category
        has two drawings.
    """
    strokes = [each.strokes for each in drawings]
    points = lengths_of(encoder.prepare(strokes)).numpy()
    drawn = encoder.sample(samples, temperature=temperature, seed=seed)
    return {
        "drawings": len(drawings),
        "nats": float(encoder.log_likelihood(strokes).double().mean()),
        "lengths": {
            "data": lengths(points, np.ones(len(points), dtype=bool))._asdict(),
            "samples": lengths_of_drawn(drawn)._asdict(),
        },
        "retrieval": _retrieval(encoder, drawings, k),
    }


def _retrieval(encoder: SketchEncoder, drawings: Sequence[SourceDrawing], k: int) -> dict[str, Any] | None:
    labelled = [each for each in drawings if each.category is not None]
    categories = [str(each.category) for each in labelled]
    asked = queries(categories) if labelled else np.zeros(0, dtype=bool)
    if not asked.any():
        return None
    strokes = [each.strokes for each in labelled]
    groups = np.asarray(categories)[asked]
    own = precision_at(encoder.embed(strokes), categories, k)
    pixels = precision_at(pixel_vectors(strokes), categories, k)
    counts = Counter(categories)
    chance = np.mean([(counts[name] - 1) / (len(categories) - 1) for name in groups])
    return {
        "encoder": interval(own, groups)._asdict(),
        "pixels": interval(pixels, groups)._asdict(),
        "difference": interval(own - pixels, groups)._asdict(),
        "chance": float(chance),
    }
