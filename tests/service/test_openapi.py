"""The OpenAPI document is a contract: it changes only together with `docs/openapi.json`.

`python -m tests.service.test_openapi` writes that file anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs

from service.app import create_app
from service.openapi import RAISED
from service.problems import BAD_REQUEST, KINDS, TYPE_PREFIX
from service.settings import Settings

BODIES: list[tuple[dict[str, Any], bool]] = [
    ({"item_id": "bag/0000"}, True),
    ({"item_id": "bag/0000", "vector": None, "region": None, "find_items": False}, True),
    ({"item_id": "bag/0000", "vector": [1.0]}, False),
    ({"item_id": None}, False),
    ({}, False),
    ({"item_id": "bag/0000", "region": [0, 0, 1, 1]}, False),
    ({"item_id": "bag/0000", "find_items": True}, False),
    ({"item_id": "bag/0000\n"}, False),
    ({"item_id": "bag/0000", "offset": 10_000}, False),
    ({"item_id": "bag/0000", "offset": 9_999, "k": 1}, True),
    ({"item_id": "bag/0000", "k": 1001}, False),
    ({"item_id": "bag/0000", "filter": {"category": "bag"}}, True),
    ({"item_id": "bag/0000", "filter": {"category": "bag\u0007"}}, False),
    ({"item_id": "bag/0000", "filter": {"": "bag"}}, False),
]
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


def test_every_reference_is_defined_and_used() -> None:
    made = document()
    kinds = ("schemas", "responses")
    assert references(made) == {f"#/components/{kind}/{name}" for kind in kinds for name in made["components"][kind]}


def operations() -> dict[str, dict[str, Any]]:
    paths = document()["paths"].values()
    return {operation["operationId"]: operation for methods in paths for operation in methods.values()}


def types_of(response: dict[str, Any]) -> set[str]:
    """The problem types that a response lists, without their prefix."""
    response = document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    _, narrowed = response["content"]["application/problem+json"]["schema"]["allOf"]
    return {name.removeprefix(TYPE_PREFIX) for name in narrowed["properties"]["type"]["enum"]}


def test_every_operation_lists_its_errors_by_status() -> None:
    listed = set()
    for name, operation in operations().items():
        responses = operation["responses"]
        assert "default" not in responses, name
        for status, response in responses.items():
            if int(status) >= 400 and status != "431":  # of the connection, without a body
                listed |= {(int(status), each) for each in types_of(response)}
        assert {"421", "431", "500"} <= responses.keys(), name
        assert ("429" in responses) == (name not in ("healthz", "readyz", "metrics")), name
        has_body = "requestBody" in operation
        assert all((status in responses) == has_body for status in ("400", "408")), name
    # Whatever the server can answer is listed where it can.
    assert listed == {(kind.status, kind.name) for kind in (*KINDS.values(), BAD_REQUEST)}


def test_each_entry_of_the_table_of_errors_is_an_operation() -> None:
    assert RAISED.keys() <= operations().keys()


def test_security_is_optional_where_a_request_without_a_key_is_accepted() -> None:
    required: list[dict[str, Any]] = [{"HTTPBearer": []}]
    optional = [{}, *required]
    found = {name: operation.get("security") for name, operation in operations().items()}
    writes = ("store_item", "remove_item", "activate_generation")
    assert found == {
        name: None if name == "healthz" else required if name in (*writes, "metrics") else optional for name in found
    }
    for name, operation in operations().items():
        assert ("403" in operation["responses"]) == (name in writes), name
    closed = create_app(Settings(public_read=False)).openapi()["paths"]
    assert closed["/v1/collections"]["get"]["security"] == required
    assert closed["/readyz"]["get"]["security"] == optional


def test_bounds_are_in_the_schema(client: httpx.Client) -> None:
    made = document()
    similar = {each["name"]: each for each in operations()["similar_items"]["parameters"]}
    assert similar["offset"]["schema"]["exclusiveMaximum"] == 10_000
    assert "offset + k is at most 10000" in similar["offset"]["description"]
    schemas = made["components"]["schemas"]
    assert schemas["ItemRequest"]["properties"]["attributes"]["maxProperties"] == 100
    validator = jsonschema_rs.validator_for({**schemas["SearchRequest"], "components": made["components"]})
    for body, is_valid in BODIES:
        assert validator.is_valid(body) is is_valid, body
        assert (client.post("/v1/collections/shop/search", json=body).status_code == 200) is is_valid, body


def test_the_contract_of_the_design_is_offered() -> None:
    paths = document()["paths"]
    item = "/v1/collections/{collection}/items/{item_id}"
    assert {"put", "get", "delete"} <= paths[item].keys()
    for path in (f"{item}/similar", "/v1/encoders", "/v1/generations", "/healthz", "/readyz", "/metrics"):
        assert "get" in paths[path]
    assert "post" in paths["/v1/collections/{collection}/search"]


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(document(), indent=2, ensure_ascii=False) + "\n")
