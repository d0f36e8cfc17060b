"""`nitamono keys`: `create`, `list` and `revoke`."""

from __future__ import annotations

from typing import Annotated

import typer

from indexer.options import DEFAULT_HOME, HomeOption
from training.commands.group import command_group
from training.console import JsonOption, say

keys = command_group("Create, list and revoke API keys.")


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key, such as the program that uses it.")],
    scope: Annotated[
        str, typer.Option(help="read, write or admin (activates generations); each scope includes those before it.")
    ] = "read",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Create an API key and print it.

    The key is shown once, because only its hash is stored. As soon as a key exists, requests that write need one.

    \b
    Example:
      nitamono keys create importer --scope write
    """
    from indexer.catalogue.home import Home
    from service.auth import create_key

    with Home.open(home, create=True) as opened:
        key = create_key(opened.catalogue, name, scope)
    say({"name": name, "scope": scope, "key": key}, json_output, key)


@keys.command("list")
def keys_list(home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False) -> None:
    """List API keys with their scopes.

    \b
    Example:
      nitamono keys list
    """
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.keys.all()
    listed = [
        {"name": r.name, "scope": r.scope, "created_at": r.created_at, "revoked_at": r.revoked_at} for r in records
    ]
    lines = [f"{_printable(r.name)}\t{r.scope}\t{'revoked' if r.revoked_at else 'valid'}" for r in records]
    say({"keys": listed}, json_output, "\n".join(lines) or "no keys: anyone can read and write")


@keys.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")],
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Revoke an API key immediately.

    \b
    Example:
      nitamono keys revoke importer
    """
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        opened.catalogue.keys.revoke(name)
    say({"revoked": name}, json_output, f"revoked {_printable(name)}")


def _printable(name: str) -> str:
    r"""A name of a key with other than printable characters escaped, such as `\x1b`: earlier versions accepted any."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)
