"""schemathesis, with all its checks: whatever is generated from the OpenAPI document is answered as it says.

`make test` runs a short, seeded part; slow and soak tests run every phase, without a key and with one of each scope.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.catalogue.catalogue import Catalogue
from service.auth import create_key
from tests.service.conftest import Serve

CONFIG = Path(__file__).with_suffix("").with_name("schemathesis.toml")
SEED = 20_261_130
OFTEN = {(None, True), ("admin", False)}  # the others are soak tests


def document(client: httpx.Client, *, has_keys: bool = True) -> dict[str, Any]:
    """The server's document; until the first key exists no request needs one, which its description says."""
    found: dict[str, Any] = client.get("/openapi.json").json()
    for operations in {} if has_keys else found["paths"].values():
        for operation in operations.values():
            if {} not in operation.get("security", [{}]):
                operation["security"].insert(0, {})
    return found


def check(schema: dict[str, Any], client: httpx.Client, folder: Path, key: str | None, *options: str) -> str:
    """Run schemathesis on a server; what it says, which is an assertion's error if it finds anything."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(schema))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "--no-color", "run", str(file)]
    command += ["--url", str(client.base_url), "--checks", "all", "--seed", str(SEED), "--continue-on-failure"]
    command += ["--warnings", "off", *options]
    if key is not None:
        command += ["--header", f"Authorization: Bearer {key}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_short_run_finds_nothing(serve: Serve, home_copy: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    client, key = serve(home_copy), create_key(catalogue, "checker", "write")
    options = ("--phases", "examples,fuzzing,stateful", "--max-examples", "5")
    said = check(document(client), client, tmp_path, key, *options)
    assert "Tested: 16" in said and "No issues found" in said


@pytest.mark.parametrize(
    ("scope", "public_read"),
    [
        pytest.param(scope, public_read, marks=pytest.mark.slow if (scope, public_read) in OFTEN else pytest.mark.soak)
        for scope in (None, "read", "write", "admin")
        for public_read in (True, False)
    ],
)
def test_a_long_run_finds_nothing(
    scope: str | None, public_read: bool, serve: Serve, home_copy: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    client = serve(home_copy, public_read=public_read)
    key = None if scope is None else create_key(catalogue, "checker", scope)
    said = check(document(client, has_keys=key is not None), client, tmp_path, key, "--max-examples", "10")
    assert "Tested: 16" in said and "No issues found" in said


def test_a_server_that_departs_from_its_document_is_found(serve: Serve, home_copy: Path, tmp_path: Path) -> None:
    client = serve(home_copy)
    schema = document(client, has_keys=False)
    responses = schema["paths"]["/v1/limits"]["get"]["responses"]
    responses["201"] = responses.pop("200")
    with pytest.raises(AssertionError, match="Undocumented status code"):
        check(schema, client, tmp_path, None, "--include-operation-id", "show_limits", "--max-examples", "2")
