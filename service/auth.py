"""API keys: shown once, stored hashed, with scopes `read` < `write` < `admin`.

Until the first key is created the API is open, which suits a server that only its own machine can reach. Then writing
needs a key, and so does reading unless `public_read` is set.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from indexer.catalogue.catalogue import Catalogue
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


def create_key(catalogue: Catalogue, name: str, scope: str) -> str:
    """Create a key and return it; the catalogue stores only its hash.

    Raises:
        InvalidRequestError: the scope is unknown, or the name is already used.
    """
    if scope not in Scope.__members__:
        raise InvalidRequestError("scope", f"scope {scope!r} is not one of {', '.join(Scope.__members__)}")
    key = new_key()
    catalogue.keys.add(name, scope, hash_key(key))
    return key


def require(needed: Scope, *, public: bool = True) -> Callable[[Service, HTTPAuthorizationCredentials | None], None]:
    """A dependency that accepts only requests with the needed scope.

    Args:
        public: whether the setting `public_read` opens the route.
    """

    def check(service: Annotated[Service, Depends(get_service)], credentials: Credentials) -> None:
        catalogue = service.home.catalogue
        if not catalogue.keys.exist():
            return
        if credentials is None:
            if public and needed is Scope.read and service.settings.public_read:
                return
            raise AuthenticationError(
                f"this request needs an API key with {needed.name} access; send it as a Bearer token"
            )
        key = catalogue.keys.find(hash_key(credentials.credentials))
        if key is None:
            raise AuthenticationError("the API key is unknown or revoked")
        if Scope[key.scope] < needed:
            raise ForbiddenError(
                needed.name, f"the API key {key.name!r} has {key.scope} access; this request needs {needed.name} access"
            )

    return check


CanRead = Depends(require(Scope.read))
CanWrite = Depends(require(Scope.write))
CanAdminister = Depends(require(Scope.admin))
CanObserve = Depends(require(Scope.read, public=False))
# Parameters of routes, after that of the body: they check the key again once the body has arrived, since it may have
# been revoked meanwhile.
StillCanRead = Annotated[None, Depends(require(Scope.read))]
StillCanWrite = Annotated[None, Depends(require(Scope.write))]
StillCanAdminister = Annotated[None, Depends(require(Scope.admin))]


def may_observe(service: Service, credentials: HTTPAuthorizationCredentials | None) -> bool:
    """Whether a request may see the state of collections: a valid key, or no key exists yet."""
    try:
        require(Scope.read, public=False)(service, credentials)
    except (AuthenticationError, ForbiddenError):
        return False
    return True
