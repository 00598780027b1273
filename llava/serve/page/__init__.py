"""The drafting page: its files, and the routes that serve them.

The files are fixed and held in memory: no part of a request ever becomes a path.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException, Response

from llava.theme import PARTS, STYLE

_ASSETS = Path(__file__).parent / "assets"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def router() -> APIRouter:
    """GET / and GET /assets/NAME for the page's own files; any other NAME is a 404."""
    page = APIRouter(include_in_schema=False)
    own = (path for path in _ASSETS.iterdir() if path.suffix in _TYPES)
    files = {path.name: path.read_bytes() for path in (STYLE, PARTS, *own)}

    @page.get("/")
    def index() -> Response:
        return _file("page.html", files)

    @page.get("/assets/{name}")
    def asset(name: str) -> Response:
        if name not in files or name == "page.html":
            raise HTTPException(404, "there is no such file; the page is at /")
        return _file(name, files)

    return page


def _file(name: str, files: dict[str, bytes]) -> Response:
    return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=_HEADERS)
