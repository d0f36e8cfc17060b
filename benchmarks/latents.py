"""Train and compare encoder families: `python benchmarks/latents.py SET DATA OUT [FAMILY...]`.

SET is `clothing` (gallery: train, queries: validation), `fashion` (60,000 gallery images, 10,000 queries), `mnist`
(only likelihood bounds) or `beta` (beta-VAEs with several KL weights on `clothing`, with the information in the
latent). DATA is the output of `benchmarks/prepare_data.py`. Encoders are written to OUT/SET/FAMILY and not trained
again if they exist. Without FAMILY, all families are trained. Prints a Markdown table; the figures are in OUT/SET.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from indexer.evaluate.retrieval import evaluate_retrieval
from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.encoder import load_encoder
from training.loop import train
from training.protocols import Batch
from training.recipes import load_recipe

GREY = ["preprocessing.size=28", "preprocessing.channels=1"]
SHALLOW = [*GREY, "model.widths=[32, 64]", "model.decoder_widths=[64, 32]"]
SMALL = [
    *SHALLOW, "model.latent_dim=64", "batch_size=128", "epochs=4", "patience=null", "augment.crop=0.9",
    "model.whitening=0",
]  # fmt: skip
CODES = [*SHALLOW, "model.pool=7", "batch_size=128", "epochs=4", "patience=null", "augment.crop=0.9"]
FASHION: dict[str, tuple[str, list[str]]] = {
    "ae": ("ae", SMALL),
    "vae": ("vae", SMALL),
    "beta-vae": ("beta-vae", SMALL),
    "cvae": ("cvae", [*SMALL, "objective.condition=category", "backgrounds=null", "model.label_in_encoder=true"]),
    "vq-vae": ("vq-vae", CODES),
    "vq-vae-2": ("vq-vae-2", [*CODES, "model.widths=[48]", "model.decoder_widths=[48]", "model.top_width=64"]),
    "vae-consistency": (
        "vae",
        [
            *SMALL, "epochs=6", "model.widths=[48, 96]", "objective.consistency=2", "augment.crop=1.0",
            "augment.rotate=8", "augment.scale=0.12", "augment.translate=0.05", "augment.brightness=0.4",
            "augment.contrast=0.4",
        ],
    ),
    "vae-contrastive": (
        "vae",
        [
            *SMALL, "epochs=10", "model.depth=1", "model.widths=[48, 96]", "model.scale=0.25", "batch_size=256",
            "objective.contrastive.weight=1000", "objective.contrastive.temperature=0.1", "optimiser.clip=5000",
            "augment.rotate=8", "augment.scale=0.15", "augment.translate=0.05", "augment.brightness=0.4",
            "augment.contrast=0.4", "augment.crop=0.6", "augment.erase=0.3", "model.likelihood=gaussian",
        ],
    ),
}  # fmt: skip
CLOTHING: dict[str, tuple[str, list[str]]] = {
    name: (name, []) for name in ("ae", "vae", "beta-vae", "cvae", "vq-vae", "vq-vae-2")
}
CLOTHING["ae-denoising"] = ("ae", ["model.noise=0.1"])
CONVOLUTIONS = [
    "model.network=conv", "model.widths=[32, 64]", "model.decoder_widths=[64, 32]", "model.depth=1",
    "model.decoder_depth=1", "model.warmup_steps=4000", "epochs=30",
]  # fmt: skip
MNIST: dict[str, tuple[str, list[str]]] = {"vae-mnist": ("vae-mnist", []), "vae-conv": ("vae-mnist", CONVOLUTIONS)}
BETA: dict[str, tuple[str, list[str]]] = {
    f"beta-{beta}": ("beta-vae", [f"model.beta={beta}", "epochs=20"]) for beta in (0.25, 1, 4, 16)
}
SETS = {"clothing": CLOTHING, "fashion": FASHION, "mnist": MNIST, "beta": BETA}
FOLDERS = {"clothing": "clothing", "fashion": "fashion", "mnist": "mnist", "beta": "clothing"}
SPLITS = {"clothing": ("train", "validation"), "fashion": ("train", "test"), "mnist": ("train", "test")}
SHOWN = ("knn@5", "precision@1", "precision@10", "map")
HELD = ("log_likelihood", "kl", "active_units", "precision@10", "map")
SAMPLES = 500  # importance samples of the bound for digits


def train_all(name: str, data: Path, out: Path, families: list[str]) -> dict[str, Path]:
    images, _ = read_images(data / FOLDERS[name] / SPLITS[FOLDERS[name]][0])
    trained = {}
    for family in families:
        recipe, overrides = SETS[name][family]
        trained[family] = train(load_recipe(recipe, overrides), images, out / name / family, resume=True)
    return trained


def retrieval(name: str, data: Path, encoders: dict[str, Path]) -> dict[str, Any]:
    """Retrieval metrics of each family and of the baselines."""
    folder = FOLDERS[name]
    gallery, queries = (read_images(data / folder / split)[0] for split in SPLITS[folder])
    names = {str(path): family for family, path in encoders.items()}
    evaluation = evaluate_retrieval(gallery, queries, "category", list(names))
    return {names.get(ref, ref): result.to_json() for ref, result in evaluation.encoders.items()}


def held(encoders: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Reconstruction term and KL in nats per image, and active units, on the validation photos."""
    found = {}
    for family, path in encoders.items():
        figures = load_encoder(path).card["figures"]
        kl = figures["validation"]["kl"]
        reconstruction = figures["validation"]["elbo"] + kl
        found[family] = {"log_likelihood": reconstruction, "kl": kl, "active_units": figures["active_units"]}
    return found


@torch.no_grad()
def bounds(data: Path, encoders: dict[str, Path]) -> dict[str, dict[str, float]]:
    """ELBO and importance-weighted bound of the test digits in nats per image."""
    found = {}
    for family, path in encoders.items():
        encoder = load_encoder(path)
        dataset = load_dataset(read_images(data / "mnist" / "test")[0], encoder.preprocessing)
        noise = torch.Generator().manual_seed(0)
        elbo, weighted = [], []
        for pixels in torch.from_numpy(dataset.images).split(200):
            x = pixels.float() / 255.0
            elbo.append(encoder.model.elbo(Batch(x, x), samples=10, generator=noise).elbo)
            weighted.append(encoder.model.importance_weighted(Batch(x, x), SAMPLES, noise))
        found[family] = {"elbo": float(torch.cat(elbo).mean()), f"iw{SAMPLES}": float(torch.cat(weighted).mean())}
    return found


def table(figures: dict[str, dict[str, Any]], shown: tuple[str, ...]) -> str:
    lines = [f"| encoder | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for name, values in figures.items():
        lines.append(f"| {name} | {' | '.join(_cell(values[metric]) for metric in shown)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        low, high = value["ci"]
        return f"{value['value']:.3f} [{low:.3f} {high:.3f}]"
    return f"{value:.2f}"


def main(name: str, data: Path, out: Path, families: list[str]) -> None:
    encoders = train_all(name, data, out, families or list(SETS[name]))
    figures: dict[str, Any] = bounds(data, encoders) if name == "mnist" else retrieval(name, data, encoders)
    shown = {"mnist": ("elbo", f"iw{SAMPLES}"), "beta": HELD}.get(name, SHOWN)
    if name == "beta":
        figures = {family: {**figures[family], **values} for family, values in held(encoders).items()}
    (out / f"{name}.json").write_text(json.dumps(figures, indent=1))
    print(table(figures, shown))


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in SETS:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
