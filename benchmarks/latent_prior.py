"""A flow as the prior of a trained VAE, against Gaussians: `python benchmarks/latent_prior.py REF TRAIN HELD_OUT`.

TRAIN and HELD_OUT are SOURCEs; the VAE should have been trained on TRAIN alone. The flow (`training.latent_flow`) is
fitted to posterior samples of TRAIN; its epoch is chosen on half of HELD_OUT, and the importance-weighted bound is of
the other half, under N(0, I), a Gaussian with the mean and covariance of the posterior samples, and the flow, with the
same samples. Prints a Markdown table of nats per image.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.encoder import Encoder, load_encoder
from training.fitting.density import DensitySettings
from training.latent_flow import LatentFlow, LatentFlowConfig
from training.layers.gaussian import draw, log_standard_normal
from training.protocols import Batch

DRAWS = 4  # posterior samples per training image


def images_of(encoder: Encoder, source: Path) -> Tensor:
    pixels = load_dataset(read_images(source)[0], encoder.preprocessing, progress=False).images
    return torch.from_numpy(pixels).float() / 255.0


@torch.no_grad()
def posterior_samples(model: Any, images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Latents `(count * N, L)`."""
    return torch.cat([draw(model.posterior(part), count, generator).flatten(0, 1) for part in images.split(64)])


@torch.no_grad()
def bounds(model: Any, images: Tensor, samples: int, **options: Any) -> Tensor:
    """The importance-weighted bound of each image; equal calls draw equal samples."""
    noise = torch.Generator().manual_seed(0)
    parts = [model.importance_weighted(Batch(part, part), samples, noise, **options) for part in images.split(32)]
    return torch.cat(parts).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder")
    parser.add_argument("train", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--samples", type=int, default=32, help="importance samples")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit", type=int, default=None, help="held-out images whose bound is computed")
    asked = parser.parse_args()
    encoder = load_encoder(asked.encoder)
    model: Any = encoder.model
    train, held_out = (images_of(encoder, source) for source in (asked.train, asked.held_out))
    chosen, evaluated = held_out[::2], held_out[1::2][: asked.limit]
    noise = torch.Generator().manual_seed(0)
    seen = posterior_samples(model, train, DRAWS, noise)
    others = posterior_samples(model, chosen, 2, noise)
    torch.manual_seed(0)
    flow, started = LatentFlow(LatentFlowConfig(vector_dim=seen.shape[1])), time.monotonic()
    flow.fit(seen, others, DensitySettings(epochs=asked.epochs, lr=1e-3))
    seconds = time.monotonic() - started
    fresh = posterior_samples(model, evaluated, 1, noise)
    gaussian = MultivariateNormal(seen.mean(dim=0), torch.cov(seen.T))
    priors = {"N(0, I)": log_standard_normal, "Gaussian": gaussian.log_prob, "flow": flow.log_prob}
    with torch.no_grad():
        nats = {name: float(prior(fresh).mean()) for name, prior in priors.items()}
    found = {name: bounds(model, evaluated, asked.samples, log_prior=prior) for name, prior in priors.items()}
    print(f"{len(train)} training images, {len(evaluated)} evaluated, flow fitted in {seconds:.0f} s\n")
    print(f"| prior | log p(z) of held-out posterior samples | IW-{asked.samples}, nats per image | gain, 95 % |")
    print("|---|---|---|---|")
    for name, bound in found.items():
        gain = bound - found["N(0, I)"]
        error = 1.96 * float(gain.std()) / len(gain) ** 0.5
        mean = float(bound.mean())
        print(f"| {name} | {nats[name]:.2f} | {mean:.2f} | {float(gain.mean()):.2f} +- {error:.2f} |")


if __name__ == "__main__":
    main()
