"""Information in the latent beside a decoder that sees all earlier pixels: `python benchmarks/ignored_latent.py OUT`.

Trains families with one network and budget on the binarised 8 x 8 digits of scikit-learn (1,797, four fifths for
training): a `pixel-vae` with the plain bound, and the answers to an ignored latent. Prints a Markdown table of the
held-out digits: nats in z (mean and smallest), the bound in nats, active units (of the training digits), and the share
of digits that have the class of most of their 5 nearest training digits. Encoders are written to OUT/NAME and not
trained again if they exist; names after OUT train those alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from training.data.dataset import load_dataset
from training.data.sources import read_images
from training.encoder import Encoder, load_encoder
from training.loop import train
from training.protocols import Batch
from training.recipes import load_recipe

SIGHT = 17  # above twice the side: every earlier pixel
BASE = [
    "preprocessing.size=8", "preprocessing.channels=1", "model.likelihood=bernoulli", "model.widths=[32]",
    "model.decoder_widths=[32]", "model.depth=0", "model.latent_dim=16", f"model.receptive_field={SIGHT}",
    "model.map_width=16", "model.pixel_width=16", "model.head=32", "augment.flip=false", "augment.crop=1.0",
    "batch_size=128", "patience=null", "epochs=60", "ema=0.95", "optimiser.warmup_steps=20", "validation=0.05",
]  # fmt: skip
PLAIN = ["model.free_bits=0", "model.warmup_steps=0"]
STUDY: dict[str, tuple[str, list[str]]] = {
    "pixel-vae": ("pixel-vae", PLAIN),
    "pixel-vae rf3": ("pixel-vae", [*PLAIN, "model.receptive_field=3"]),
    "infovae": ("infovae", ["model.alpha=0.9", "model.lambda_=1000", "model.kernel_width=2.83"]),
    "delta-vae 4": ("delta-vae", ["model.committed_rate=4"]),
    "delta-vae 8": ("delta-vae", ["model.committed_rate=8"]),
    "vlae": ("vlae", [*PLAIN, "model.flow_hidden=[64]"]),
    "vlae rf3": ("vlae", [*PLAIN, "model.flow_hidden=[64]", "model.receptive_field=3"]),
}
NEIGHBOURS = 5


def write_digits(folder: Path) -> None:
    """PNG files in `train` and `held-out`, in a folder per class."""
    digits = load_digits()
    for number, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("held-out" if number % 5 == 4 else "train") / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(values >= 8, 255, 0).astype(np.uint8)).save(path)


def digits_of(encoder: Encoder, source: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Images uint8 `(N, 1, 8, 8)` and classes `(N,)`."""
    images, _ = read_images(source)
    classes = [image.path.parent.name for image in images]
    return torch.from_numpy(load_dataset(images, encoder.preprocessing, progress=False).images), np.array(classes)


@torch.inference_mode()
def figures(encoder: Encoder, data: Path) -> dict[str, float]:
    (gallery, known), (queries, asked) = (digits_of(encoder, data / side) for side in ("train", "held-out"))
    x = queries.float() / 255.0
    bound = encoder.model.elbo(Batch(x, x), samples=8, generator=torch.Generator().manual_seed(0))
    scores = encoder.encode(queries) @ encoder.encode(gallery).T
    nearest = known[scores.topk(NEIGHBOURS, dim=1).indices.numpy()].astype(int)
    voted = [np.bincount(row, minlength=10).argmax() for row in nearest]
    return {
        "nats in z": float(bound.kl.sum(dim=1).mean()),
        "smallest": float(bound.kl.sum(dim=1).min()),
        "bound": float(bound.elbo.mean()),
        "active units": encoder.card["figures"]["active_units"],
        "kNN": float(np.mean(np.array(voted) == asked.astype(int))),
    }


def main(out: Path, names: list[str]) -> None:
    write_digits(out / "digits")
    images, _ = read_images(out / "digits" / "train")
    found = {}
    for name in names or list(STUDY):
        family, overrides = STUDY[name]
        path = train(load_recipe(family, [*BASE, *overrides]), images, out / name, resume=True, precision="32")
        found[name] = figures(load_encoder(path), out / "digits")
        (out / f"{name}.json").write_text(json.dumps(found[name], indent=1))
    columns = list(next(iter(found.values())))
    print(f"| | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for name, row in found.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.3g}' for column in columns)} |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
