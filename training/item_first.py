"""Put the item finder before an encoder that is trained already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from training.encoder import Encoder, round_weights
from training.errors import EncoderError
from training.finder.network import Finder
from training.models.item_first import ItemFirst, ItemFirstConfig
from training.onnx.export import add_onnx
from training.preprocessing import Fit, Preprocessing
from training.protocols import LocatingModel

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
    """The encoder that finds the item and then sees it through `inner`.

    Args:
        inner: an encoder of colour pictures that takes them whole.
        size: side of the pictures that items are cut out of.
        fit: how photos become squares, see `Preprocessing`; None as the inner encoder has it.
        card: of the new encoder; None carries over what of the inner encoder's card still holds.
        settings: other values of `ItemFirstConfig`.

    Raises:
        EncoderError: `inner` finds the item already, or takes grey pictures.
        ValueError: a setting is out of its range.
    """
    if isinstance(inner.model, LocatingModel):
        raise EncoderError("this encoder finds the item already; give one that takes pictures whole")
    if inner.preprocessing.channels != 3:
        raise EncoderError("the item finder needs colours; give an encoder of pictures with 3 channels")
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
    """Write the encoder directory of `item_first`, with its ONNX file where the family has one."""
    directory = item_first(inner, finder, **settings).save(out)
    add_onnx(directory)
    return directory
