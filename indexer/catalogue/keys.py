"""API keys, stored as hashes."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import select

from indexer.catalogue.engine import Database
from indexer.catalogue.records import ApiKeyRecord
from indexer.catalogue.schema import api_keys
from indexer.catalogue.values import now, utc, utc_or_none
from indexer.errors import InvalidRequestError, NotFoundError

MAX_NAME = 64


@dataclass
class ApiKeys:
    database: Database

    def add(self, name: str, scope: str, key_hash: str) -> None:
        """Store a key; `InvalidRequestError` if the name is taken, or not 1 to 64 printable characters."""
        if not (1 <= len(name) <= MAX_NAME and name.isprintable() and name.strip()):
            raise InvalidRequestError("name", f"the key's name {name!r} must be 1 to {MAX_NAME} printable characters")
        with self.database.write() as connection:
            if connection.scalar(select(api_keys.c.id).where(api_keys.c.name == name)) is not None:
                raise InvalidRequestError("name", f"an API key named {name!r} exists already; choose another name")
            connection.execute(sa.insert(api_keys).values(name=name, scope=scope, key_hash=key_hash, created_at=now()))

    def find(self, key_hash: str) -> ApiKeyRecord | None:
        """The key with this hash, unless it was revoked."""
        found = self._select(api_keys.c.key_hash == key_hash, api_keys.c.revoked_at.is_(None))
        return found[0] if found else None

    def exist(self) -> bool:
        """Whether a key was ever created: revoking the last one must not open the API."""
        with self.database.read() as connection:
            return connection.execute(select(api_keys.c.id).limit(1)).first() is not None

    def revoke(self, name: str) -> None:
        """Revoke a key; `NotFoundError` if no valid key has this name."""
        with self.database.write() as connection:
            same = (api_keys.c.name == name) & api_keys.c.revoked_at.is_(None)
            if connection.execute(sa.update(api_keys).where(same).values(revoked_at=now())).rowcount != 1:
                raise NotFoundError(f"no API key named {name!r} that could be revoked")

    def all(self) -> list[ApiKeyRecord]:
        """All keys, revoked ones included, in order of name."""
        return self._select()

    def _select(self, *where: sa.ColumnElement[bool]) -> list[ApiKeyRecord]:
        query = select(api_keys.c.name, api_keys.c.scope, api_keys.c.created_at, api_keys.c.revoked_at)
        with self.database.read() as connection:
            rows = connection.execute(query.where(*where).order_by(api_keys.c.name)).all()
        return [ApiKeyRecord(name, scope, utc(made), utc_or_none(revoked)) for name, scope, made, revoked in rows]
