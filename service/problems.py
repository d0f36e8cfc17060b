"""Errors as RFC 9457 problem documents; one table maps exception classes to statuses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from indexer.errors import (
    BusyError,
    CatalogueError,
    CorruptError,
    DamagedCatalogueError,
    DiskFullError,
    InvalidRequestError,
    LostCatalogueError,
    MismatchError,
    NotFoundError,
    ReadOnlyError,
)
from service import errors
from service.logs import error_once
from service.middleware import METHODS, add_headers, request_id_of
from training.data.texts import visible
from training.errors import ImageError, ImageMemoryError, NitamonoError

logger = logging.getLogger("nitamono")

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:nitamono:problem:"


class FieldProblem(BaseModel):
    """An invalid field of a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(examples=[TYPE_PREFIX + "not-found"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    request_id: str | None = Field(
        None, description="X-Request-ID of the response, which also appears in the server's log."
    )
    field: str | None = Field(None, description="First invalid field.")
    errors: list[FieldProblem] | None = Field(None, description="All invalid fields.")


class Kind(NamedTuple):
    """How clients see a class of errors; `neutral` replaces a detail that is for the operator's log only."""

    status: int
    name: str
    title: str
    neutral: str | None = None


INTERNAL = Kind(500, "internal", "Internal error")
BAD_REQUEST = Kind(400, "bad-request", "Bad Request")  # of the parsers of forms and JSON
KINDS: dict[type[Exception], Kind] = {
    NotFoundError: Kind(404, "not-found", "Not found"),
    InvalidRequestError: Kind(422, "invalid-request", "Invalid request"),
    ImageMemoryError: Kind(413, "too-large", "Image too large"),
    ImageError: Kind(422, "unusable-image", "Unusable image"),
    MismatchError: Kind(409, "mismatch", "Encoder and index do not match"),
    BusyError: Kind(503, "busy", "Server busy"),
    CorruptError: Kind(
        503,
        "damaged",
        "Index damaged",
        "the index or the encoder of this collection is damaged; the operator must run `nitamono repair`",
    ),
    CatalogueError: Kind(
        503,
        "catalogue-unavailable",
        "Catalogue unavailable",
        "the catalogue's database cannot be used at the moment; the server's log has the reason",
    ),
    DamagedCatalogueError: Kind(
        503,
        "catalogue-damaged",
        "Catalogue damaged",
        "the catalogue is damaged; the operator must restore it from a backup with `nitamono restore`",
    ),
    LostCatalogueError: Kind(
        503,
        "catalogue-lost",
        "Catalogue lost",
        "the catalogue was deleted or replaced; the operator must restore it from a backup with `nitamono restore`",
    ),
    DiskFullError: Kind(
        507, "disk-full", "Disk full", "nothing can be stored, because the server's disk is full; nothing was changed"
    ),
    ReadOnlyError: Kind(
        503, "read-only", "Server read-only", "nothing can be stored, because the server's files are read-only"
    ),
    errors.HostError: Kind(421, "misdirected-request", "Unknown host name"),
    errors.AuthenticationError: Kind(401, "unauthenticated", "API key required"),
    errors.ForbiddenError: Kind(403, "forbidden", "Access denied"),
    errors.RateLimitError: Kind(429, "rate-limited", "Too many requests"),
    errors.TooLargeError: Kind(413, "too-large", "Request too large"),
    errors.MediaTypeError: Kind(415, "unsupported-media-type", "Unsupported media type"),
    errors.OverloadedError: Kind(503, "overloaded", "Server overloaded"),
    errors.RequestTimeoutError: Kind(408, "request-timeout", "Request timed out"),
    errors.NotReadyError: Kind(503, "not-ready", "Server not ready"),
    # Such as a missing encoder: details are for the operator's log, not for the shopper.
    NitamonoError: INTERNAL._replace(neutral="the server cannot answer this request at the moment; see its log"),
}
RETRY_AFTER_SECONDS = {"busy": 2, "overloaded": 1, "not-ready": 5}


def add_problem_handlers(app: FastAPI) -> None:
    """Turn every error of the app into a problem document."""
    for error in KINDS:
        app.add_exception_handler(error, known_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unknown)


def problem(
    request: Request,
    kind: Kind,
    detail: str,
    *,
    invalid: Sequence[FieldProblem] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """Build the response for a problem."""
    document = Problem(
        type=TYPE_PREFIX + kind.name,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=request.url.path,
        request_id=request_id_of(request.scope),
        field=invalid[0].field if invalid else None,
        errors=list(invalid) or None,
    )
    content = document.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=kind.status, media_type=MEDIA_TYPE, headers=headers)


def field_problems(found: Sequence[Any]) -> list[FieldProblem]:
    """Turn Pydantic's errors into sentences that name the field."""
    problems = []
    for error in found:
        location = [str(part) for part in error["loc"]]
        if location and location[0] in ("body", "query", "path", "header"):
            location = location[1:]
        field = visible(".".join(part for part in location if part != "[key]")) or "body"
        problems.append(FieldProblem(field=field, detail=_sentence(field, error)))
    return problems


def _sentence(field: str, error: Any) -> str:
    message = str(error["msg"])
    if error["type"] == "missing":
        return f"{field} is required"
    if error["type"] == "extra_forbidden":
        return f"{field} is unknown; leave it out"
    if message.startswith("Input "):
        return f"{field} {message.removeprefix('Input ')}"
    message = message.removeprefix("Value error, ")
    return message if field == "body" else f"{field}: {message}"


def known_problem(request: Request, exc: Exception) -> Response:
    """The response for an exception whose class is in `KINDS`."""
    kind = next(KINDS[base] for base in type(exc).__mro__ if base in KINDS)
    invalid = [FieldProblem(field=exc.field, detail=str(exc))] if isinstance(exc, InvalidRequestError) else []
    if isinstance(exc, ImageError):
        invalid = [FieldProblem(field="image", detail=str(exc))]
    headers: dict[str, str] = {}
    if isinstance(exc, errors.AuthenticationError):
        headers["WWW-Authenticate"] = 'Bearer realm="nitamono"' + (', error="invalid_token"' if exc.given else "")
    if isinstance(exc, errors.ForbiddenError):
        headers["WWW-Authenticate"] = f'Bearer realm="nitamono", error="insufficient_scope", scope="{exc.scope}"'
    if isinstance(exc, errors.RequestTimeoutError):
        headers["Connection"] = "close"  # the rest of the body is not read
    if isinstance(exc, errors.RateLimitError):
        headers["Retry-After"] = str(exc.retry_after)
    if kind.name in RETRY_AFTER_SECONDS:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS[kind.name])
    if kind.name == INTERNAL.name:
        logger.error("%s: %s", type(exc).__name__, exc, exc_info=exc)
    elif kind.neutral is not None:
        error_once(str(exc))
    return problem(request, kind, kind.neutral or str(exc), invalid=invalid, headers=headers)


def _on_invalid(request: Request, exc: Exception) -> Response:
    invalid = field_problems(cast(RequestValidationError, exc).errors())
    detail = "; ".join(entry.detail for entry in invalid)
    return problem(request, KINDS[InvalidRequestError], detail, invalid=invalid)


def _on_http(request: Request, exc: Exception) -> Response:
    """404 and 405 from the router, 400 from the form parser."""
    error = cast(HTTPException, exc)
    title = HTTPStatus(error.status_code).phrase
    kind = Kind(error.status_code, title.lower().replace(" ", "-"), title)
    headers = dict(error.headers or {})
    detail = error.detail if error.detail != title else ""
    if error.status_code == 404:
        detail = detail or f"{request.url.path} does not exist; /openapi.json lists all paths"
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
        detail = f"{request.method} is not supported here; use {headers['Allow']}"
    return problem(request, kind, detail or title, headers=headers)


def _methods(request: Request) -> list[str]:
    """The methods of all routes of a path; the router names those of one."""
    scopes = ({**request.scope, "method": method} for method in sorted(METHODS))
    routes = request.app.routes
    return [scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


def _on_disconnect(request: Request, exc: Exception) -> Response:
    return problem(
        request, Kind(400, "disconnected", "Disconnected"), "the client disconnected before the request was complete"
    )


def _on_unknown(request: Request, exc: Exception) -> Response:
    # Starlette raises the exception again after this response, so that the server logs the traceback. The response
    # bypasses our middleware, so its headers are added here.
    response = problem(request, INTERNAL, "the server failed to answer this request; see its log")
    add_headers(response.headers, request_id_of(request.scope) or "")
    return response
