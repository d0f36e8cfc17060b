"""Held-out likelihoods of models: `python benchmarks/likelihoods.py SET DATA OUT [MODEL...]`.

SET is `mnist` (statically binarised digits), `fashion` (28 x 28 grey) or `clothing` (32 x 32 colour, validation
photos). DATA is the output of `benchmarks/prepare_data.py`. Models are written to OUT/SET/MODEL and not trained again
if they exist. Prints a Markdown table with the training budget of each model, and an extrapolation to ten times the
images by a power law fitted to the second half of its training curve (online training nats per image by images seen).
The figures and curves are in OUT/SET.json.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import curve_fit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.device import precision_advice
from training.encoder import Encoder, load_encoder
from training.loop import train
from training.protocols import Batch, VariationalModel
from training.recipes import load_recipe

DIGITS = [
    "preprocessing.size=28", "preprocessing.channels=1", "model.likelihood=bernoulli", "augment.flip=false",
    "validation=0.02", "batch_size=50", "patience=null", "optimiser.lr=6e-3", "optimiser.final_lr=0.02",
]  # fmt: skip
GREY = [
    "preprocessing.size=28",
    "preprocessing.channels=1",
    "validation=0.02",
    "batch_size=50",
    "patience=null",
    "ema=0.99",
]
MNIST: dict[str, tuple[str, list[str]]] = {
    "made": ("made-mnist", []),
    "pixel-cnn-plain": (
        "pixel-cnn", [*DIGITS, "model.architecture=plain", "model.width=32", "model.dilations=[1,1,1,1,1,1]",
                      "model.head=32", "epochs=3", "ema=0.99"],
    ),
    "pixel-cnn": (
        "pixel-cnn", [*DIGITS, "model.width=16", "model.dilations=[1,1,1,1,1,1]", "model.head=32", "epochs=3"],
    ),
    "row-lstm": (
        "pixel-rnn", [*DIGITS, "model.recurrence=row", "model.width=32", "model.layers=3", "model.head=32", "epochs=1",
                      "ema=0.99"],
    ),
    "diagonal-bilstm": (
        "pixel-rnn", [*DIGITS, "model.width=32", "model.layers=1", "model.head=32", "epochs=3"],
    ),
    "pixel-vae": (
        "pixel-vae", [*DIGITS, "model.widths=[32,64]", "model.decoder_widths=[64,32]", "model.latent_dim=32",
                      "model.receptive_field=17", "model.map_width=16", "model.pixel_width=16", "model.head=32",
                      "model.free_bits=0", "augment.crop=1.0", "epochs=2", "ema=0.99", "model.warmup_steps=600"],
    ),
    "draw": ("draw-mnist-small", []),
    "draw-whole": ("draw-mnist-small", ["model.attention=false"]),
}  # fmt: skip
FASHION: dict[str, tuple[str, list[str]]] = {
    "pixel-cnn": (
        "pixel-cnn",
        [*GREY, "model.width=16", "model.dilations=[1,1,1,1]", "model.head=48", "epochs=1", "max_minutes=5"],
    ),
    "pixel-cnn++": ("pixel-cnn++", [*GREY, "model.width=16", "model.mixtures=5", "epochs=1", "max_minutes=5"]),
}
CLOTHING: dict[str, tuple[str, list[str]]] = {
    "pixel-cnn": ("pixel-cnn", ["model.width=24", "model.dilations=[1,1,1,1]", "model.head=48", "epochs=100",
                                "max_minutes=5", "batch_size=16", "ema=0.98"]),
    "pixel-cnn++": ("pixel-cnn++", ["model.width=24", "epochs=100", "max_minutes=5", "batch_size=16", "ema=0.98"]),
    "multiscale": ("multiscale", ["epochs=100", "max_minutes=5", "batch_size=16"]),
    "real-nvp": ("real-nvp", ["epochs=100", "max_minutes=15", "batch_size=16", "pictures_every=1000"]),
    "glow": ("glow", ["epochs=100", "max_minutes=15", "batch_size=16", "pictures_every=1000"]),
}  # fmt: skip
SETS = {"mnist": MNIST, "fashion": FASHION, "clothing": CLOTHING}
TEST = {"mnist": "test", "fashion": "test", "clothing": "validation"}
WEIGHTED, SAMPLES = 1000, 50  # images and samples of the importance-weighted bound
CURVE = 40  # points of a training curve


def train_all(name: str, data: Path, out: Path, models: list[str]) -> dict[str, Path]:
    images, _ = read_images(data / name / "train")
    precision = "32" if precision_advice("cpu", "bf16-mixed") else "bf16-mixed"
    trained = {}
    for model in models:
        recipe, overrides = SETS[name][model]
        loaded = load_recipe(recipe, overrides)
        trained[model] = train(loaded, images, out / name / model, resume=True, precision=precision)
    return trained


@torch.inference_mode()
def evaluate(encoder: Encoder, images: torch.Tensor) -> dict[str, Any]:
    """Nats per image: exact, a flow's bound, or the ELBO of all images and the importance-weighted bound of some."""
    values = images[0].numel()
    if not isinstance(encoder.model, VariationalModel):
        each = [encoder.log_likelihood(part) for part in images.split(250)]
        nats = torch.cat([likelihood.nats for likelihood in each]).double()
        found = {"nats": -float(nats.mean()), "kind": "exact" if each[0].exact else "bound"}
    else:
        noise = torch.Generator().manual_seed(0)
        model: Any = encoder.model
        parts = [part.float() / 255.0 for part in images.split(250)]
        bounds = [model.elbo(Batch(x, x), generator=noise) for x in parts]
        weighted = [
            model.importance_weighted(Batch(x, x), SAMPLES, noise)
            for x in (images[:: max(1, len(images) // WEIGHTED)].float() / 255.0).split(50)
        ]
        found = {
            "nats": -float(torch.cat([bound.elbo for bound in bounds]).double().mean()),
            "kind": "ELBO",
            "kl": float(torch.cat([bound.kl.sum(dim=1) for bound in bounds]).double().mean()),
            f"iw{SAMPLES}": -float(torch.cat(weighted).double().mean()),
        }
    return {**found, "bits_per_dim": float(found["nats"]) / (values * math.log(2.0))}


def curve(directory: Path, batch_size: int) -> list[tuple[int, float]]:
    """The training curve: images seen, and mean negative log-likelihood since the previous point."""
    events = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    scalars = events.Scalars("train/objective")
    each = max(1, len(scalars) // CURVE)
    parts = [scalars[first : first + each] for first in range(0, len(scalars), each)]
    return [(part[-1].step * batch_size, sum(point.value for point in part) / len(part)) for part in parts]


def extrapolate(points: list[tuple[int, float]], factor: float = 10.0) -> float:
    """Nats after `factor` times the images, by a + b n^-c fitted to the second half of a curve, with a, b >= 0."""
    late = np.array(points[len(points) // 2 :], dtype=float)
    seen, nats = late[:, 0] / late[-1, 0], late[:, 1]
    start = (0.9 * nats[-1], 0.1 * nats[-1], 0.5)
    bounds = ((0.0, 0.0, 0.05), (nats[-1], np.inf, 2.0))
    (floor, size, power), _ = curve_fit(lambda n, a, b, c: a + b * n**-c, seen, nats, start, bounds=bounds)
    return float(floor + size * factor**-power)


def main(name: str, data: Path, out: Path, models: list[str]) -> None:
    figures = {}
    for model, path in train_all(name, data, out, models or list(SETS[name])).items():
        encoder = load_encoder(path)
        images = load_dataset(read_images(data / name / TEST[name])[0], encoder.preprocessing).images
        run, recipe = encoder.card["run"], encoder.card["recipe"]
        points = curve(path, recipe["batch_size"])
        seen = points[-1][0]
        figures[model] = {
            **evaluate(encoder, torch.from_numpy(images)),
            "parameters": sum(parameter.numel() for parameter in encoder.model.parameters()),
            "images_seen": seen,
            "steps": seen // recipe["batch_size"],
            "minutes": run["fit_seconds"] / 60.0,
            "curve": points,
            "extrapolated": extrapolate(points),
        }
        report = out / f"{name}.json"
        known = json.loads(report.read_text()) if report.exists() else {}
        report.write_text(json.dumps({**known, model: figures[model]}, indent=1))
    print(
        "| model | parameters | images seen | minutes | nats | bits/dim | | training nats, 10 x |\n" + "|---" * 8 + "|"
    )
    for model, row in figures.items():
        weighted = f"IW-{SAMPLES} {row[f'iw{SAMPLES}']:.2f}, z {row['kl']:.1f}" if "kl" in row else row["kind"]
        print(
            f"| {model} | {row['parameters']:,} | {row['images_seen']:,} | {row['minutes']:.1f} | {row['nats']:.2f} "
            f"| {row['bits_per_dim']:.3f} | {weighted} "
            f"| {row['curve'][-1][1]:.1f} -> {row['extrapolated']:.1f} |"
        )


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in SETS:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
