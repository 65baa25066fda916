"""The page of those who decide: nothing shows before it is pressed, and each has to say why."""

from __future__ import annotations

import asyncio

import pytest
from playwright.sync_api import Page, expect

from tests.reviews import hold_one, key_for
from tests.serving import Server
from tests.web.visits import Visitor


@pytest.fixture
def desk(server: Server, visit: Visitor) -> Page:
    page = visit(fragment="").page
    page.goto(f"{server.url}/review")
    return page


def enter(page: Page, key: str) -> None:
    page.fill("#key", key)
    page.click("#key-form button[type=submit]")


def run(coroutine: object) -> object:
    """In a thread: Playwright has a loop of its own running here."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()  # type: ignore[arg-type]


def test_a_picture_is_coarse_until_it_is_pressed_and_decided_with_a_reason(
    desk: Page, server: Server
) -> None:
    review = run(hold_one(server.home, "a tent, to be looked at", seed=5))
    fetched: list[str] = []
    desk.on("request", lambda request: fetched.append(request.url))
    enter(desk, str(run(key_for(server.home, "web", "review"))))
    card = desk.locator(f'[data-id="{review.id}"]')  # type: ignore[attr-defined]
    expect(card).to_contain_text("a tent, to be looked at")
    expect(card).to_contain_text("looks, score 0.420")
    button = card.locator(".review-picture")
    expect(button).to_have_attribute("data-shown", "coarse")
    assert not [url for url in fetched if "size=whole" in url]
    assert button.evaluate("it => getComputedStyle(it.querySelector('img')).filter") != "none"
    button.click()
    expect(button).to_have_attribute("data-shown", "whole")
    assert button.evaluate("it => it.querySelector('img').naturalWidth") == 128
    card.get_by_role("button", name="Block").click()
    expect(card.get_by_role("alert")).to_contain_text("Say why first")
    card.locator("textarea").fill("not a tent")
    card.get_by_role("button", name="Block").click()
    expect(card).to_have_count(0)
    desk.click("#look-again")
    expect(desk.locator("#queue-said")).to_contain_text("Nothing waits.")


def test_a_severe_one_waits_for_a_second_person(desk: Page, server: Server) -> None:
    review = run(hold_one(server.home, "a severe tent", is_severe=True, seed=6))
    enter(desk, str(run(key_for(server.home, "first", "review"))))
    card = desk.locator(f'[data-id="{review.id}"]')  # type: ignore[attr-defined]
    expect(card).to_contain_text("two people have to say the same")
    card.locator("textarea").fill("no")
    card.get_by_role("button", name="Block").click()
    expect(card.locator(".votes")).to_contain_text("staff/first: block, no")
    card.locator("textarea").fill("no, again")
    card.get_by_role("button", name="Block").click()
    expect(card.get_by_role("alert")).to_contain_text("once")
    desk.click("#key-forget")
    enter(desk, str(run(key_for(server.home, "second", "review"))))
    card.locator("textarea").fill("no")
    card.get_by_role("button", name="Block").click()
    expect(card).to_have_count(0)


def test_a_key_for_pictures_opens_nothing(desk: Page, server: Server) -> None:
    enter(desk, server.key)
    expect(desk.locator("#problem-key")).to_contain_text("may not do that")
    expect(desk.locator("#queue")).to_be_hidden()
