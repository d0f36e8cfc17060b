"""The OpenAPI document is a contract: it changes only together with `docs/openapi.json`.

`python -m tests.service.test_openapi` writes that file anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from service.app import create_app
from service.settings import Settings

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(references(part) for part in value.values()))
    return set().union(*(references(part) for part in value)) if isinstance(value, list) else set()


def test_the_document_is_the_committed_one() -> None:
    committed = json.loads(COMMITTED.read_text())
    assert document() == committed, "the API changed; write docs/openapi.json anew if that is meant"


def test_the_server_gives_the_document(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json() == document()


def test_every_reference_is_defined() -> None:
    made = document()
    schemas = {f"#/components/schemas/{name}" for name in made["components"]["schemas"]}
    assert references(made) <= schemas


def test_every_operation_tells_of_problems_and_of_its_body() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            problem = operation["responses"]["default"]["content"]["application/problem+json"]
            assert problem["schema"]["$ref"].endswith("/Problem"), path
            assert "422" not in operation["responses"], path
            has_body = method in ("put", "post")
            assert has_body == ("requestBody" in operation), path


def test_the_contract_of_the_design_is_offered() -> None:
    paths = document()["paths"]
    item = "/v1/collections/{collection}/items/{item_id}"
    assert {"put", "get", "delete"} <= paths[item].keys()
    for path in (f"{item}/similar", "/v1/encoders", "/v1/generations", "/healthz", "/readyz", "/metrics"):
        assert "get" in paths[path]
    assert "post" in paths["/v1/collections/{collection}/search"]


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(document(), indent=2, ensure_ascii=False) + "\n")
