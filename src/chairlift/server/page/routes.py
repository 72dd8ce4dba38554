"""``GET /`` and ``GET /page/…``: the page's own files, which hold nothing that is secret.

They are read once, when this module is imported. A name that comes from outside is only looked up
among them, so no request ever touches the disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from chairlift.server.file_answer import has_copy

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    # A browser asks each time whether its copy is still the served one, so that a page never
    # meets the files of another version.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
FRONT = "index.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFile:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str
    """Quoted, as it stands in headers."""


def _read_files() -> dict[str, PageFile]:
    """Every file of the page by its name; an editor's copy has no media type and is none."""
    found = {}
    for entry in files("chairlift.server.page").joinpath("static").iterdir():
        if media_type := MEDIA_TYPES.get(entry.name.rpartition(".")[2]):
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[entry.name] = PageFile(content=content, media_type=media_type, etag=etag)
    return found


PAGE_FILES = _read_files()

router = APIRouter(include_in_schema=False)


@router.get("/")
async def front(request: Request) -> Response:
    """The page."""
    return _answer(request, PAGE_FILES[FRONT])


@router.get("/page/{name}")
async def page_file(name: str, request: Request) -> Response:
    """One of the files that the page is made of."""
    file = PAGE_FILES.get(name)
    if file is None or name == FRONT:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return _answer(request, file)


def _answer(request: Request, file: PageFile) -> Response:
    headers = HEADERS | {"ETag": file.etag}
    if has_copy(request.headers.get("If-None-Match", ""), file.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
