"""Compare search vectors of one encoder: `python benchmarks/search_vectors.py ENCODER GALLERY QUERIES SETTINGS...`.

Each SETTINGS is a comma-separated list of KEY=VALUE for the step that turns a trained model's latents into search
vectors (`whitening`, `turn`, `search_dim`; for VQ families also `pool` and `histogram_weight`). This step is fitted
again on the gallery, which should be the training data of ENCODER; the weights of the model are unchanged. Prints a
Markdown table of retrieval by category with 95 % intervals.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from latents import table

from indexer.evaluate.retrieval import evaluate_retrieval
from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.encoder import Encoder, load_encoder
from training.models import MODELS
from training.protocols import Batch

FITTED = ("search.", "descriptor.", "prior.")
SHOWN = ("knn@5", "precision@10", "map")


def refit(encoder: Encoder, changes: dict[str, Any], images: torch.Tensor) -> Encoder:
    """The encoder with other search vector settings, fitted again."""
    family = MODELS[encoder.family]
    model: Any = family.model(family.config(**{**encoder.config, **changes}))
    kept = {name: t for name, t in encoder.model.state_dict().items() if not name.startswith(FITTED)}
    model.load_state_dict(kept, strict=False)
    batches = [Batch(x, x) for x in (part.float() / 255.0 for part in images.split(256))]
    model, config = model.eval().finish(batches)
    return Encoder(model, family=encoder.family, config=asdict(config), preprocessing=encoder.preprocessing)


def main(ref: str, gallery: Path, queries: Path, choices: list[str]) -> None:
    encoder = load_encoder(ref)
    sides = [read_images(source)[0] for source in (gallery, queries)]
    images = torch.from_numpy(load_dataset(sides[0], encoder.preprocessing).images)
    with tempfile.TemporaryDirectory() as folder:
        places = {}
        for number, choice in enumerate(choices):
            changes = {key: yaml.safe_load(value) for key, value in (pair.split("=") for pair in choice.split(","))}
            places[str(refit(encoder, changes, images).save(Path(folder) / str(number)))] = choice.replace(",", ", ")
        found = evaluate_retrieval(*sides, "category", list(places), baselines=False).encoders
    print(table({choice: found[place].to_json() for place, choice in places.items()}, SHOWN))


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
