"""A real server with the fake model, and Debian's Chromium that looks at its page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from chairlift.engine.worker_config import WorkerConfig
from tests.running import EngineThread

MISSING = (
    "the page is tested in Chromium, which isn't here; install it with "
    "`apt-get update && apt-get install --yes --no-install-recommends chromium`"
)


@pytest.fixture(scope="session")
def engine() -> Iterator[EngineThread]:
    """A tick takes a twentieth of a second, so that there is something to see."""
    with EngineThread(WorkerConfig(model="fake:0.05")) as engine:
        yield engine


@pytest.fixture
def http(engine: EngineThread) -> Iterator[httpx.Client]:
    """A server of the test's own, without any jobs."""
    with engine.serve() as http:
        yield http


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """It ends with the module, because an event loop runs on this thread as long as it lives."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.fail(MISSING)
    with sync_playwright() as playwright:
        # Containers have little shared memory, and Chromium's own sandbox doesn't work for root.
        arguments = ["--disable-dev-shm-usage", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open the page of a server: ``visit(http)``, with options of a new browser context, or
    ``visit(http, context)`` in one that is there. What the browser complains of fails the test.
    """
    complaints: list[str] = []
    with ExitStack() as stack:

        def visit(
            http: httpx.Client, context: BrowserContext | None = None, **options: object
        ) -> Page:
            if context is None:
                context = browser.new_context(**options)  # type: ignore[arg-type]
                stack.callback(context.close)
            page = context.new_page()
            page.on("console", lambda message: _hear(message, complaints))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(str(http.base_url))
            return page

        yield visit
    assert complaints == []


def _hear(message: ConsoleMessage, complaints: list[str]) -> None:
    """Refusals by the server are the page's to show; everything else is a fault."""
    if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
        complaints.append(message.text)
