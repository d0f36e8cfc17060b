"""The encoders that ship: whole, small, anonymous, and as their code makes them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.baselines import DESCRIPTIONS, write_baselines
from training.data.item_finder import find_item
from training.data.studio import make_item, random_scene, render
from training.encoder import load_encoder
from training.finder.store import SHIPPED
from training.reference import (
    ENCODER_FILES,
    PRETRAINED,
    describe_encoder,
    pretrained_names,
    read_json,
    standing_names,
)

LIMIT = 16 * 2**20  # bytes a file


@pytest.mark.parametrize("name", pretrained_names())
def test_every_shipped_encoder_loads_and_encodes(name: str) -> None:
    encoder = load_encoder(name)
    size, channels = encoder.preprocessing.size, encoder.preprocessing.channels
    images = torch.randint(0, 256, (2, channels, size, size), generator=torch.Generator().manual_seed(0))
    assert encoder.encode(images.byte()).shape == (2, encoder.dim)
    assert encoder.encoder_id == describe_encoder(name).encoder_id == encoder.card["encoder_id"]


@pytest.mark.parametrize("name", pretrained_names())
def test_every_shipped_encoder_says_what_it_was_trained_from(name: str) -> None:
    assert re.match("label-free: .+|.*labels", describe_encoder(name).trained_from)


@pytest.mark.parametrize("name", pretrained_names())
def test_every_shipped_encoder_is_small_and_names_no_place_on_a_disk(name: str) -> None:
    directory = PRETRAINED / name
    assert {path.name for path in directory.iterdir()} <= set(ENCODER_FILES)
    assert max(path.stat().st_size for path in directory.iterdir()) <= LIMIT
    text = (directory / "card.json").read_text() + (directory / "encoder.json").read_text()
    assert not re.search(r'"(/|[A-Za-z]:\\)|/(tmp|home|root|work|Users)/', text)


def test_the_label_free_one_tells_its_figures() -> None:
    card = json.loads((describe_encoder("label-free").directory / "card.json").read_text())
    assert re.fullmatch("[0-9a-f]{64}", card["data"]["fingerprint"])
    assert {"train", "validation", "active_units", "kl_per_unit"} <= set(card["figures"])


def test_the_baselines_are_what_their_code_writes(tmp_path: Path) -> None:
    write_baselines(tmp_path)
    for family in DESCRIPTIONS:
        for name in ("weights.safetensors", "encoder.json"):
            assert (tmp_path / family / name).read_bytes() == (PRETRAINED / family / name).read_bytes(), name
        written, shipped = (read_json(folder / family / "card.json") for folder in (tmp_path, PRETRAINED))
        assert {**shipped, **written} == shipped  # which has the checksum of the ONNX file besides


def test_the_standing_names_are_of_shipped_encoders_and_the_finder_ships_beside_them() -> None:
    names = standing_names()
    assert set(names) == {"default", "accurate", "small", "label-free"}
    assert set(names.values()) <= set(pretrained_names())
    assert describe_encoder("label-free").card["trained_from"].startswith("label-free")
    finder = read_json(SHIPPED / "card.json")
    for name in ("default", "accurate"):
        assert describe_encoder(name).card["trained_from"].startswith("ImageNet labels")
    for name in ("default", "accurate", "label-free"):
        assert describe_encoder(name).card["finder_id"] == finder["finder_id"]
    assert (SHIPPED / "weights.safetensors").stat().st_size <= 2 * 2**20
    assert not re.search(r'"(/|[A-Za-z]:\\)|/(tmp|home|root|work|Users)/', (SHIPPED / "card.json").read_text())


def test_the_shipped_finder_finds_drawn_solids_anywhere_before_rooms_and_textures() -> None:
    """Solids of a seed that it never saw, at a third to nearly all of the frame's side."""
    overlaps = []
    for number in range(24):
        item = make_item(77, number, "solids")
        scene = random_scene(item, 0)
        rng = np.random.default_rng(number)
        scale = float(rng.uniform(0.35, 0.9))
        x, y = (float(v) for v in 0.5 + (1.0 - scale) / 2 * rng.uniform(-1, 1, 2))
        photo = render(item, replace(scene, pose=replace(scene.pose, scale=scale, x=x, y=y)), 160)
        found, true = find_item(photo.image).probability > 0.5, photo.mask > 127
        overlaps.append((found & true).sum() / (found | true).sum())
    assert np.mean(overlaps) > 0.8
    assert np.mean(np.array(overlaps) < 0.5) <= 0.1
