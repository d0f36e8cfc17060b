"""Checks on every request before a route sees it: the host it was sent to, and the characters of its path."""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Iterable

import anyio.to_thread
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Kind, problem
from service.settings import Settings
from training.errors import NitamonoError

LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104
MISDIRECTED = Kind(421, "unknown-host", "Unknown host")
BAD_PATH = Kind(422, "invalid-request", "Invalid request")
HEALTH = "/healthz"


class HostCheck:
    """Refuses requests for host names that are not the server's, so that DNS rebinding reaches nothing.

    A page of `evil.example`, whose name the attacker points to 127.0.0.1, shares its origin with the server as far as a
    browser can tell; only the Host header differs. A request without the header comes from no browser and is allowed.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.allowed = [name.lower() for name in settings.host_names]
        self.bound = settings.host.strip("[]").lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != HEALTH:
            sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if not await self._accepts(sent, scope):
                detail = (
                    f"host {', '.join(sent)!r} is not a name of this server; "
                    "add it to NITAMONO_ALLOWED_HOSTS or `nitamono serve --allowed-hosts`"
                )
                await problem(Request(scope), MISDIRECTED, detail)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _accepts(self, sent: list[str], scope: Scope) -> bool:
        if not sent:
            return True
        if len(sent) > 1:  # servers and proxies differ in which one they believe
            return False
        name = host_name(sent[0])
        if is_loopback(name) or matches(name, self.allowed) or (name == self.bound and name not in WILDCARDS):
            return True
        if self.allowed or is_loopback(self.bound):
            return False
        # An address cannot be rebound, and a server that outsiders reach is protected by its keys once there are any.
        return is_address(name) or await anyio.to_thread.run_sync(_has_keys, scope)


class PathCheck:
    """Refuses control characters in paths: `$` in a route's pattern would also match before a final newline."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = control_character(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        detail = f"the path contains the control character U+{ord(found):04X}; leave it out"
        await problem(Request(scope), BAD_PATH, detail)(scope, receive, send)


def host_name(header: str) -> str:
    """The name or address of a Host header, without port, brackets and final dot, in lower case."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def matches(name: str, allowed: Iterable[str]) -> bool:
    """Whether a list with names, `*.suffix` and `*` has this name."""
    return any(
        entry == "*" or name == entry or (entry.startswith("*.") and name.endswith(entry[1:])) for entry in allowed
    )


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether a name or address can only be this machine."""
    return name in LOOPBACK_NAMES or (is_address(name) and ipaddress.ip_address(name).is_loopback)


def control_character(text: str) -> str | None:
    """The first control character of a text."""
    return next((character for character in text if unicodedata.category(character) == "Cc"), None)


def _has_keys(scope: Scope) -> bool:
    try:
        found: bool = scope["app"].state.service.home.catalogue.keys.exist()
    except NitamonoError:
        return False
    return found
