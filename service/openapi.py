"""The OpenAPI document: what FastAPI derives from the routes, plus request bodies and problem documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.bodies import FORM, JSON
from service.problems import MEDIA_TYPE, Problem
from service.schemas.items import ItemForm, ItemRequest
from service.schemas.search import SearchForm, SearchRequest

UNDECLARED: tuple[type[BaseModel], ...] = (Problem, SearchForm, SearchRequest, ItemForm, ItemRequest)
REFERENCE = "#/components/schemas/{model}"
PROBLEM_RESPONSE: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Problem document (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}},
    }
}


def two_bodies(form: type[BaseModel], json: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that accepts a form or JSON."""
    content = {
        media_type: {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}
        for media_type, model in ((FORM, form), (JSON, json))
    }
    return {"requestBody": {"required": True, "content": content}}


def openapi_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A replacement of `app.openapi` that builds the document once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            _, definitions = models_json_schema([(model, "validation") for model in UNDECLARED], ref_template=REFERENCE)
            schemas = document["components"]["schemas"]
            schemas.update(definitions["$defs"])
            document["components"]["schemas"] = dict(sorted(schemas.items()))
            app.openapi_schema = document
        return app.openapi_schema

    return openapi
