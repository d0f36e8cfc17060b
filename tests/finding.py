"""An encoder that finds the item first and needs no training: it takes what is red for the item."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from training.encoder import Encoder
from training.files import publish_directory
from training.models import MODELS
from training.onnx.export import add_onnx
from training.preprocessing import Fit, Preprocessing

SEVERAL = ((10, 10, 60, 60), (80, 50, 130, 105), (148, 20, 190, 64))  # left, top, right, bottom of things in a photo
SEVERAL_SIZE = (200, 120)
FINDER: dict[str, Any] = {
    "size": 32, "widths": (4, 4), "depths": (0, 0), "decoder_widths": (4,), "normalisation": False,
}  # fmt: skip


def finds_red(directory: Path, fit: Fit) -> Path:
    """An item-first encoder over pixels whose finder, with weights set by hand, takes what is red for the item."""
    return publish_directory(directory, _encoder_files(fit))


@cache
def _encoder_files(fit: Fit) -> dict[str, bytes]:
    """The encoder's files by name; the export to ONNX takes seconds."""
    with tempfile.TemporaryDirectory() as directory:
        _write_encoder(Path(directory), fit)
        return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def _write_encoder(directory: Path, fit: Fit) -> None:
    config = MODELS["item-first"].config(
        size=64, finder=FINDER, encoder={"family": "pixels", "config": {"size": 16, "channels": 3}}, margin=0.0
    )
    model = MODELS["item-first"].model(config)
    finder = model.finder
    with torch.no_grad():
        for parameter in finder.parameters():
            parameter.zero_()
        first = finder.stages[0][0].convolution.weight
        first[0, 0, 1, 1], first[0, 2, 1, 1] = 20.0, -20.0  # red less blue at each cell, through SiLU
        finder.laterals[0].weight[0, 0] = 1.0
        finder.mask.weight[0, 0, 1, 1], finder.mask.bias[0] = 4.0, -20.0
        finder.quality[2].bias[0] = 4.0
    values = json.loads(json.dumps(asdict(config)))
    encoder = Encoder(model, family="item-first", config=values, preprocessing=Preprocessing(64, 3, fit))
    encoder.save(directory)
    add_onnx(directory)


def shop_that_finds(folder: Path) -> Path:
    """The home of a collection `shop` by an encoder that finds the item first."""
    (folder / "photos").mkdir()
    for number in range(3):
        (folder / "photos" / f"{number}.png").write_bytes(photo(30 * number, 10 * number))
    with Home.open(folder / "home", create=True) as home:
        encoder = finds_red(folder / "encoder", "stretch")
        index_source(home, "shop", folder / "photos", encoder_ref=str(encoder), processes=0)
    return folder / "home"


def photo(left: int, top: int, *, size: tuple[int, int] = (160, 80), shade: int = 60) -> bytes:
    """A red square of 40 pixels on a bluish ground."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[...] = (30, shade, 200)
    pixels[top : top + 40, left : left + 40] = (230, 30, 20)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def several() -> bytes:
    """A red square, a green disc and a yellow rectangle on white, each apart from the others."""
    image = Image.new("RGB", SEVERAL_SIZE, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle(SEVERAL[0], fill=(220, 40, 30))
    draw.ellipse(SEVERAL[1], fill=(30, 160, 60))
    draw.rectangle(SEVERAL[2], fill=(240, 210, 40))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
