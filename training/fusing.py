"""Builds a fusion encoder (`training.models.fusion`) from trained encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.models import MODELS
from training.models.families import Part
from training.preprocessing import Preprocessing
from training.reference import ImageEncoderDescription, describe_encoder

FAMILY = "fusion"


def fuse(refs: Sequence[str | Path], weights: Sequence[float] | None = None) -> Encoder:
    """Fuse encoders; the fusion takes images at the largest size of its parts.

    Args:
        refs: at least two encoders, see `describe_encoder`.
        weights: one per encoder, scaled to sum 1; None for equal weights.

    Raises:
        EncoderError: an encoder cannot be used, or the encoders cannot be combined.
    """
    found = [describe_encoder(ref) for ref in refs]
    if len(found) < 2:
        raise EncoderError("give at least two encoders to fuse")
    shares = _shares(weights, len(found))
    preprocessing = _preprocessing(found)
    parts = [Part(family=d.family, config=d.config) for d in found]
    try:
        config = MODELS[FAMILY].config(preprocessing.size, preprocessing.channels, tuple(parts), shares)
        model = MODELS[FAMILY].model(config)
    except ValueError as exc:
        raise EncoderError(f"cannot fuse {', '.join(map(str, refs))}: {exc}") from exc
    encoders = [load_encoder(d.directory) for d in found]
    model.load_state_dict(
        {f"parts.{n}.{name}": t for n, e in enumerate(encoders) for name, t in e.model.state_dict().items()}
    )
    return Encoder(
        model,
        family=FAMILY,
        config=asdict(config),
        preprocessing=preprocessing,
        card=_card(found, shares),
        stored_as=_types(model, encoders),
    )


def _shares(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count or not all(0 < weight < float("inf") for weight in given):
        text = ",".join(f"{weight:g}" for weight in given)
        raise EncoderError(f"weights {text!r}: give {count} numbers above 0, one per encoder")
    rounded = [round(weight / sum(given), 6) for weight in given[:-1]]
    return (*rounded, round(1 - sum(rounded), 6))


def _preprocessing(found: Sequence[ImageEncoderDescription]) -> Preprocessing:
    fits = {d.preprocessing.fit: d.card.get("name", d.family) for d in found}
    if len(fits) > 1:
        differing = ", ".join(f"{name} has fit {fit}" for fit, name in fits.items())
        raise EncoderError(
            f"encoders must make photos square by the same fit, but {differing}; import or train with one fit"
        )
    size, channels = max(d.preprocessing.size for d in found), max(d.preprocessing.channels for d in found)
    return Preprocessing(size, channels, found[0].preprocessing.fit)


def _types(model: Any, encoders: Sequence[Encoder]) -> dict[str, torch.dtype]:
    """The dtypes in which the files of the parts store their tensors."""
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    return types | {f"parts.{n}.{name}": t for n, e in enumerate(encoders) for name, t in e.stored_types().items()}


def _card(found: Sequence[ImageEncoderDescription], shares: Sequence[float]) -> dict[str, Any]:
    parts = [
        {
            "name": d.card.get("name", d.family),
            "encoder_id": d.encoder_id,
            "weight": share,
            "trained_from": d.trained_from,
            **({"licence": d.card["licence"]} if "licence" in d.card else {}),
        }
        for d, share in zip(found, shares, strict=True)
    ]
    return {
        "description": "Fusion of " + " and ".join(f"{part['name']} ({part['weight']:g})" for part in parts),
        "trained_from": "; ".join(f"{part['name']}: {part['trained_from']}" for part in parts),
        "parts": parts,
    }


def save_fusion(encoder: Encoder, out: Path) -> ImageEncoderDescription:
    """Write the directory of a fusion, with an ONNX file if all parts can be exported."""
    from training.onnx.export import add_onnx

    encoder.card = {"name": out.name, **encoder.card}
    encoder.save(out)
    add_onnx(out)
    return describe_encoder(out)
