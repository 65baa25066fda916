"""The page says when a job that waits will be done, and what it waits for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from calotype.cli.waiting import eta_text
from tests.serving import Server
from tests.web.test_modules import JOB, after, event, in_page

ETA = {"position": 2, "p50_s": 20.2, "p90_s": 34.0, "reason": "2 turbo jobs ahead"}
NEXT: dict[str, Any] = ETA | {"position": 1, "p50_s": 4.4, "p90_s": 6.0, "reason": "it is next"}

WORDS = [
    (20.2, 34.0, "about 20 to 35 s"),
    (3.2, 6.7, "about 3 to 7 s"),
    (0.0, 0.4, "about 1 s"),
    (1.4, 14.0, "about 5 to 15 s"),
    (58.0, 61.0, "about 60 s"),
    (80.0, 300.0, "about 1 to 5 min"),
    (3_600.0, 7_100.0, "about 60 to 118 min"),
    (5_400.0, 14_000.0, "about 1.5 to 4 h"),
]


@pytest.mark.parametrize(("p50_s", "p90_s", "words"), WORDS)
def test_page_and_command_line_say_the_same_in_plain_words(
    page: Page, p50_s: float, p90_s: float, words: str
) -> None:
    eta = ETA | {"p50_s": p50_s, "p90_s": p90_s}
    said = in_page(page, "format.js", "(it, job) => it.etaText(job)", JOB | {"eta": eta})
    assert eta_text(eta) == f"{words}: 2 turbo jobs ahead"
    assert said == f"A{words[1:]}: 2 turbo jobs ahead."


def test_where_no_time_can_be_told_the_reason_stands_alone(page: Page) -> None:
    eta = ETA | {"p50_s": None, "p90_s": None, "reason": "no engine is up"}
    said = in_page(page, "format.js", "(it, job) => it.etaText(job)", JOB | {"eta": eta})
    assert said == "No engine is up."
    assert eta_text(eta) == "no engine is up"


def test_an_estimate_moves_a_job_that_waits_and_none_that_runs(page: Page) -> None:
    told = {"type": "eta", "id": "job_1", "eta": NEXT}
    job = after(page, event(1, "queued", position=2, eta=ETA), told)
    assert (job["eta"], job["position"], job["seq"]) == (NEXT, 1, 1)
    running = after(
        page, event(1, "queued", position=2, eta=ETA), event(2, "started", attempt=1), told
    )
    assert (running["eta"], running["status"]) == (None, "running")


@pytest.fixture
def full(server: Server) -> Iterator[list[str]]:
    """A server with more jobs than its engine holds rows; they are cancelled afterwards."""
    ask = {"prompt": "a tent", "steps": 100, "n": 4, "tier": "turbo"}
    jobs = []
    for _ in range(8):
        answer = httpx.post(f"{server.url}/v1/jobs", json=ask, headers=server.headers)
        jobs.append(answer.json()["urls"]["cancel"])
    yield jobs
    for cancel in jobs:
        httpx.delete(f"{server.url}{cancel}", headers=server.headers)


def test_jobs_that_wait_show_when_they_are_done_and_why_not_now(
    full: list[str], page: Page
) -> None:
    assert full
    waiting = page.locator("#waiting .tray[data-status='queued'] .eta:not([hidden])")
    told = re.compile(r"^About [\d.]+( to [\d.]+)? (s|min|h): .+\.$")
    expect(waiting.last).to_have_text(told)
    before = waiting.last.text_content()
    expect(waiting.last).not_to_have_text(before or "")
