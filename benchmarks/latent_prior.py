"""A flow as the prior of a trained VAE, against Gaussians: `python benchmarks/latent_prior.py REF TRAIN HELD_OUT`.

TRAIN and HELD_OUT are SOURCEs; the VAE should have been trained on TRAIN alone. The flow (`training.latent_flow`) is
fitted to posterior samples of TRAIN; its epoch is chosen on half of HELD_OUT, and the importance-weighted bound is of
the other half, under N(0, I), a Gaussian with the mean and covariance of the posterior samples, and the flow, with the
same samples. Prints a Markdown table of nats per image, and the Frechet distance of samples from each prior to TRAIN
and to the other half of HELD_OUT, in the search vectors of `--features`. Reconstructions and photos show what the
decoder, and two sets of photos, leave of it. `--sheet DIR` writes a sheet of samples from each prior.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frechet import frechet_distance
from torch import Tensor
from torch.distributions import MultivariateNormal

from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.embedder import Embedder, load_embedder
from training.encoder import Encoder, load_encoder
from training.fitting.density import DensitySettings
from training.fitting.pictures import encode_png, tile
from training.latent_flow import DRAWS, LatentFlow, LatentFlowConfig, posterior_samples
from training.layers.gaussian import log_standard_normal
from training.protocols import Batch


def images_of(encoder: Encoder, source: Path) -> Tensor:
    pixels = load_dataset(read_images(source)[0], encoder.preprocessing, progress=False).images
    return torch.from_numpy(pixels).float() / 255.0


@torch.no_grad()
def bounds(model: Any, images: Tensor, samples: int, **options: Any) -> Tensor:
    """The importance-weighted bound of each image; equal calls draw equal samples."""
    noise = torch.Generator().manual_seed(0)
    parts = [model.importance_weighted(Batch(part, part), samples, noise, **options) for part in images.split(32)]
    return torch.cat(parts).double()


@torch.no_grad()
def features(embedder: Embedder, encoder: Encoder, images: Tensor) -> Any:
    """Search vectors `(N, dim)` of images `(N, C, S, S)` in [0, 1], prepared as photos are."""
    size = encoder.preprocessing.size
    found = []
    for part in images.split(64):
        pixels = (255.0 * part).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert pixels.shape[1:] == (size, size, 3)
        found.append(embedder.embed(np.stack([embedder.described.preprocessing.apply(image) for image in pixels])))
    return np.concatenate(found)


@torch.no_grad()
def frechet_table(encoder: Encoder, ref: str, latents: dict[str, Tensor], train: Tensor, evaluated: Tensor) -> str:
    model: Any = encoder.model
    embedder = load_embedder(ref)
    pictures = {name: torch.cat([model.decode(z) for z in drawn.split(64)]) for name, drawn in latents.items()}
    pictures["reconstructions of evaluated photos"] = torch.cat(
        [model.reconstruct(part) for part in evaluated.split(64)]
    )
    pictures["evaluated photos"] = evaluated
    found = {name: features(embedder, encoder, images) for name, images in pictures.items()}
    of_train = features(embedder, encoder, train)
    lines = [
        f"| images | number | to {len(train)} training photos | to {len(evaluated)} evaluated photos |",
        "|---" * 4 + "|",
    ]
    for name, values in found.items():
        distances = [frechet_distance(values, other) for other in (of_train, found["evaluated photos"])]
        lines.append(f"| {name} | {len(values)} | {distances[0]:.4f} | {distances[1]:.4f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder")
    parser.add_argument("train", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--samples", type=int, default=32, help="importance samples")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit", type=int, default=None, help="held-out images whose bound is computed")
    parser.add_argument("--features", default="small", help="encoder whose vectors the Frechet distance compares")
    parser.add_argument("--drawn", type=int, default=2000, help="samples of each prior for the Frechet distance")
    parser.add_argument("--sheet", type=Path, help="folder for sheets of samples")
    asked = parser.parse_args()
    encoder = load_encoder(asked.encoder)
    model: Any = encoder.model
    train, held_out = (images_of(encoder, source) for source in (asked.train, asked.held_out))
    chosen, evaluated = held_out[::2], held_out[1::2][: asked.limit]
    noise = torch.Generator().manual_seed(0)
    seen = posterior_samples(encoder, train, DRAWS, noise)
    others = posterior_samples(encoder, chosen, 2, noise)
    torch.manual_seed(0)
    flow, started = LatentFlow(LatentFlowConfig(vector_dim=seen.shape[1])), time.monotonic()
    flow.fit(seen, others, DensitySettings(epochs=asked.epochs, lr=1e-3))
    seconds = time.monotonic() - started
    fresh = posterior_samples(encoder, evaluated, 1, noise)
    gaussian = MultivariateNormal(seen.mean(dim=0), torch.cov(seen.T))
    priors = {"N(0, I)": log_standard_normal, "Gaussian": gaussian.log_prob, "flow": flow.log_prob}
    with torch.no_grad():
        nats = {name: float(prior(fresh).mean()) for name, prior in priors.items()}
    noise = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    drawn = {
        "N(0, I)": torch.randn(asked.drawn, seen.shape[1], generator=noise),
        "Gaussian": gaussian.sample((asked.drawn,)),
        "flow": flow.sample(asked.drawn, noise),
    }
    print(frechet_table(encoder, asked.features, drawn, train, held_out[1::2]) + "\n", flush=True)
    for name, latents in drawn.items() if asked.sheet is not None else ():
        (asked.sheet / f"{name}.png").write_bytes(encode_png(tile(model.decode(latents[:32]), 8)))
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
