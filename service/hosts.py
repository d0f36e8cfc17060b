"""Allow-list of host names, against DNS rebinding.

A foreign web page can make its own name resolve to 127.0.0.1 and then send requests to this server as its own origin.
Such requests carry the foreign name in `Host`. An IP address in `Host` is always accepted: rebinding needs a name.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HostError
from service.host_names import host_name, is_address
from service.problems import known_problem
from training.data.texts import shown

LOOPBACK = ("localhost", "*.localhost")  # RFC 6761: these names always resolve to loopback
ANY = "*"


class AllowedHosts:
    """Middleware that refuses requests to other host names with 421.

    Args:
        allowed: names in lower case; `*.example.com` means all names below example.com, `*` any name.
    """

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        self.app = app
        self.allowed = (*LOOPBACK, *allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ANY not in self.allowed:
            for sent in Headers(scope=scope).getlist("host"):
                if not self._allows(host_name(sent)):
                    await known_problem(Request(scope), refusal(sent))(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    def _allows(self, name: str) -> bool:
        if is_address(name):
            return True
        return any(name.endswith(entry[1:]) if entry.startswith("*.") else name == entry for entry in self.allowed)


def refusal(host: str) -> HostError:
    return HostError(
        f"this server does not answer to the host name {shown(host)!r}; add it to the setting NITAMONO_ALLOWED_HOSTS "
        "or to `nitamono serve --allowed-hosts`"
    )
