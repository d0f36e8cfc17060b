"""The OpenAPI document: what FastAPI derives from the routes, plus request bodies, errors and security."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from indexer.errors import (
    BusyError,
    CatalogueError,
    CorruptError,
    DiskFullError,
    InvalidRequestError,
    MismatchError,
    NotFoundError,
    ReadOnlyError,
)
from service import errors
from service.auth import Needs, Scope
from service.bodies import FORM, JSON
from service.problems import BAD_REQUEST, KINDS, MEDIA_TYPE, TYPE_PREFIX, Kind, Problem
from service.rate_limits import LIMITED
from service.schemas.drawings import DrawingForm, DrawingRequest
from service.schemas.items import ItemForm, ItemRequest
from service.schemas.search import SearchForm, SearchRequest
from training.errors import ImageError, ImageMemoryError, NitamonoError

DESCRIPTION = """\
Every error is a problem document (RFC 9457) whose `type` is one of those that its operation lists. Before a request
reaches an operation, the connection may answer without a body: 408 if the headers take too long, 431 if they exceed
64 KiB with the URL, 503 if there are too many connections. Paths that no operation has get 404, other methods 405.

Until the first API key is created, no request needs one.
"""
UNDECLARED: tuple[type[BaseModel], ...] = (
    *(Problem, SearchForm, SearchRequest, ItemForm, ItemRequest),
    *(DrawingForm, DrawingRequest),
)
OF_FASTAPI = ("HTTPValidationError", "ValidationError")  # not what our 422 looks like
REFERENCE = "#/components/schemas/{model}"

Errors = tuple[type[Exception], ...]
EVERYWHERE: Errors = (errors.HostError, NitamonoError)
CATALOGUE: Errors = tuple(error for error in KINDS if issubclass(error, CatalogueError))
DATABASE: Errors = (errors.OverloadedError, BusyError, *CATALOGUE)  # operations that read the catalogue
WRITES: Errors = (errors.ForbiddenError, DiskFullError, ReadOnlyError)  # operations that need more, besides those
BODIES: Errors = (errors.TooLargeError, errors.RequestTimeoutError)
SEARCHES: Errors = (NotFoundError, MismatchError, CorruptError)
IMAGES: Errors = (ImageMemoryError, ImageError)
# What an operation itself raises, by its operationId.
RAISED: dict[str, Errors] = {
    "search": (*SEARCHES, *IMAGES),
    "redraw": (*SEARCHES, *IMAGES),
    "similar_items": SEARCHES,
    "store_item": (NotFoundError, MismatchError, CorruptError, *IMAGES),
    "show_item": (NotFoundError,),
    "remove_item": (NotFoundError,),
    "show_collection": (NotFoundError,),
    "show_image": (NotFoundError, *IMAGES),
    "list_generations": (NotFoundError,),
    "activate_generation": (NotFoundError, MismatchError, CorruptError),
    "readyz": (errors.NotReadyError, *CATALOGUE),
}


def two_bodies(form: type[BaseModel], json: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that accepts a form or JSON."""
    content = {
        media_type: {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}
        for media_type, model in ((FORM, form), (JSON, json))
    }
    return {"requestBody": {"required": True, "content": content}}


def openapi_of(app: FastAPI, *, public_read: bool) -> Callable[[], dict[str, Any]]:
    """A replacement of `app.openapi` that builds the document once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, summary=app.summary, description=DESCRIPTION, routes=app.routes
            )
            _, definitions = models_json_schema([(model, "validation") for model in UNDECLARED], ref_template=REFERENCE)
            schemas = {**document["components"]["schemas"], **definitions["$defs"]}
            document["components"]["schemas"] = {name: schemas[name] for name in sorted({*schemas} - {*OF_FASTAPI})}
            for context in iter_route_contexts(app.routes):
                for method in (context.methods or set()) if hasattr(context, "dependant") else ():
                    operation = document["paths"].get(context.path_format, {}).get(method.lower())
                    if operation is not None:
                        responses = document["components"].setdefault("responses", {})
                        _complete(operation, context, public_read, responses)
            app.openapi_schema = document
        return app.openapi_schema

    return openapi


def _complete(operation: dict[str, Any], context: RouteContext, public_read: bool, responses: dict[str, Any]) -> None:
    """Add the errors of an operation, which share `responses` with others, and say whether it needs a key."""
    needs = [found.call for found in context.dependant.dependencies if isinstance(found.call, Needs)]
    if "security" in operation and all(each.is_open(public_read) for each in needs):
        operation["security"].insert(0, {})  # an alternative without a key
    kinds = {KINDS[error] for error in _errors(operation, context.path_format or "", needs)}
    if "requestBody" in operation:
        kinds.add(BAD_REQUEST)
    operation["responses"].pop("422", None)  # FastAPI's own
    by_status: dict[int, list[Kind]] = {}
    for kind in sorted(kinds):
        by_status.setdefault(kind.status, []).append(kind)
    for status, each in by_status.items():
        name = "-".join([str(status), *sorted({kind.name for kind in each})])
        responses[name] = _response(status, each)
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/{name}"}
    operation["responses"]["431"] = {"description": "URL and headers exceed 64 KiB"}


def _errors(operation: dict[str, Any], path: str, needs: list[Needs]) -> Iterator[type[Exception]]:
    yield from EVERYWHERE
    yield from RAISED.get(operation["operationId"], ())
    if path.startswith(LIMITED):
        yield errors.RateLimitError
    if "parameters" in operation or "requestBody" in operation:
        yield InvalidRequestError
    if "requestBody" in operation:
        yield from BODIES
        if FORM in operation["requestBody"]["content"]:
            yield errors.MediaTypeError
    if needs:
        yield errors.AuthenticationError
        yield from DATABASE
    if any(each.scope > Scope.read for each in needs):
        yield from WRITES


def _response(status: int, kinds: list[Kind]) -> dict[str, Any]:
    types = sorted({TYPE_PREFIX + kind.name for kind in kinds})
    narrowed = {"type": {"enum": types}, "status": {"const": status}}
    schema = {"allOf": [{"$ref": REFERENCE.format(model=Problem.__name__)}, {"properties": narrowed}]}
    response: dict[str, Any] = {
        "description": "; ".join(dict.fromkeys(kind.title for kind in kinds)),
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
    if status == KINDS[errors.RateLimitError].status:
        retry_after = {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1}}
        response["headers"] = {"Retry-After": retry_after}
    return response
