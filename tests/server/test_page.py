"""The page's files over HTTP; what they do is tested in a browser, in tests/page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files

import httpx
import pytest

from chairlift.server.page.routes import MEDIA_TYPES, PAGE_FILES
from tests.running import EngineThread

NAMES = sorted(set(PAGE_FILES) - {"index.html"})
PATHS = ["/", *(f"/page/{name}" for name in NAMES)]
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "media-src": "'self' blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


class References(HTMLParser):
    """What a document loads, and what it has inline."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "src" or (tag == "link" and name == "href"):
                self.loaded.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
        if tag == "style" or (tag == "script" and "src" not in dict(attrs)):
            self.inline.append(tag)


def test_the_folder_holds_only_files_that_are_served() -> None:
    folder = files("chairlift.server.page").joinpath("static")
    assert {entry.name for entry in folder.iterdir()} == set(PAGE_FILES)


@pytest.mark.parametrize("path", PATHS)
def test_every_file_is_served_with_strict_headers(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    name = path.removeprefix("/page/").strip("/") or "index.html"
    assert answer.status_code == 200
    assert answer.content == PAGE_FILES[name].content
    assert answer.headers["Content-Type"] == MEDIA_TYPES[name.rpartition(".")[2]]
    directives = answer.headers["Content-Security-Policy"].split("; ")
    assert dict(directive.split(" ", 1) for directive in directives) == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", PATHS)
def test_who_has_the_file_does_not_get_it_again(http: httpx.Client, path: str) -> None:
    etag = http.get(path).headers["ETag"]
    for held in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = http.get(path, headers={"If-None-Match": held})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == etag
    assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_head_request_has_the_headers_alone(http: httpx.Client) -> None:
    answer = http.head("/")
    assert answer.content == b""
    assert int(answer.headers["Content-Length"]) == len(PAGE_FILES["index.html"].content)


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/nothing.js",
        "/page/index.html",
        "/page/MAIN.js",
        "/page/%2e%2e%2froutes.py",
        "/page/..%2f..%2fapp.py",
        "/page/../routes.py",
        "/page//etc/passwd",
        "/page/static/main.js",
        "/page/main.js/",
        "/page/main.js%00",
    ],
)
def test_other_names_are_not_found(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_page_needs_no_key_and_the_rest_does(engine: EngineThread) -> None:
    with engine.serve(api_key="key") as locked:
        assert {locked.get(path).status_code for path in PATHS} == {200}
        assert locked.get("/page/nothing.js").status_code == 404
        for path in ("/page/../v1/models", "/page/%2e%2e/v1/models", "//v1/models", "/v1/models"):
            assert locked.get(path).status_code in (401, 404)
            assert "defaults" not in locked.get(path).text


def test_the_document_loads_only_what_is_served_and_has_nothing_inline() -> None:
    document = References()
    document.feed(PAGE_FILES["index.html"].content.decode())
    assert "/page/main.js" in document.loaded
    assert set(document.loaded) <= set(PATHS)
    assert document.inline == []


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js")])
def test_scripts_import_only_what_is_served_and_never_write_markup(name: str) -> None:
    source = PAGE_FILES[name].content.decode()
    imported = re.findall(r'^import .*?from "(.+?)";$', source, re.MULTILINE | re.DOTALL)
    assert {path.removeprefix("./") for path in imported} <= set(NAMES)
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert dangerous not in source


@pytest.mark.parametrize("name", NAMES)
def test_nothing_comes_from_other_hosts(name: str) -> None:
    hosts = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", PAGE_FILES[name].content.decode()))
    assert hosts <= {"http://www.w3.org"}  # The name of SVG, which nobody fetches.
