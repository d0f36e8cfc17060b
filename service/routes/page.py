"""The web page for shoppers: static files that use the public API."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import Scope

WEB = Path(__file__).parent.parent / "web"
# File names stay the same between versions, so browsers must revalidate their copies.
CACHE = {"Cache-Control": "no-cache"}
STATIC_TYPES = frozenset({".js", ".css", ".svg"})

router = APIRouter(include_in_schema=False)


class PageFiles(StaticFiles):
    """Serves only the scripts, styles and pictures of the folder."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if Path(path).suffix in STATIC_TYPES else ("", None)

    def file_response(
        self,
        full_path: PathLike,
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(CACHE)
        return response


@router.api_route("/", methods=["GET", "HEAD"])
async def page() -> FileResponse:
    return FileResponse(WEB / "index.html", media_type="text/html", headers=CACHE)
