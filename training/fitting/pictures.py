"""Grids of reconstructions and samples, on disk and in TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.files import publish_file
from training.protocols import GenerativeModel

SHOWN = 16
GAP = 2
COLOURS = 64  # of each frame of an animation
Draw = Callable[[Any, Tensor], dict[str, NDArray[np.uint8]]]  # of a model and examples, pictures by name


class Pictures(Callback):
    """Every few epochs, draws 64 samples, and reconstructions of 16 validation images for models with a decoder.

    Args:
        folder: for the PNG files, which are named by epoch.
        images: validation images `(N, C, S, S)` uint8, or what `draw` takes.
        every: epochs between pictures.
        draw: makes them; None for `draw_pictures`.
    """

    def __init__(self, folder: Path, images: Tensor, every: int, draw: Draw | None = None) -> None:
        self.folder = folder
        self.images = images
        self.every = every
        self.draw = draw or draw_pictures

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and epoch % self.every == 0:
            for name, picture in self.draw(pl_module.model, self.images).items():
                publish_file(self.folder / f"{name}-{epoch:04d}.png", encode_png(picture))
                _board(trainer).add_image(name, picture, epoch, dataformats="HWC")


@torch.no_grad()
def draw_pictures(model: Any, images: Tensor) -> dict[str, NDArray[np.uint8]]:
    """Grids `(H, W, 3)`: 64 `samples`, and for models with a decoder `reconstructions` of up to 16 images.

    Args:
        images: originals of the reconstructions, which are shown above them, `(N, C, S, S)` uint8.
    """
    grids = {"samples": tile(model.sample(4 * SHOWN, torch.Generator().manual_seed(0)), SHOWN)}
    device = next(iter(model.state_dict().values())).device
    if isinstance(model, GenerativeModel):
        originals = images[:SHOWN].to(device).float() / 255.0
        rows = torch.stack([originals, model.reconstruct(originals)]).flatten(0, 1)
        grids["reconstructions"] = tile(rows, len(originals))
    return grids


def tile(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Images `(N, C, H, W)` in [0, 1] on a white grid with `columns` columns, `(H', W', 3)` uint8."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    pixels = (images.clamp(0.0, 1.0) * 255.0).round().byte().cpu().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    canvas = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    return canvas


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def encode_gif(frames: Sequence[NDArray[np.uint8]], milliseconds: int) -> bytes:
    """An animation that repeats forever.

    Args:
        frames: `(H, W, 3)` each.
        milliseconds: time that each frame is shown.
    """
    first, *others = [Image.fromarray(frame).quantize(COLOURS, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return buffer.getvalue()


def _board(trainer: Trainer) -> Any:
    if trainer.logger is None:
        raise ValueError("pictures need a TensorBoard logger")
    return trainer.logger.experiment  # type: ignore[attr-defined]
