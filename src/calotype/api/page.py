"""The pages at ``/`` and ``/review``, and their assets, from the package's ``web`` folder."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import Scope

import calotype
from calotype.core.errors import NotFound

WEB_FOLDER = Path(calotype.__file__).parent / "web"
_REVALIDATE = "no-cache"  # the browser asks each time (mostly the answer is 304): upgrades show


class Assets(StaticFiles):
    """Static files that a browser checks for news before it uses its copy."""

    def file_response(
        self,
        full_path: PathLike,
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Serve a file, or 304."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = _REVALIDATE
        return response


def install_page(app: FastAPI, folder: Path = WEB_FOLDER) -> None:
    """Serve ``/``, ``/review`` and ``/web/*`` from ``folder``."""

    def serve(address: str, name: str) -> None:
        async def page() -> FileResponse:
            path = folder / name
            if not path.is_file():
                raise NotFound("the page isn't part of this installation")
            return FileResponse(path, headers={"Cache-Control": _REVALIDATE})

        app.add_api_route(address, page, methods=["GET", "HEAD"], include_in_schema=False)

    serve("/", "index.html")
    serve("/review", "review.html")
    app.mount("/web", Assets(directory=folder, check_dir=False), name="web")
