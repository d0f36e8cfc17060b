"""What a retraining decides on: figures of encoders on held-out items."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.gate import Evidence

if TYPE_CHECKING:
    from indexer.evaluate.swaps import SwapSet


def measure(directory: Path, made: SwapSet, seed: int) -> dict[str, Any]:
    """An encoder's figures on a swap set, and its MAP@R of each product."""
    from indexer.evaluate.compare import measure_swaps
    from indexer.evaluate.robustness import MAP_AT_R
    from training.encoder import load_encoder

    encoder = load_encoder(directory)
    found = measure_swaps(encoder, made, seed=seed)
    return {
        "encoder_id": encoder.encoder_id,
        "family": encoder.family,
        "set": made.to_json(),
        "swap": {name: figure.to_json() for name, figure in found.swap.figures.items()},
        "displacement": found.displacement.to_json(),
        "background_share": found.shares["background"].to_json(),
        "products": found.swap.items,
        "clean": found.swap.clean[MAP_AT_R].tolist(),
        "swapped": found.swap.swapped[MAP_AT_R].tolist(),
    }  # fmt: skip


def to_evidence(document: Mapping[str, Any]) -> Evidence:
    return Evidence(
        document["encoder_id"], document["products"], np.array(document["clean"]), np.array(document["swapped"])
    )


def figures(document: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the evidence that is stored with the decision: figures, without each product's."""
    return {name: document[name] for name in ("encoder_id", "family", "swap", "displacement", "background_share")}
