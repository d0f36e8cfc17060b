"""Encoders without training: pixels and histograms of oriented gradients."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from training.encoder import Encoder
from training.models import MODELS
from training.preprocessing import Preprocessing

DESCRIPTIONS = {
    "hog": "Histograms of oriented gradients (Dalal and Triggs 2005) at 64 x 64; no training, a baseline for shape",
    "pixels": "The pixels at 64 x 64, each image centred on its mean; no training, the simplest baseline",
}

TRAINED_FROM = "label-free: no training"


def write_baselines(folder: Path) -> list[Path]:
    """Write the encoder directories of the parameterless families into a folder, named by family."""
    return [baseline(family).save(folder / family) for family in DESCRIPTIONS]


def baseline(family: str) -> Encoder:
    """The encoder of a parameterless family, in its default configuration."""
    config = MODELS[family].config()
    return Encoder(
        MODELS[family].model(config),
        family=family,
        config=asdict(config),
        preprocessing=Preprocessing(config.size, config.channels),
        card={"name": family, "description": DESCRIPTIONS[family], "trained_from": TRAINED_FROM},
    )
