"""What each likelihood and decoder leaves in the latent under one objective:
`python benchmarks/same_objective.py DATA OUT [NAME...] [--plain] [--seeds 0 1 2] [--epochs 30] [--photos 1024]`.

Trains every family of `STUDY` with one encoder, one budget and one objective: the item is put on other backgrounds, its
likelihood is that of the item on white, and two views of an item attract each other. `--plain` trains them without
backgrounds and without the second term. Each finished run is measured at once, and one that is in the figures is not
trained again, so the program can be stopped at any time. DATA is the output of `benchmarks/prepare_data.py`. Runs are
written to OUT/NAME/seed-N, and figures to OUT/figures.json. Prints a Markdown table of the means over seeds, with the
smallest and the largest value.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from indexer.compare.comparison import compare_encoders
from indexer.evaluate.images import prepared
from indexer.evaluate.retrieval import evaluate_retrieval
from indexer.swaps.sources import photo_set, studio_set
from indexer.swaps.swap_set import SwapSet
from training.console import to_json
from training.data.sources import SourceImage, read_images
from training.encoder import Encoder, load_encoder
from training.loop import train
from training.protocols import CodeModel
from training.recipes import Recipe, load_recipe

Images = Sequence[SourceImage]
NETWORK = [
    "preprocessing.size=32", "batch_size=64", "patience=null", "ema=0.99", "pictures_every=1000",
    "optimiser={lr: 2.0e-3, final_lr: 0.01, warmup_steps: 100, clip: 20000}",
]  # fmt: skip
VIEWS = [
    "augment={flip: true, rotate: 20, scale: 0.3, translate: 0.1, brightness: 0.2, contrast: 0.2, saturation: 0.2, "
    "hue: 0.01}",
]  # fmt: skip
ROBUST = [
    "backgrounds.probability=0.8", "objective={clean_target: true, contrastive: {weight: 10000, temperature: 0.1}}",
]  # fmt: skip
WIDTHS = ["model.widths=[32, 64, 128]", "model.decoder_widths=[128, 64, 32]"]
VECTOR = [*WIDTHS, "model.latent_dim=64", "model.likelihood=logistic"]
CODES = [
    "model.codes=256", "model.code_dim=32", "model.likelihood=logistic", "model.prior=counts", "model.pool=4",
    "model.search_dim=128",
]  # fmt: skip
TWO_MAPS = [*CODES, "model.widths=[32, 64]", "model.decoder_widths=[64, 32]", "model.top_width=128"]
PIXELS = [
    *WIDTHS, "model.latent_dim=64", "model.mixtures=5", "model.map_width=16", "model.pixel_width=16", "model.head=32",
]  # fmt: skip
PLAIN_BOUND = ["model.free_bits=0", "model.warmup_steps=300"]
STUDY: dict[str, tuple[str, list[str]]] = {
    "ae": ("ae", VECTOR),
    "vae": ("vae", [*VECTOR, "model.warmup_steps=300", "model.whitening=0"]),
    "beta-vae": ("beta-vae", [*VECTOR, "model.beta=4", "model.whitening=0"]),
    "vq-vae": ("vq-vae", [*CODES, *WIDTHS]),
    "vq-vae-2": ("vq-vae-2", TWO_MAPS),
    "vq-vae-2, top alone": ("vq-vae-2", [*TWO_MAPS, "model.search_levels=top"]),
    "pixel-vae, field 1": ("pixel-vae", [*PIXELS, *PLAIN_BOUND, "model.receptive_field=1"]),
    "pixel-vae, field 9": ("pixel-vae", [*PIXELS, *PLAIN_BOUND, "model.receptive_field=9"]),
    "pixel-vae, field 65": ("pixel-vae", [*PIXELS, *PLAIN_BOUND, "model.receptive_field=65"]),
    "draw": ("draw", ["model.likelihood=logistic"]),
    "infovae, field 9": ("infovae", [*PIXELS, "model.receptive_field=9"]),
    "delta-vae, field 9": (
        "delta-vae",
        [
            *PIXELS, "model.receptive_field=9", "model.widths=[48, 96]", "model.decoder_widths=[96, 48]",
            "model.committed_rate=16",
        ],
    ),
}  # fmt: skip
RECONSTRUCTED = 64  # pictures, which some families draw pixel by pixel
SOLIDS, REAL_ITEMS, PER_ITEM = 120, 200, 5
COLUMNS = (
    "nats in z", "squared error", "precision@10", "map", "real clean", "real swapped", "real retention",
    "real background probe", "solids clean", "solids swapped", "solids retention", "solids background probe",
)  # fmt: skip


def recipe_of(name: str, seed: int, asked: argparse.Namespace) -> Recipe:
    family, settings = STUDY[name]
    shared = [*NETWORK, *VIEWS, *([] if asked.plain else ROBUST), f"epochs={asked.epochs}", f"seed={seed}"]
    if not asked.plain:
        shared.append(f"backgrounds.folder={json.dumps(str(asked.data / 'textures' / 'train'))}")
    return load_recipe(family, [*shared, *settings])


def rate(encoder: Encoder, photos: torch.Tensor) -> float | None:
    """Nats that describe the latent of a photo: the KL, or the bits of the codes under the prior; None for neither."""
    known = encoder.card["figures"].get("validation", {})
    if "kl" in known:
        return float(known["kl"])
    if not isinstance(encoder.model, CodeModel):
        return None
    model: Any = encoder.model
    with torch.inference_mode():
        codes = model.codes(photos.float() / 255.0)
        is_top_alone = getattr(model.config, "search_levels", "") == "top"
        nats = model.prior_top.log_prob(model.split(codes)[0]) if is_top_alone else model.log_prior(codes)
        return -float(nats.mean())


def measure(encoder: Encoder, sets: Sequence[SwapSet], gallery: Images, queries: Images, ref: str) -> dict[str, Any]:
    found = evaluate_retrieval(gallery, queries, "category", [ref], baselines=False).encoders[ref].to_json()
    figures: dict[str, Any] = {key: found[key]["value"] for key in ("precision@10", "map")}
    photos = torch.from_numpy(prepared(encoder, sets[0].gallery[:RECONSTRUCTED]))
    targets = photos.float() / 255.0
    figures["nats in z"] = rate(encoder, photos)
    figures["squared error"] = float(torch.square(encoder.reconstruct(photos) - targets).mean())
    for name, made in zip(("real", "solids"), sets, strict=True):
        compared = compare_encoders(made, [ref], placement=False).encoders[ref]
        recall = compared.swap.figures["recall@1"]
        figures |= {
            f"{name} clean": recall.clean.value,
            f"{name} swapped": recall.swapped.value,
            f"{name} retention": recall.retention.value,
            f"{name} background probe": compared.probes["background"].score.value,
        }
    return figures


def table(known: dict[str, dict[str, Any]]) -> str:
    lines = [f"| | seeds | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, by_seed in known.items():
        runs = list(by_seed.values())
        lines.append(
            f"| {name} | {len(runs)} | {' | '.join(_cell([run[column] for run in runs]) for column in COLUMNS)} |"
        )
    return "\n".join(lines)


def _cell(values: list[float | None]) -> str:
    some = [value for value in values if value is not None]
    if not some:
        return "-"
    form = ".3f" if max(some) < 10 else ".1f"
    mean = f"{np.mean(some):{form}}"
    return mean if len(some) == 1 else f"{mean} ({min(some):{form}} to {max(some):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", choices=[*STUDY, []], help="Families; all by default.")
    parser.add_argument("--plain", action="store_true", help="Train without backgrounds and contrast.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--photos", type=int, default=1024, help="Number of training photos.")
    asked = parser.parse_args()
    gallery, queries = (read_images(asked.data / "clothing" / side)[0] for side in ("train", "validation"))
    chosen = np.random.default_rng(0).permutation(len(gallery))[: asked.photos]
    some = [gallery[place] for place in sorted(chosen.tolist())]
    textures = asked.data / "textures" / "test"
    sets = (
        photo_set("real", queries, backgrounds=textures, per_item=PER_ITEM, limit=REAL_ITEMS),
        studio_set("solids", SOLIDS, backgrounds=textures, factors=False),
    )
    report = asked.out / "figures.json"
    for seed in asked.seeds:
        for name in asked.names or STUDY:
            title = f"{name}, plain" if asked.plain else name
            known = json.loads(report.read_text()) if report.exists() else {}
            if str(seed) in known.get(title, {}):
                continue
            folder = asked.out / title.replace(", ", "-").replace(" ", "-") / f"seed-{seed}"
            path = train(recipe_of(name, seed, asked), some, folder, resume=True)
            encoder = load_encoder(path)
            figures = measure(encoder, sets, gallery, queries, str(path))
            figures["minutes"] = encoder.card["run"]["fit_seconds"] / 60
            known.setdefault(title, {})[str(seed)] = figures
            report.write_text(to_json(known) + "\n")
    print(table(json.loads(report.read_text())))


if __name__ == "__main__":
    main()
