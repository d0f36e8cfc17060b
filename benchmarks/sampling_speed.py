"""Compare cached and naive sampling: `python benchmarks/sampling_speed.py [--batch N]... [--json FILE]`.

Measures seconds per 32 x 32 colour image of a gated PixelCNN with 10 layers and of a PixelCNN++, both with 32 features
and a mixture of 10 logistics, on one thread. Cached sampling draws whole images. Naive sampling takes the same time for
each pixel, so whole images are drawn only for batch size 1; for larger batches the first `--pixels` pixels are timed
and scaled to all 1,024. All pixels drawn by both methods are compared. Weights are random, because they do not affect
the time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from training.layers.autoregressive import to_input
from training.layers.raster import Drawing
from training.models.multiscale import Multiscale, MultiscaleConfig
from training.models.pixel_cnn import PixelCnn, PixelCnnConfig
from training.models.pixel_cnn_pp import PixelCnnPp, PixelCnnPpConfig

SIDE = 32
MIXTURE: dict[str, Any] = {"likelihood": "logistic-mixture", "mixtures": 10, "width": 32}
MODELS: dict[str, Any] = {
    "gated PixelCNN, 10 layers": lambda: PixelCnn(PixelCnnConfig(**MIXTURE, kernel=7, dilations=(1,) * 9)),
    "PixelCNN++, 3 scales of 2 blocks": lambda: PixelCnnPp(PixelCnnPpConfig(**MIXTURE, scales=3, blocks=2)),
}


def timed(model: Any, batch: int, pixels: int, cached: bool) -> tuple[float, torch.Tensor]:
    """Seconds to draw the first pixels of a batch, and the images."""
    known = (torch.arange(SIDE * SIDE) >= pixels).reshape(SIDE, SIDE)
    blank = torch.full((batch, 3, SIDE, SIDE), 0.5)
    drawing = Drawing(model.network, model.distribution, to_input, 1.0, cached)
    started = time.perf_counter()
    drawn = drawing.draw(blank, known, None, torch.Generator().manual_seed(0))
    return time.perf_counter() - started, drawn


def compare(name: str, batch: int, pixels: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    whole = SIDE * SIDE
    fast, images = timed(model, batch, whole, cached=True)
    count = whole if batch == 1 else pixels
    slow, naive = timed(model, batch, count, cached=False)
    first = images.flatten(2)[:, :, :count]
    return {
        "model": name,
        "batch": batch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "cached_seconds_per_image": fast / batch,
        "naive_seconds_per_image": slow * whole / count / batch,
        "ratio": slow * whole / count / fast,
        "pixels_compared": count * batch,
        "equal": bool(torch.equal(first, naive.flatten(2)[:, :, :count])),
    }


def parallel(batch: int) -> dict[str, Any]:
    """The multiscale model, which takes three passes for each doubling of the side."""
    torch.manual_seed(0)
    model = Multiscale(MultiscaleConfig(**{**MIXTURE, "width": 32}, base=4, blocks=2)).eval()
    started = time.perf_counter()
    model.sample(batch, torch.Generator().manual_seed(0))
    return {
        "model": "multiscale, from 4 x 4",
        "batch": batch,
        "seconds_per_image": (time.perf_counter() - started) / batch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, action="append", default=[])
    parser.add_argument("--pixels", type=int, default=48)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows, multiscale = [], []
    print("| model | batch | naive, s/image | cached, s/image | ratio | equal |\n|---|---|---|---|---|---|")
    for name in MODELS:
        for batch in asked.batch or [1, 16, 64]:
            row = compare(name, batch, asked.pixels)
            rows.append(row)
            print(
                f"| {name} | {batch} | {row['naive_seconds_per_image']:.2f} | {row['cached_seconds_per_image']:.3f} "
                f"| {row['ratio']:.0f} | {row['equal']}, {row['pixels_compared']:,} pixels |",
                flush=True,
            )
    for batch in asked.batch or [1, 16, 64]:
        multiscale.append(parallel(batch))
        print(f"| multiscale, from 4 x 4 | {batch} | | {multiscale[-1]['seconds_per_image']:.4f} | | |")
    if asked.json:
        asked.json.write_text(json.dumps({"raster": rows, "multiscale": multiscale}, indent=1) + "\n")


if __name__ == "__main__":
    main()
