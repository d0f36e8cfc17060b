"""Encoders."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from indexer.catalogue.records import EncoderRecord
from training.reference import OF_DRAWINGS


class Encoder(BaseModel):
    encoder_id: str
    family: str
    input: Literal["images", "drawings"] = Field(
        description="What the encoder takes: image files, or SVG files with the strokes of a drawing."
    )
    dim: int
    metric: str
    trained_from: str = Field(
        description="What the encoder was trained from: `label-free: ...`, or whose labels; `not stated` if unknown."
    )
    config: dict[str, Any]
    card: dict[str, Any]

    @classmethod
    def of(cls, record: EncoderRecord) -> Self:
        return cls(
            encoder_id=record.encoder_id,
            family=record.family,
            input="drawings" if record.family in OF_DRAWINGS else "images",
            dim=record.dim,
            metric=record.metric,
            trained_from=record.trained_from,
            config=record.config,
            card=record.card,
        )


class EncoderList(BaseModel):
    encoders: list[Encoder]
