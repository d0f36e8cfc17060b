"""Request paths: which are refused whatever the route, and which of two routes means an item named `similar`.

Starlette's patterns end in `$`, which also matches before a final line feed, and `.*` matches no line feed: the path
`items/foo%0A` would be that of the item `foo`. No id, name or file that we serve has a control character.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from indexer.errors import InvalidRequestError
from service.problems import known_problem
from training.data.texts import text_fault

_SIMILAR = re.compile(rb".*/collections/[^/]+/items/.+/similar")


class PlainPaths:
    """Middleware that refuses paths with control characters with 422."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (fault := text_fault(scope["path"])):
            refused = InvalidRequestError(*_field_and_detail(scope["path"], fault))
            await known_problem(Request(scope), refused)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _field_and_detail(path: str, fault: str) -> tuple[str, str]:
    before, items, item_id = path.partition("/items/")
    if items and not text_fault(before):
        return "item_id", f"item_id {text_fault(item_id)}"
    return "path", f"the path {fault}"


def asks_for_similar(scope: Scope) -> bool:
    """Whether a URL means the items similar to an item: `items/a/similar`, not the item `a/similar` (`a%2Fsimilar`)."""
    sent: bytes = scope.get("raw_path") or scope["path"].encode()
    return scope["type"] == "http" and _SIMILAR.fullmatch(sent) is not None
