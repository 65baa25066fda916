"""The page's look at webhooks: what was sent, what came back, and sending it again."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect
from standardwebhooks.webhooks import Webhook

from tests.serving import Server
from tests.web.test_modules import in_page
from tests.web.visits import Visitor


@dataclass
class Receiver:
    """A real receiver in a thread: asyncio can't run beside the browser."""

    url: str = ""
    status: int = 200
    answer: bytes = b""
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.came.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(receiver.status)
            self.send_header("Content-Length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        receiver.url = f"http://127.0.0.1:{http.server_address[1]}/hook"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield receiver
        http.shutdown()


def cancelled(server: Server) -> str:
    """A job that is over at once."""
    with httpx.Client(base_url=server.url, headers=server.headers) as client:
        job: str = client.post("/v1/jobs", json={"prompt": "a tent", "tier": "relax"}).json()["id"]
        assert client.delete(f"/v1/jobs/{job}").status_code == 200
        return job


def added(page: Page, url: str) -> Locator:
    page.click("#hooks-open")
    page.fill("#hooks-url", url)
    page.press("#hooks-url", "Enter")
    hook = page.locator(".hook", has_text=url)
    expect(hook).to_be_visible()
    return hook


def test_what_failed_is_looked_at_and_sent_again(
    visit: Visitor, server: Server, receiver: Receiver
) -> None:
    visited = visit()
    page = visited.page
    expect(page.locator("#bench")).to_be_visible()
    receiver.status, receiver.answer = 503, b"<b>down</b> for now"
    hook = added(page, receiver.url)
    first = page.input_value("#hooks-secret")
    assert first.startswith("whsec_")
    job = cancelled(server)
    hook.get_by_text("Messages", exact=True).click()
    message = hook.locator(".hook-messages > li", has_text=job)
    expect(message).to_contain_text(re.compile("Waiting after [12] tr"))  # again after 5 s
    message.locator("summary").first.click()
    attempt = message.locator(".hook-attempts > li").first
    expect(attempt).to_contain_text("503 in")
    expect(attempt.locator("pre")).to_have_text("<b>down</b> for now")
    assert message.locator("b").count() == 0, "an answer is text, never markup"
    hook.get_by_text("New secret").click()
    expect(page.locator("#hooks-secret")).not_to_have_value(first)
    second = page.input_value("#hooks-secret")
    receiver.status, receiver.answer = 200, b""
    message.get_by_text("Send again", exact=True).click()
    expect(message.locator(".hook-state")).to_have_text("Sent")
    expect(message.locator(".hook-attempts > li")).to_have_count(len(receiver.came))
    expect(attempt).to_contain_text("200 in")
    before, after = receiver.came[0], receiver.came[-1]
    assert before[0]["webhook-id"] == after[0]["webhook-id"]
    for secret in (first, second):  # for a day both sign
        told: Any = Webhook(secret).verify(after[1].decode(), after[0])
        assert told["data"]["id"] == job
    message.get_by_text("What it says").click()
    expect(message.locator("pre").last).to_contain_text('"type": "job.cancelled"')
    page.click("#hooks-close")
    page.click("#hooks-open")
    expect(page.locator("#hooks-secret-row")).to_be_hidden()  # it was told once
    assert visited.console == []
    assert all(address.startswith(server.url) for address in visited.requests)


def test_a_webhook_is_switched_off_and_on_and_removed(
    page: Page, server: Server, receiver: Receiver
) -> None:
    hook = added(page, receiver.url)
    hook.get_by_text("Switch off").click()
    expect(hook).to_contain_text("Off since")
    cancelled(server)
    hook.get_by_text("Switch on").click()
    expect(hook).not_to_contain_text("Off since")
    hook.get_by_text("Messages", exact=True).click()
    expect(hook.locator(".hook-messages + .hint")).to_be_visible()  # nothing was written for it
    job = cancelled(server)
    expect(hook.locator(".hook-state")).to_have_count(0)
    hook.locator("select").select_option("sent")
    hook.locator("select").select_option("")
    expect(hook.locator(".hook-messages > li", has_text=job)).to_be_visible()
    page.fill("#hooks-url", "ftp://127.0.0.1/hook")
    page.press("#hooks-url", "Enter")
    expect(page.locator("#hooks-problem")).to_contain_text("http")
    hook.get_by_text("Remove", exact=True).click()
    hook.get_by_text("Really remove it?").click()
    expect(hook).to_have_count(0)
    with httpx.Client(base_url=server.url, headers=server.headers) as client:
        left = client.get("/v1/webhooks").json()["webhooks"]
    assert receiver.url not in [each["url"] for each in left]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"state": "waiting", "tries": 0, "next_try_at": None}, "Waiting"),
        ({"state": "sent", "tries": 1}, "Sent"),
        ({"state": "sent", "tries": 3}, "Sent, at the 3rd try"),
        ({"state": "given_up", "tries": 10}, "Given up after 10 tries"),
    ],
)
def test_a_message_says_what_became_of_it(page: Page, message: dict[str, Any], text: str) -> None:
    body = "({ messageText }, message) => messageText(message)"
    assert in_page(page, "hooks-text.js", body, message) == text


@pytest.mark.parametrize(
    ("tried", "text"),
    [
        ({"status": 200, "reason": None, "took_ms": 12}, "200 in 12 ms"),
        ({"status": 503, "reason": "the answer was 503", "took_ms": 9}, "503 in 9 ms"),
        ({"status": None, "reason": "away", "took_ms": 5}, "No answer in 5 ms: away"),
    ],
)
def test_a_try_says_how_it_went(page: Page, tried: dict[str, Any], text: str) -> None:
    assert in_page(page, "hooks-text.js", "(it, tried) => it.attemptText(tried)", tried) == text
