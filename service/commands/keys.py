"""`nitamono keys`: `create`, `list`, `rotate` and `revoke`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.options import DEFAULT_HOME, HomeOption
from training.commands.group import command_group
from training.console import JsonOption, say

if TYPE_CHECKING:
    from indexer.catalogue.records import ApiKeyRecord

ExpiresOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="Duration such as 12h, 90d or 52w, or ISO date or time (UTC) when the secret expires."
    ),
]

keys = command_group("Create, list, rotate and revoke API keys.")


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key, such as the program that uses it.")],
    scope: Annotated[
        str, typer.Option(help="read, write or admin (activates generations); each scope includes those before it.")
    ] = "read",
    expires: ExpiresOption = None,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Create an API key and print it.

    The key is shown once, because only its hash is stored. As soon as a key exists, requests that write need one.

    \b
    Example:
      nitamono keys create importer --scope write --expires 90d
    """
    from indexer.catalogue.home import Home
    from service.auth import create_key

    expires_at = _expiry(expires)
    with Home.open(home, create=True) as opened:
        key = create_key(opened.catalogue, name, scope, expires_at)
    say({"name": name, "scope": scope, "key": key, "expires_at": expires_at}, json_output, key)


@keys.command("list")
def keys_list(home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False) -> None:
    """List API keys with their scopes and expiry.

    \b
    Example:
      nitamono keys list
    """
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.keys.all()
    listed = [{**asdict(record), "state": _state(record)} for record in records]
    lines = ["\t".join((_printable(r.name), r.scope, _state(r), *_times(r))) for r in records]
    say({"keys": listed}, json_output, "\n".join(lines) or "no keys: anyone can read and write")


@keys.command("rotate")
def keys_rotate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")],
    overlap: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the old secret stays valid, such as 2h; 0m ends it now.")
    ] = "24h",
    expires: ExpiresOption = None,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Give an API key a new secret and print it.

    The old secret stays valid for --overlap, so that its users can be given the new one meanwhile, but not beyond its
    own expiry. Name and scope stay. Without --expires, the new secret gets the lifetime that the old one was given.

    \b
    Example:
      nitamono keys rotate importer --overlap 2h
    """
    from indexer.catalogue.home import Home
    from service.auth import rotate_key
    from service.expiry import parse_duration

    lapse, expires_at = parse_duration("overlap", overlap), _expiry(expires)
    with Home.open(home) as opened:
        key = rotate_key(opened.catalogue, name, overlap=lapse, expires_at=expires_at)
        record = opened.catalogue.keys.get(name)
    made = {"name": name, "scope": record.scope, "key": key, "expires_at": record.expires_at}
    say({**made, "previous_expires_at": record.previous_expires_at}, json_output, key)


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


def _expiry(expires: str | None) -> datetime | None:
    from service.expiry import parse_expiry

    return None if expires is None else parse_expiry(expires, datetime.now(UTC))


def _state(record: ApiKeyRecord) -> str:
    if record.revoked_at is not None:
        return "revoked"
    return "expired" if record.expires_at is not None and record.expires_at <= datetime.now(UTC) else "valid"


def _times(record: ApiKeyRecord) -> list[str]:
    """When a key that was not revoked expires, and its previous secret, where that is still valid."""
    if record.revoked_at is not None:
        return []
    times = [f"expires {record.expires_at:%Y-%m-%d %H:%M} UTC"] if record.expires_at else []
    if record.previous_expires_at is not None and record.previous_expires_at > datetime.now(UTC):
        times.append(f"old secret valid until {record.previous_expires_at:%Y-%m-%d %H:%M} UTC")
    return times


def _printable(name: str) -> str:
    r"""A name of a key with other than printable characters escaped, such as `\x1b`: earlier versions accepted any."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)
