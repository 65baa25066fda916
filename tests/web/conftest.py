"""A real server and a real Chromium for the tests of the page, each started once.

They go with the last of these tests: while Playwright is there, asyncio tests cannot run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.adapters import make_lora
from tests.serving import Server, running_server
from tests.web.install_browser import find
from tests.web.visits import WAIT_MS, Visit, Visitor

EXPECT_MS = 60_000  # for what takes no picture: a moment, or longer on a busy machine


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    private = {"CALOTYPE_WEBHOOKS_PRIVATE": "true"}  # webhooks' receivers are on this machine
    home = tmp_path_factory.mktemp("home")
    make_lora(home, "words", title="With words", bases=["vignette"], triggers=["ink wash", "zwx"])
    with running_server(home, private) as running:
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = find()
    if path is None:
        pytest.fail("no Chromium: run `python -m tests.web.install_browser` (`make test` does)")
    expect.set_options(timeout=EXPECT_MS)
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, which is what CI containers run as.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(server: Server, browser: Browser) -> Iterator[Visitor]:
    """Open the page; ``fragment`` goes behind the address, everything else to the browser."""
    contexts: list[BrowserContext] = []

    def open_page(fragment: str | None = None, **options: Any) -> Visit:
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options}
        )
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        visit = Visit.begin(context)
        visit.page.goto(f"{server.url}/{f'#key={server.key}' if fragment is None else fragment}")
        return visit

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(visit: Visitor) -> Page:
    """The page on a wide screen, with the first key, ready: the key was tried and is kept."""
    page = visit().page
    expect(page.locator("#bench")).to_be_visible()
    return page
