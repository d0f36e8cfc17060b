"""Request bodies, sent either as a form with files or as JSON; both become a `Query` or an `Item`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from indexer.catalogue.disk import writing
from indexer.catalogue.records import Rerank
from indexer.errors import InvalidRequestError
from indexer.ingest.items import MAX_IMAGES
from indexer.search.filters import parse_filters
from indexer.search.regions import Region
from service.errors import MediaTypeError
from service.schemas.drawings import DrawingForm, DrawingRequest
from service.schemas.fields import MAX_FILTERS
from service.schemas.items import ItemForm, ItemRequest
from service.schemas.search import SearchForm, SearchRequest
from training.data.texts import text_fault

FORM = "multipart/form-data"
JSON = "application/json"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Form:
    """The text fields and files of a form, each with all its values."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """A search from a form or JSON; exactly one of `image`, `item_id` and `vector` is set."""

    k: int
    offset: int
    filters: dict[str, str]
    image: bytes | None = None
    region: Region | None = None
    item_id: str | None = None
    vector: list[float] | None = None
    rerank: Rerank = "none"
    find_items: bool = False


@dataclass(frozen=True)
class Item:
    """An item to store, from a form or JSON."""

    title: str | None
    attributes: dict[str, str]
    images: list[bytes]


async def read_body(request: Request) -> Form | bytes:
    """Read the body as a form or as JSON bytes, depending on its content type.

    Raises:
        MediaTypeError: it is neither.
        DiskFullError, ReadOnlyError: the folder for temporary files, where large parts of a form are kept, is full.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == JSON:
        return await request.body()
    if media_type != FORM:
        raise MediaTypeError(f"content type {media_type or 'none'!r} is not supported; send {FORM} or {JSON}")
    form = Form()
    with writing(Path(tempfile.gettempdir())):
        parts = await request.form(max_files=MAX_IMAGES, max_fields=MAX_FILTERS + 8)
    try:
        for name, value in parts.multi_items():
            if isinstance(value, UploadFile):
                form.files.setdefault(name, []).append(await value.read())
            else:
                form.texts.setdefault(name, []).append(value)
    finally:
        await parts.close()
    return form


Body = Annotated[Form | bytes, Depends(read_body)]


# Routes call these in their own thread: megabytes of base64 take a while.
def read_query(body: Form | bytes) -> Query:
    """Read a search."""
    if isinstance(body, bytes):
        sent = _from_json(SearchRequest, body)
        region = _region(sent.region)
        return Query(
            sent.k,
            sent.offset,
            sent.filter,
            sent.image_base64,
            region,
            sent.item_id,
            sent.vector,
            sent.rerank,
            sent.find_items,
        )
    form = _from_form(SearchForm, body, texts=("filter",))
    return Query(
        form.k, form.offset, parse_filters(form.filter), form.image, _region(form.region), rerank=form.rerank,
        find_items=form.find_items,
    )  # fmt: skip


def read_drawing(body: Form | bytes) -> bytes:
    """Read the file of a drawing."""
    if isinstance(body, bytes):
        return _from_json(DrawingRequest, body).image_base64
    return _from_form(DrawingForm, body).image


def read_item(body: Form | bytes) -> Item:
    """Read an item."""
    if isinstance(body, bytes):
        sent = _from_json(ItemRequest, body)
        return Item(sent.title, sent.attributes, sent.images_base64)
    form = _from_form(ItemForm, body, files=("image",))
    return Item(form.title, form.attributes, form.image)


def _region(value: tuple[float, float, float, float] | None) -> Region | None:
    return Region(*value) if value is not None else None


def _from_json(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as exc:
        if exc.errors()[0]["type"] == "json_invalid" and (found := _unpaired_surrogate(body)) is not None:
            field, fault = found
            problem = {"type": "text", "loc": ("body", *field), "msg": f"Input {fault}"}
            raise RequestValidationError([problem]) from exc
        raise _invalid(exc) from exc


def _unpaired_surrogate(body: bytes) -> tuple[tuple[str, ...], str] | None:
    """The field with half of a surrogate pair and the fault: Pydantic only reports that the JSON is invalid."""
    try:
        pending: list[tuple[tuple[str, ...], Any]] = [((), json.loads(body))]
    except (ValueError, RecursionError):
        return None
    while pending:
        field, value = pending.pop()
        if isinstance(value, str) and (fault := text_fault(value, lines=True)):
            return field, fault
        if isinstance(value, dict):
            pending += [(field, name) for name in value] + [((*field, name), inner) for name, inner in value.items()]
        if isinstance(value, list):
            pending += [((*field, str(place)), inner) for place, inner in enumerate(value)]
    return None


def _from_form(model: type[M], form: Form, *, texts: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> M:
    """Validate a form; `texts` and `files` name the repeatable fields."""
    values: dict[str, Any] = {**_single(form.texts, texts), **_single(form.files, files)}
    misplaced = [name for name in form.texts if name == "image"] + [name for name in form.files if name != "image"]
    if misplaced:
        wanted = "a file with a file name" if misplaced[0] == "image" else "a text field, not a file"
        raise InvalidRequestError(misplaced[0], f"{misplaced[0]} must be {wanted}")
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise _invalid(exc) from exc


def _single(fields: Mapping[str, list[Any]], repeated: tuple[str, ...]) -> dict[str, Any]:
    for name, values in fields.items():
        if len(values) > 1 and name not in repeated:
            raise InvalidRequestError(name, f"{name} is given {len(values)} times; give it once")
    return {name: values if name in repeated else values[0] for name, values in fields.items()}


def _invalid(exc: ValidationError) -> RequestValidationError:
    return RequestValidationError(exc.errors(include_url=False, include_context=False, include_input=False))
