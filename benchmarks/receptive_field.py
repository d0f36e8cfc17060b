"""Information in the latent for decoders with larger receptive fields:
`python benchmarks/receptive_field.py DATA OUT [NAME...]`.

Trains recipe `pixel-vae` on the clothing photos with several receptive fields (`rf1` to `rf65`, and `rf17-freebits`,
which enforces a minimum rate). Measures nats in z and the ELBO on the validation photos, the squared error of
reconstructions, retrieval by category, and the swap tests of `benchmarks/background_swap.py`. DATA is the output of
`benchmarks/prepare_data.py`. Encoders are written to OUT/NAME and not trained again if they exist. Prints a Markdown
table; the figures are in OUT/figures.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from background_swap import SwapSet, drawn_set, embedder, real_set

from indexer.evaluate.retrieval import evaluate_retrieval
from indexer.measures.robustness import LabelledVectors, swap_test
from training.data.backgrounds import Folder
from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.encoder import Encoder, load_encoder
from training.loop import train
from training.recipes import load_recipe

FIELDS = (1, 3, 5, 9, 17, 65)
SMALL = [
    "model.map_width=16", "model.pixel_width=16", "model.head=32", "model.free_bits=0", "epochs=16", "patience=null",
]  # fmt: skip
STUDY: dict[str, list[str]] = {f"rf{field}": [*SMALL, f"model.receptive_field={field}"] for field in FIELDS}
STUDY["rf17-freebits"] = [*STUDY["rf17"], "model.free_bits=0.5"]
SEED, SHOP_ITEMS, PER_ITEM, REAL_ITEMS = 9001, 300, 5, 500
RECONSTRUCTED = 128  # photos to reconstruct, which is done pixel by pixel
COLUMNS = (
    "kl", "active_units", "elbo", "squared_error", "precision@10", "map",
    "shop clean", "shop swapped", "shop retention", "real clean", "real swapped", "real retention",
)  # fmt: skip


def latent_figures(encoder: Encoder, photos: torch.Tensor) -> dict[str, float]:
    figures = encoder.card["figures"]
    some = photos[:RECONSTRUCTED]
    error = torch.square(encoder.reconstruct(some) - some.float() / 255.0).mean()
    return {
        "kl": figures["validation"]["kl"],
        "elbo": figures["validation"]["elbo"],
        "active_units": figures["active_units"],
        "squared_error": float(error),
    }


def swap_figures(name: str, made: SwapSet, path: Path) -> dict[str, Any]:
    """recall@1 of clean and of swapped queries."""
    embed, metric = embedder(str(path))
    sets = [
        LabelledVectors(embed([picture for _, picture in pictures]), [item for item, _ in pictures])
        for pictures in (made.gallery, made.clean, made.swapped)
    ]
    figure = swap_test(*sets, metric, seed=SEED).figures["recall@1"].to_json()
    return {f"{name} {part}": figure[part] for part in ("clean", "swapped", "retention")}


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        low, high = value["ci"]
        return f"{value['value']:.3f} [{low:.3f} {high:.3f}]"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.1f}"


def main(data: Path, out: Path, names: list[str]) -> None:
    images, _ = read_images(data / "clothing" / "train")
    queries, _ = read_images(data / "clothing" / "validation")
    folder = Folder(data / "textures" / "test")
    sets = {
        "shop": drawn_set("shop", SHOP_ITEMS, PER_ITEM, SEED, folder),
        "real": real_set(data / "clothing" / "validation", PER_ITEM, SEED, folder, REAL_ITEMS),
    }
    for made in sets.values():
        made.check_leaks()
    report = out / "figures.json"
    for name in names or list(STUDY):
        loaded = load_recipe("pixel-vae", STUDY[name])
        path = train(loaded, images, out / name, resume=True, precision="bf16-mixed")
        encoder = load_encoder(path)
        photos = torch.from_numpy(np.array(load_dataset(queries, encoder.preprocessing).images))
        retrieval = evaluate_retrieval(images, queries, "category", [str(path)]).encoders[str(path)].to_json()
        figures = {**latent_figures(encoder, photos), **{key: retrieval[key] for key in ("precision@10", "map")}}
        for kind, made in sets.items():
            figures |= swap_figures(kind, made, path)
        known = json.loads(report.read_text()) if report.exists() else {}
        report.write_text(json.dumps({**known, name: figures}, indent=1))
    found = json.loads(report.read_text())
    print(f"| | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 1)}|")
    for name in (name for name in STUDY if name in found):
        print(f"| {name} | {' | '.join(_cell(found[name][column]) for column in COLUMNS)} |")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
