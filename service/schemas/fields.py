"""Field types that several schemas share."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, cast
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, StringConstraints, WithJsonSchema
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from indexer.ingest.attributes import MAX_NAME, MAX_VALUE
from training.data.texts import MAX_ITEM_ID, text_fault

MAX_FILTERS = 32


def _decode_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("expected the file's bytes as base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError(f"not valid base64 ({exc})") from exc


def _check_lines(value: str) -> str:
    return _check(value, lines=True)


def _check_name(value: str) -> str:
    return _check(value, lines=False)


def _check(value: str, *, lines: bool) -> str:
    """Refuse what a catalogue cannot hold, such as control characters."""
    if fault := text_fault(value, lines=lines):
        raise PydanticCustomError("text", "Input {fault}", {"fault": fault})
    return value


def _whole(value: Any) -> Any:
    """The integer of a JSON number such as 3.0, which JSON Schema counts among the integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _split_region(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


Base64Image = Annotated[
    bytes, PlainValidator(_decode_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
FileBytes = Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})]
Whole = Annotated[int, BeforeValidator(_whole)]
FRACTION = r"(0(\.[0-9]{1,15})?|1(\.0)?)"
Fraction = Annotated[float, Field(ge=0, le=1)]
RegionValue = Annotated[
    tuple[Fraction, Fraction, Fraction, Fraction],
    Field(description="Region of the upright image: x, y, width, height as fractions of its size."),
]
RegionText = Annotated[
    tuple[Fraction, Fraction, Fraction, Fraction],
    BeforeValidator(_split_region),
    WithJsonSchema({"type": "string", "pattern": "^(NUMBER,){3}NUMBER$".replace("NUMBER", FRACTION)}),
    Field(
        description="Region of the upright image to search with: x,y,width,height as fractions of its size.",
        examples=["0.1,0.2,0.5,0.5"],
    ),
]
# `_check` in the schema: it also refuses surrogates, which no JSON schema can name.
LINES_PATTERN = r"^[^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*$"
LINES = Field(json_schema_extra={"pattern": LINES_PATTERN})
NO_CONTROLS = Field(json_schema_extra={"pattern": r"^[^\u0000-\u001F\u007F-\u009F]*$"})


def _or_missing(schema: JsonDict) -> None:
    del schema["default"]
    alternatives = cast(list[JsonDict], schema.pop("anyOf"))
    schema.update(next(each for each in alternatives if each != {"type": "null"}))


OR_MISSING = Field(json_schema_extra=_or_missing)  # of a form, whose fields may be missing but never null
Text = Annotated[str, StringConstraints(max_length=MAX_VALUE), AfterValidator(_check_lines), LINES]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME), AfterValidator(_check_name), NO_CONTROLS]
ItemIdText = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_ITEM_ID), AfterValidator(_check_name), NO_CONTROLS
]
Attributes = dict[Name, Text]
FilterText = Annotated[
    str,
    StringConstraints(pattern="^[^=]+=", max_length=MAX_NAME + 1 + MAX_VALUE),
    AfterValidator(_check_lines),
    Field(json_schema_extra={"pattern": LINES_PATTERN.replace("]*$", "=]+=") + LINES_PATTERN.removeprefix("^")}),
]
FilterTexts = Annotated[
    list[FilterText],
    Field(
        max_length=MAX_FILTERS,
        description="Attribute that results must have, as `key=value`; repeatable, but not with the same key.",
    ),
]


def image_url(collection: str, image_id: int) -> str:
    """The path that serves an image."""
    return f"/v1/collections/{quote(collection, safe='')}/images/{image_id}"
