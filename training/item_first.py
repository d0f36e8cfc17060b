"""Puts the item finder in front of a trained encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from training.encoder import Encoder
from training.errors import EncoderError
from training.finder.network import Finder
from training.models.item_first import ItemFirst, ItemFirstConfig
from training.onnx.export import add_onnx
from training.preprocessing import Fit, Preprocessing
from training.protocols import LocatingModel
from training.stored import round_weights

CARRIED = ("description", "data", "recipe", "seed", "commit", "labels", "trained_from", "licence", "attribution")


def item_first(
    inner: Encoder,
    finder: Finder,
    *,
    size: int = ItemFirstConfig.size,
    fit: Fit | None = None,
    card: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Encoder:
    """An encoder that finds the item and encodes it with `inner`.

    Args:
        inner: an encoder of whole colour images.
        size: side of the images that items are cropped from.
        fit: how photos become squares, see `Preprocessing`; None for that of the inner encoder.
        card: card of the new encoder; None copies the values of the inner encoder's card that still apply.
        settings: other values of `ItemFirstConfig`.

    Raises:
        EncoderError: `inner` already finds the item, or takes grey images.
        ValueError: a setting is out of range.
    """
    if isinstance(inner.model, LocatingModel):
        raise EncoderError("this encoder already finds the item; give one that encodes whole images")
    if inner.preprocessing.channels != 3:
        raise EncoderError("the item finder needs colour; give an encoder with 3 channels")
    config = ItemFirstConfig(
        size=size, finder=asdict(finder.config), encoder={"family": inner.family, "config": inner.config}, **settings
    )
    model = ItemFirst(config)
    model.finder.load_state_dict(finder.state_dict())
    model.encoder.load_state_dict(inner.model.state_dict())
    round_weights(model.finder, torch.float16)
    if card is None:
        card = {name: inner.card[name] for name in CARRIED if name in inner.card}
    return Encoder(
        model,
        family="item-first",
        config=json.loads(json.dumps(asdict(config))),
        preprocessing=Preprocessing(size, 3, fit or inner.preprocessing.fit),
        card={**card, "inner_encoder_id": inner.encoder_id},
        stored_as=dict.fromkeys((f"finder.{name}" for name in model.finder.state_dict()), torch.float16)
        | {f"encoder.{name}": stored for name, stored in inner.stored_types().items()},
    )


def write_item_first(inner: Encoder, finder: Finder, out: Path, **settings: Any) -> Path:
    """Write the directory of an `item_first` encoder, with an ONNX file if the inner family can be exported."""
    directory = item_first(inner, finder, **settings).save(out)
    add_onnx(directory)
    return directory
