"""Keys on the page: asked for, judged, taken from the address, changed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from playwright.sync_api import Page, Route, expect

from tests.serving import Server
from tests.web.test_page import make
from tests.web.visits import Visitor


def test_a_key_is_asked_for_judged_and_remembered(visit: Visitor, server: Server) -> None:
    page = visit(fragment="").page
    expect(page.locator("#key-panel")).to_be_visible()
    expect(page.locator("#bench")).to_be_hidden()
    page.fill("#key", "ct_wrong")
    page.press("#key", "Enter")
    expect(page.locator("#problem-key")).to_contain_text("doesn’t know this key")
    page.fill("#key", server.key)
    page.press("#key", "Enter")
    expect(page.locator("#composer")).to_be_visible()
    page.reload()
    expect(page.locator("#composer")).to_be_visible()
    page.click("#key-open")
    page.click("#key-forget")
    page.reload()
    expect(page.locator("#key-panel")).to_be_visible()


def kept_key(page: Page) -> str | None:
    key: str | None = page.evaluate("localStorage.getItem('calotype.key')")
    return key


def second_key(server: Server) -> str:
    """A key of another tenant."""
    command = [sys.executable, "-m", "calotype.cli", "keys", "create", "--tenant", "others"]
    made = subprocess.run(
        [*command, "--home", str(server.home)], capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


def test_a_key_in_the_address_is_taken_and_wiped(page: Page, server: Server) -> None:
    expect(page.locator("#composer")).to_be_visible()
    assert "key" not in page.url
    assert kept_key(page) == server.key


def test_a_key_in_the_address_is_wiped_even_if_the_page_fails(visit: Visitor) -> None:
    page = visit(fragment="#nothing").page
    page.route("**/web/js/main.js", lambda route: route.abort())
    page.goto(f"{page.url.partition('#')[0]}?again#key=ct_secret")
    assert "ct_secret" not in page.url


@pytest.mark.parametrize(
    ("key", "reason"),
    [("ct_wrong", "doesn’t know this key"), ("ct_ключ", "plain letters"), ("ct_a b", "no spaces")],
)
def test_a_wrong_key_in_the_address_is_judged_and_not_kept(
    visit: Visitor, key: str, reason: str
) -> None:
    page = visit(fragment=f"#key={key}").page
    expect(page.locator("#problem-key")).to_contain_text(reason)
    assert kept_key(page) is None
    assert "key" not in page.url


def test_another_key_is_taken_only_when_told_so_and_shows_nothing_of_the_first_tenant(
    page: Page, server: Server
) -> None:
    make(page, "a tent in the desert", steps="4")
    other = second_key(server)
    for answer in ("#key-decline", "#key-take"):
        page.evaluate("key => { location.hash = `key=${key}` }", other)
        expect(page.locator("#key-offer")).to_be_visible()
        assert other not in page.url
        assert kept_key(page) == server.key
        page.click(answer)
        expect(page.locator("#key-offer")).to_be_hidden()
    expect(page.locator("#examples")).to_be_visible()  # nothing of theirs was ever made
    expect(page.locator("#developing .tray, #prints .print")).to_have_count(0)
    assert kept_key(page) == other


def test_answers_that_come_after_a_change_of_key_are_dropped(page: Page, server: Server) -> None:
    make(page, "a castle in the desert", steps="4")
    held: list[Route] = []
    page.route("**/v1/jobs?limit=48", lambda route: held.append(route), times=1)  # noqa: PLW0108
    page.evaluate("dispatchEvent(new Event('online'))")  # asks for the list, with the first key
    page.wait_for_timeout(500)
    page.click("#key-open")
    page.fill("#key", second_key(server))
    page.press("#key", "Enter")
    expect(page.locator("#examples")).to_be_visible()
    held[0].continue_()
    page.wait_for_timeout(1_000)
    expect(page.locator("#prints .print")).to_have_count(0)
