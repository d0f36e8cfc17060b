"""Encoders."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field

from indexer.catalogue.records import EncoderRecord


class Encoder(BaseModel):
    encoder_id: str
    family: str
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
            dim=record.dim,
            metric=record.metric,
            trained_from=record.trained_from,
            config=record.config,
            card=record.card,
        )


class EncoderList(BaseModel):
    encoders: list[Encoder]
