"""Drawings, and how a model draws them again."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.schemas.fields import Base64Image, FileBytes

SVG = "SVG file with the strokes of a drawing"


class DrawingForm(BaseModel):
    """A drawing as an uploaded file."""

    model_config = ConfigDict(extra="forbid")

    image: FileBytes = Field(description=f"{SVG}.")


class DrawingRequest(BaseModel):
    """A drawing as base64."""

    model_config = ConfigDict(extra="forbid")

    image_base64: Base64Image = Field(description=f"Bytes of an {SVG}, as base64.")


class Redrawing(BaseModel):
    """What a model draws from the latent of a drawing."""

    collection: str
    strokes: list[list[tuple[float, float]]] = Field(
        description="Points (x, y) of each stroke, x to the right and y down; the drawing's longer side is about 255."
    )
    took_ms: float = Field(description="Time in milliseconds.")
