"""Compare training speed with pythae's trainer: `python benchmarks/training_throughput.py SOURCE [--epochs N]`.

Both train the same convolutional VAE (the networks of `training.models`, with the same initial weights) with Adam at
the same learning rate on the same images: batches of 64, one tenth held out and evaluated after every epoch, no
augmentation, alternating in one run. pythae expects models as modules defined by the user, so its side calls the same
layers as its documentation shows. Requires `pip install pythae`. Prints images per second of the fit, and the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pythae.data.datasets import BaseDataset  # type: ignore[import-not-found]
from pythae.models import VAE, VAEConfig  # type: ignore[import-not-found]
from pythae.models.base.base_utils import ModelOutput  # type: ignore[import-not-found]
from pythae.models.nn import BaseDecoder, BaseEncoder  # type: ignore[import-not-found]
from pythae.trainers import BaseTrainer, BaseTrainerConfig  # type: ignore[import-not-found]
from torch import Tensor, nn

from training.data.dataset import load_dataset
from training.data.sources import SourceImage, read_images
from training.loop import train
from training.models.vae import Vae
from training.models.vae import VaeConfig as OurConfig
from training.recipes import Recipe, load_recipe

RATE, BATCH = 1e-3, 64
SETTINGS = [
    "model.likelihood=gaussian", "model.scale=1.0", "model.whitening=0", f"batch_size={BATCH}", "patience=null",
    "ema=null", "pictures_every=10000", f"optimiser.lr={RATE}", "optimiser.final_lr=1.0", "optimiser.warmup_steps=0",
    "optimiser.clip=null", "augment.flip=false", "augment.crop=1.0", "model.warmup_steps=0",
]  # fmt: skip


class TheirEncoder(BaseEncoder):  # type: ignore[misc]
    def __init__(self, model: Vae) -> None:
        super().__init__()
        self.layers = nn.Sequential(model.encoder.stages, nn.Flatten())
        self.mean, self.log_variance = model.encoder.mean, model.encoder.log_variance

    def forward(self, x: Tensor) -> Any:
        h = self.layers(2.0 * x - 1.0)
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))


class TheirDecoder(BaseDecoder):  # type: ignore[misc]
    def __init__(self, model: Vae) -> None:
        super().__init__()
        decoder = model.decoder
        self.start, self.side = decoder.start, decoder.side
        self.layers = nn.Sequential(decoder.stages, decoder.out)

    def forward(self, z: Tensor) -> Any:
        h = nn.functional.silu(self.start(z)).reshape(len(z), -1, self.side, self.side)
        return ModelOutput(reconstruction=0.5 + 0.5 * self.layers(h))


def theirs(recipe: Recipe, images: list[SourceImage]) -> float:
    dataset = load_dataset(images, recipe.preprocessing.build(), progress=False)
    pixels = torch.from_numpy(dataset.images).float() / 255.0
    sides = [pixels[torch.from_numpy(side)] for side in dataset.split(recipe.validation)]
    torch.manual_seed(recipe.seed)
    model = Vae(OurConfig(**recipe.model_config_values())).to(memory_format=torch.contiguous_format)
    shape = tuple(pixels.shape[1:])
    config = VAEConfig(input_dim=shape, latent_dim=model.config.latent_dim, reconstruction_loss="mse")
    with tempfile.TemporaryDirectory() as out:
        trainer = BaseTrainer(
            model=VAE(config, encoder=TheirEncoder(model), decoder=TheirDecoder(model)),
            train_dataset=BaseDataset(sides[0], torch.zeros(len(sides[0]))),
            eval_dataset=BaseDataset(sides[1], torch.zeros(len(sides[1]))),
            training_config=BaseTrainerConfig(
                output_dir=out, num_epochs=recipe.epochs, learning_rate=RATE, per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=2 * BATCH,
            ),
        )  # fmt: skip
        started = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainer.train()
        return len(sides[0]) * recipe.epochs / (time.monotonic() - started)


def ours(recipe: Recipe, images: list[SourceImage], precision: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = train(recipe, images, Path(folder) / "run", device="cpu", precision=precision, progress=False)
        run = json.loads((out / "card.json").read_text())["run"]
    return float(run["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    images, _ = read_images(options.source)
    recipe = load_recipe("vae", [*SETTINGS, f"epochs={options.epochs}"])
    rates: dict[str, list[float]] = {"pythae": [], "nitamono": [], "nitamono, bf16-mixed": []}
    for _ in range(options.repeats):
        rates["pythae"].append(theirs(recipe, images))
        rates["nitamono"].append(ours(recipe, images, "32"))
        rates["nitamono, bf16-mixed"].append(ours(recipe, images, "bf16-mixed"))
    base = statistics.median(rates["pythae"])
    print("| trainer | images/s | ratio |\n|---|---|---|")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:,.0f} ({min(values):,.0f} to {max(values):,.0f}) | {middle / base:.2f} |")


if __name__ == "__main__":
    main()
