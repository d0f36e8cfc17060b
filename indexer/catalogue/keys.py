"""API keys, stored as hashes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from indexer.catalogue.engine import Database
from indexer.catalogue.records import ApiKeyRecord, SecretRecord
from indexer.catalogue.schema import api_keys
from indexer.catalogue.values import now, utc, utc_or_none
from indexer.errors import InvalidRequestError, NotFoundError

MAX_NAME = 64


@dataclass
class ApiKeys:
    database: Database

    def add(self, name: str, scope: str, key_hash: str, expires_at: datetime | None = None) -> None:
        """Store a key; `InvalidRequestError` if the name is taken, or not 1 to 64 printable characters."""
        if not (1 <= len(name) <= MAX_NAME and name.isprintable() and name.strip()):
            raise InvalidRequestError("name", f"the key's name {name!r} must be 1 to {MAX_NAME} printable characters")
        with self.database.write() as connection:
            if connection.scalar(select(api_keys.c.id).where(api_keys.c.name == name)) is not None:
                raise InvalidRequestError("name", f"an API key named {name!r} exists already; choose another name")
            row = {"name": name, "scope": scope, "key_hash": key_hash, "created_at": now(), "expires_at": expires_at}
            connection.execute(sa.insert(api_keys).values(row))

    def rotate(
        self, name: str, key_hash: str, *, expires_at: datetime | None, previous_expires_at: datetime | None
    ) -> None:
        """Replace the secret of a key; the present one becomes the previous one, in place of an earlier one.

        Raises:
            NotFoundError: no key has this name, or it was revoked.
        """
        values = {
            "previous_hash": api_keys.c.key_hash,
            "previous_expires_at": previous_expires_at,
            "key_hash": key_hash,
            "expires_at": expires_at,
            "rotated_at": now(),
        }
        self._change(name, values, "rotated")

    def find(self, key_hash: str) -> SecretRecord | None:
        """The secret with this hash, expired or not; None if it is unknown or its key was revoked."""
        with self.database.read() as connection:
            row = connection.execute(_SECRET, {"hash": key_hash}).first()
        if row is None:
            return None
        expires_at = row.previous_expires_at if row.is_replaced else row.expires_at
        return SecretRecord(row.name, row.scope, utc_or_none(expires_at), bool(row.is_replaced))

    def exist(self) -> bool:
        """Whether a key was ever created: revoking the last one must not open the API."""
        with self.database.read() as connection:
            return connection.execute(_ANY).first() is not None

    def revoke(self, name: str) -> None:
        """Revoke a key with all its secrets; `NotFoundError` if no key has this name, or it was revoked already."""
        self._change(name, {"revoked_at": now()}, "revoked")

    def get(self, name: str) -> ApiKeyRecord:
        """The key of a name; `NotFoundError` if there is none."""
        for record in self.all():
            if record.name == name:
                return record
        raise NotFoundError(f"no API key named {name!r}; `nitamono keys list` lists them")

    def all(self) -> list[ApiKeyRecord]:
        """All keys, revoked and expired ones included, in order of name."""
        columns = (
            api_keys.c.name,
            api_keys.c.scope,
            api_keys.c.created_at,
            api_keys.c.revoked_at,
            api_keys.c.expires_at,
            api_keys.c.rotated_at,
            api_keys.c.previous_expires_at,
        )
        with self.database.read() as connection:
            rows = connection.execute(select(*columns).order_by(api_keys.c.name)).all()
        return [ApiKeyRecord(name, scope, utc(made), *map(utc_or_none, times)) for name, scope, made, *times in rows]

    def _change(self, name: str, values: dict[str, Any], done: str) -> None:
        with self.database.write() as connection:
            same = (api_keys.c.name == name) & api_keys.c.revoked_at.is_(None)
            if connection.execute(sa.update(api_keys).where(same).values(values)).rowcount != 1:
                raise NotFoundError(f"no API key named {name!r} that could be {done}")


# Every request runs these statements, so they are built once.
_ANY = select(api_keys.c.id).limit(1)
_HASH: sa.BindParameter[str] = bindparam("hash")
_SECRET = select(
    api_keys.c.name,
    api_keys.c.scope,
    api_keys.c.expires_at,
    api_keys.c.previous_expires_at,
    (api_keys.c.key_hash != _HASH).label("is_replaced"),
).where((api_keys.c.key_hash == _HASH) | (api_keys.c.previous_hash == _HASH), api_keys.c.revoked_at.is_(None))
