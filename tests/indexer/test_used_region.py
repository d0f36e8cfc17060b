"""Which part of a query photo was searched with: the one that was asked for, the item that was found, or all of it."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.home import Home
from indexer.ingest import index_source
from indexer.search import Region, Searcher
from training.encoder import Encoder
from training.export import add_onnx
from training.models import MODELS
from training.preprocessing import Fit, Preprocessing

FINDER: dict[str, Any] = {
    "size": 32, "widths": (4, 4), "depths": (0, 0), "decoder_widths": (4,), "normalisation": False,
}  # fmt: skip


def finds_red(directory: Path, fit: Fit) -> Path:
    """An item-first encoder over pixels whose finder, with weights set by hand, takes what is red for the item."""
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
    return directory


def photo(left: int, top: int, *, size: tuple[int, int] = (160, 80), shade: int = 60) -> bytes:
    """A red square of 40 pixels on a bluish ground."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[...] = (30, shade, 200)
    pixels[top : top + 40, left : left + 40] = (230, 30, 20)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module", params=["stretch", "pad"])
def searcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("region")
    (folder / "photos").mkdir()
    for number in range(3):
        (folder / "photos" / f"{number}.png").write_bytes(photo(20 * number, 10 * number))
    encoder = finds_red(folder / "encoder", request.param)
    home = Home.open(folder / "home", create=True)
    index_source(home, "default", folder / "photos", encoder_ref=str(encoder), processes=0)
    return Searcher(home)


def test_the_item_found_is_told_in_the_photos_own_measures(searcher: Searcher) -> None:
    page = searcher.search_image("default", photo(100, 30))
    assert page.used is not None and page.used.chosen_by == "encoder"
    assert page.used.confidence is not None and page.used.confidence > 0.9
    region = page.used.region
    middle = (region.x + region.width / 2, region.y + region.height / 2)
    assert np.abs(np.subtract(middle, (120 / 160, 50 / 80))).max() < 0.06
    assert region.x <= 100 / 160 + 0.05 and region.x + region.width >= 140 / 160 - 0.05


def test_a_region_of_ones_own_overrides_what_would_be_found(searcher: Searcher) -> None:
    asked = Region(0.0, 0.0, 0.5, 1.0)
    page = searcher.search_image("default", photo(100, 30), region=asked)
    assert page.used is not None
    assert (page.used.region, page.used.chosen_by, page.used.confidence) == (asked, "request", None)


def test_searches_without_a_photo_tell_no_region(searcher: Searcher) -> None:
    item = searcher.search_image("default", photo(0, 0)).results[0].item_id
    assert searcher.search_item("default", item).used is None
