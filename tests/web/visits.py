"""What a test of the page holds: an opened page, and what the browser noted meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from playwright.sync_api import BrowserContext, ConsoleMessage, Page

WAIT_MS = 90_000  # for a picture, on a machine that has other work too


@dataclass
class Visit:
    """A page in a context of its own, so that nothing is remembered between tests."""

    page: Page
    context: BrowserContext
    console: list[str] = field(default_factory=list)  # errors, also uncaught ones
    requests: list[str] = field(default_factory=list)  # every address that was fetched

    @classmethod
    def begin(cls, context: BrowserContext) -> Visit:
        """An empty page that takes notes from now on."""
        visit = cls(context.new_page(), context)

        def on_console(said: ConsoleMessage) -> None:
            if said.type == "error":
                visit.console.append(said.text)

        visit.page.on("console", on_console)
        visit.page.on("pageerror", lambda error: visit.console.append(str(error)))
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        return visit


Visitor = Callable[..., Visit]
