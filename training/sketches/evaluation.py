"""The report of `nitamono sketch evaluate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.layers.strokes import lengths_of
from training.recipes.schema import DrawingSettings
from training.sketches.augment import change_strokes
from training.sketches.encoder import SketchEncoder
from training.sketches.judging import interval, lengths, lengths_of_drawn, pixel_vectors, precision_at, queries
from training.sketches.reading import SourceDrawing

OTHER_STROKES = {"order": DrawingSettings(order=1.0), "direction": DrawingSettings(reverse=1.0)}


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
        `nats` per drawing; `lengths` of `data` and `samples`; `same_ink`, see `same_ink`; `retrieval`: precision at k
        with 95 % intervals over categories, of the `encoder`, of `pixels`, and of their `difference`, and that by
        `chance`; None if no category has two drawings.
    """
    strokes = [each.strokes for each in drawings]
    rows = encoder.prepare(strokes)
    points = lengths_of(rows).numpy()
    drawn = encoder.sample(samples, temperature=temperature, seed=seed)
    return {
        "drawings": len(drawings),
        "nats": float(encoder.log_likelihood(strokes).double().mean()),
        "lengths": {
            "data": lengths(points, np.ones(len(points), dtype=bool))._asdict(),
            "samples": lengths_of_drawn(drawn)._asdict(),
        },
        "same_ink": same_ink(encoder, rows, seed),
        "retrieval": _retrieval(encoder, drawings, k),
    }


def same_ink(encoder: SketchEncoder, rows: Tensor, seed: int = 0) -> dict[str, float]:
    """Share of drawings `(N, N_max, 5)` that find themselves first among all when they are drawn in other strokes.

    Returns:
        by what is changed: the random `order` of the strokes, or the `direction` of all of them. Nothing that can be
        seen differs, so that an encoder of what can be seen has 1.
    """
    vectors = encoder.encode(rows)
    shares = {}
    for name, changes in OTHER_STROKES.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed = encoder.encode(change_strokes(rows, changes))
        scores = changed @ vectors.T
        shares[name] = float((scores <= scores.diagonal()[:, None]).all(dim=1).double().mean())
    return shares


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
