"""A home's copies of encoders: whole, or restored from the encoder that they were copied from."""

from __future__ import annotations

from pathlib import Path

from indexer.catalogue.home import Home
from indexer.errors import CorruptError, MismatchError
from training.errors import EncoderError
from training.reference import EncoderDescription, describe_any, pretrained_names


def sound_encoder(home: Home, encoder_id: str, source: str | Path | None = None) -> EncoderDescription:
    """A home's encoder; a damaged copy is first restored.

    It is restored from `source` or the shipped encoder with the same id. If only its ONNX file is damaged or missing,
    it is exported again from the weights, with PyTorch.

    Raises:
        CorruptError: the copy is damaged, and nothing of this can restore it.
    """
    try:
        return home.verified_encoder(encoder_id)
    except (CorruptError, MismatchError) as exc:
        if (given := find_same(encoder_id, source)) is not None:
            home.restore_encoder(given)
        if home.has_sound_encoder(encoder_id) or home.restore_onnx(encoder_id):
            return home.verified_encoder(encoder_id)
        raise CorruptError(
            f"{home.encoder_directory(encoder_id)} is damaged, and no shipped encoder has id {encoder_id[:12]}; "
            "give the directory that it was indexed from: `nitamono repair --encoder DIR`"
        ) from exc


def find_same(encoder_id: str, source: str | Path | None) -> EncoderDescription | None:
    """The encoder of `source`, or else the shipped one, if it has this id."""
    for ref in [*([] if source is None else [source]), *pretrained_names()]:
        try:
            described = describe_any(ref)
        except EncoderError:
            continue
        if described.encoder_id == encoder_id:
            return described
    return None
