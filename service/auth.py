"""API keys: shown once, stored hashed, with scopes `read` < `write` < `admin`.

Until the first key is created the API is open, which suits a server that only its own machine can reach. Then writing
needs a key, and so does reading unless `public_read` is set.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import partial
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from indexer.catalogue.catalogue import Catalogue
from indexer.catalogue.records import SecretRecord
from indexer.errors import InvalidRequestError
from service.deps import Service, get_service
from service.errors import AuthenticationError, ForbiddenError

PREFIX = "nitamono_"


class Scope(IntEnum):
    """Permissions of a key; each scope includes the lower ones."""

    read = 1
    write = 2
    admin = 3


bearer = HTTPBearer(auto_error=False, description="API key, sent as `Authorization: Bearer KEY`.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def new_key() -> str:
    """Generate a key with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """SHA-256 in hex; a key with 256 random bits needs no slow, salted hash."""
    return hashlib.sha256(key.encode()).hexdigest()


def create_key(catalogue: Catalogue, name: str, scope: str, expires_at: datetime | None = None) -> str:
    """Create a key and return its secret; the catalogue stores only the hash.

    Raises:
        InvalidRequestError: the scope is unknown, or the name is already used.
    """
    if scope not in Scope.__members__:
        raise InvalidRequestError("scope", f"scope {scope!r} is not one of {', '.join(Scope.__members__)}")
    key = new_key()
    catalogue.keys.add(name, scope, hash_key(key), expires_at)
    return key


def rotate_key(catalogue: Catalogue, name: str, *, overlap: timedelta, expires_at: datetime | None = None) -> str:
    """Give a key a new secret and return it.

    Args:
        overlap: how long the old secret stays valid, but not beyond its own expiry. A secret that an earlier rotation
            replaced ends now.
        expires_at: expiry of the new secret; None gives it as long as the old one had when it was made.

    Raises:
        NotFoundError: no key has this name, or it was revoked.
    """
    old, moment = catalogue.keys.get(name), datetime.now(UTC)
    if expires_at is None and old.expires_at is not None:
        expires_at = moment + (old.expires_at - (old.rotated_at or old.created_at))
    ends = min(moment + overlap, old.expires_at or datetime.max.replace(tzinfo=UTC))
    key = new_key()
    catalogue.keys.rotate(name, hash_key(key), expires_at=expires_at, previous_expires_at=ends)
    return key


@dataclass(frozen=True)
class Needs:
    """A dependency that accepts only requests with the needed scope.

    Args:
        public: whether the setting `public_read` opens the route.
    """

    scope: Scope
    public: bool = True

    def __call__(
        self, request: Request, service: Annotated[Service, Depends(get_service)], credentials: Credentials
    ) -> None:
        self.check(service, credentials, request)

    def check(self, service: Service, credentials: HTTPAuthorizationCredentials | None, request: Request) -> None:
        """Check the key of a request, and note its name for the access log and the rate limit.

        Raises:
            AuthenticationError: the key is missing, unknown, revoked or expired.
            ForbiddenError: its scope is too low.
        """
        keys = service.home.catalogue.keys
        if not keys.exist():
            return
        if credentials is None:
            if self.is_open(service.settings.public_read):
                return
            raise AuthenticationError(
                f"this request needs an API key with {self.scope.name} access; send it as a Bearer token"
            )
        secret = keys.find(hash_key(credentials.credentials))
        if secret is None:
            raise AuthenticationError("the API key is unknown or revoked", given=True)
        if secret.expires_at is not None and secret.expires_at <= datetime.now(UTC):
            raise AuthenticationError(_expired(secret, secret.expires_at), given=True)
        request.state.api_key = secret.name
        if Scope[secret.scope] < self.scope:
            raise ForbiddenError(
                self.scope.name,
                f"the API key {secret.name!r} has {secret.scope} access; this request needs {self.scope.name} access",
            )

    def is_open(self, public_read: bool) -> bool:
        """Whether requests without a key are accepted even once keys exist."""
        return self.public and self.scope is Scope.read and public_read


def _expired(secret: SecretRecord, at: datetime) -> str:
    moment = f"{at:%Y-%m-%d %H:%M} UTC"
    if secret.is_replaced:
        return f"this secret of the API key {secret.name!r} was replaced, and ended at {moment}; use the new one"
    return f"the API key {secret.name!r} expired at {moment}; ask the operator for a new one (`nitamono keys rotate`)"


CanRead = Depends(Needs(Scope.read))
CanWrite = Depends(Needs(Scope.write))
CanAdminister = Depends(Needs(Scope.admin))
CanObserve = Depends(Needs(Scope.read, public=False))


@dataclass(frozen=True)
class StillNeeds:
    """A dependency that checks a key again when the route calls it, in its thread: the key may have been revoked while
    the body arrived."""

    needs: Needs

    async def __call__(
        self, request: Request, service: Annotated[Service, Depends(get_service)], credentials: Credentials
    ) -> Callable[[], None]:
        return partial(self.needs.check, service, credentials, request)


StillCanRead = Annotated[Callable[[], None], Depends(StillNeeds(Needs(Scope.read)))]
StillCanWrite = Annotated[Callable[[], None], Depends(StillNeeds(Needs(Scope.write)))]
StillCanAdminister = Annotated[Callable[[], None], Depends(StillNeeds(Needs(Scope.admin)))]


def may_observe(service: Service, credentials: HTTPAuthorizationCredentials | None, request: Request) -> bool:
    """Whether a request may see the state of collections: a valid key, or no key exists yet."""
    try:
        Needs(Scope.read, public=False).check(service, credentials, request)
    except (AuthenticationError, ForbiddenError):
        return False
    return True
