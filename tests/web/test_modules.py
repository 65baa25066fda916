"""The page's pure modules, run where they live: in Chromium, loaded from the server."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

JOB = {"id": "job_1", "status": "queued", "progress": 0, "position": 2, "attempt": 0, "n": 2}
JOB |= {"images": [], "error": None}


def in_page(page: Page, module: str, body: str, *given: Any) -> Any:
    """Run ``body``, a function of the module's exports and what is given."""
    script = f"async given => ({body})(await import('/web/js/{module}'), ...given)"
    return page.evaluate(script, list(given))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_read_however_the_network_cuts_them(page: Page, size: int) -> None:
    stream = (
        ': ping\n\nid: 1\nevent: queued\ndata: {"a":\ndata: 1}\n\n'
        "id: 2\r\nevent: step\r\ndata: é\r\n\r\nretry: 3\n\nevent: cut"
    )
    read = """({ EventParser }, stream, size) => {
      const parser = new EventParser(), events = [];
      for (let at = 0; at < stream.length; at += size) {
        events.push(...parser.push(stream.slice(at, at + size)));
      }
      return events;
    }"""
    assert in_page(page, "stream.js", read, stream, size) == [
        {"id": "1", "kind": "queued", "data": '{"a":\n1}'},
        {"id": "2", "kind": "step", "data": "é"},
    ]


def after(page: Page, *actions: dict[str, Any]) -> dict[str, Any]:
    """The job, and how far it is, after it was admitted and these actions came in."""
    body = """({ EMPTY, reduce, progress, bench }, actions) => {
      const state = actions.reduce(reduce, EMPTY), job = state.jobs.job_1;
      return { ...job, done: progress(job), bench: bench(state) };
    }"""
    admitted = {"type": "admitted", "job": JOB}
    result: dict[str, Any] = in_page(page, "store.js", body, [admitted, *actions])
    return result


def event(seq: int, kind: str, **data: Any) -> dict[str, Any]:
    return {"type": "event", "id": "job_1", "seq": seq, "kind": kind, "data": data}


STARTED = event(2, "started", attempt=1)
STEP = event(3, "step", image=0, step=5, steps=10, preview="data:x")


def test_progress_counts_all_pictures_and_a_preview_stays_until_the_next(page: Page) -> None:
    job = after(page, STARTED, STEP, event(4, "step", image=0, step=6, steps=10))
    assert job["status"] == "running"
    assert job["done"] == pytest.approx(0.3)
    assert job["rows"][0]["preview"] == "data:x"


def test_a_job_says_that_its_model_is_loading_until_it_starts_or_that_fails(page: Page) -> None:
    loading = event(2, "loading", model="sdxl", engine="engine-0", left_s=7.2)
    failed = event(3, "load_failed", model="sdxl", engine="engine-0", reason="no such file")
    note = "({ noteText }, job) => noteText(job)"
    job = after(page, loading)
    assert in_page(page, "format.js", note, job) == "sdxl is loading, about 7 s."
    assert in_page(page, "format.js", note, after(page, loading, failed)) == (
        "Trying again: sdxl couldn't be loaded: no such file."
    )
    started = after(page, loading, event(3, "started", attempt=1))
    assert in_page(page, "format.js", note, started) == ""


def test_an_event_heard_twice_changes_nothing(page: Page) -> None:
    assert after(page, STARTED, STEP, STARTED) == after(page, STARTED, STEP)


def test_an_older_body_does_not_undo_what_was_heard(page: Page) -> None:
    late = {"type": "fetched", "job": JOB}
    assert after(page, STARTED, STEP, late)["status"] == "running"
    ended = event(4, "cancelled", by="caller")
    assert after(page, STARTED, ended, late)["status"] == "cancelled"


def test_a_lost_attempt_starts_the_picture_over(page: Page) -> None:
    lost = event(4, "attempt_failed", attempt=1, reason="the engine ended")
    queued = event(5, "queued", position=1, attempt=1, reason="the engine ended")
    job = after(page, STARTED, STEP, lost, queued)
    assert (job["status"], job["position"], job["done"]) == ("queued", 1, 0)
    assert job["note"] == "the engine ended"


def test_a_picture_that_is_not_allowed_loses_its_preview_and_says_why(page: Page) -> None:
    why = {"category": "violence", "detail": "it shows violence"}
    judged = event(4, "image_finished", image=0, id="img_1", verdict="block", **why)
    job = after(page, STARTED, STEP, judged)
    assert job["rows"][0]["preview"] is None
    assert job["refused"] == [{"index": 0, **why}]
    texts = in_page(page, "format.js", "(it, job) => [it.sheetText(job, 0), it.noteText(job)]", job)
    assert texts == [
        "Picture 1 of 2: Withheld by the safety check",
        "Picture 1: it shows violence.",
    ]


def test_a_text_that_is_too_long_for_the_model_is_told(page: Page) -> None:
    first = event(3, "step", image=0, step=1, steps=10, tokens_cut=12)
    job = after(page, STARTED, first, event(4, "step", image=0, step=2, steps=10))
    assert "the last 12 tokens" in in_page(page, "format.js", "(it, job) => it.noteText(job)", job)


def test_a_job_that_fell_to_relax_says_so_until_it_is_over(page: Page) -> None:
    fell = {"tier": "relax", "fell_from": "turbo", "tier_detail": "the seconds are spent"}
    job = {**JOB, **fell}
    note = in_page(page, "format.js", "(it, job) => it.noteText(job)", job)
    assert note == "In relax, not turbo: the seconds are spent."
    over = {**job, "status": "cancelled"}
    assert in_page(page, "format.js", "(it, job) => it.noteText(job)", over) == ""


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("queued", "Waiting its turn"),
        ("running", "Developing"),
        ("pending_safety", "Held until it can be checked"),
        ("failed", "Not made"),
        ("cancelled", "Cancelled"),
        ("succeeded", "Withheld by the safety check"),
    ],
)
def test_a_sheet_without_a_picture_says_why(page: Page, status: str, text: str) -> None:
    job = {**JOB, "status": status, "n": 1}
    assert in_page(page, "format.js", "({ sheetText }, job) => sheetText(job, 0)", job) == text


def test_a_job_that_is_gone_leaves_nothing(page: Page) -> None:
    body = """({ EMPTY, reduce }, actions) => actions.reduce(reduce, EMPTY)"""
    actions = [{"type": "admitted", "job": JOB}, {"type": "gone", "id": "job_1"}]
    state = in_page(page, "store.js", body, actions)
    assert (state["jobs"], state["tray"]) == ({}, [])


def test_held_jobs_are_followed_last(page: Page) -> None:
    jobs = [
        {**JOB, "id": "job_1", "status": "pending_safety"},
        {**JOB, "id": "job_2", "status": "queued", "position": 3},
        {**JOB, "id": "job_3", "status": "queued", "position": 2},
        {**JOB, "id": "job_4", "status": "running"},
    ]
    body = """({ EMPTY, reduce, openJobs }, jobs) =>
      openJobs(reduce(EMPTY, { type: "listed", jobs, hasOlder: false })).map((job) => job.id)"""
    assert in_page(page, "store.js", body, jobs) == ["job_4", "job_3", "job_2", "job_1"]


def test_what_runs_lies_in_the_tray_and_the_rest_waits_in_order(page: Page) -> None:
    others = [{**JOB, "id": f"job_{k}", "position": k} for k in (3, 2)]
    job = after(page, {"type": "listed", "jobs": others, "hasOlder": False}, STARTED)
    assert job["bench"] == {"focus": "job_1", "waiting": ["job_2", "job_3"]}


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (113, "113th")],
)
def test_places_are_ordinal(page: Page, number: int, words: str) -> None:
    assert in_page(page, "format.js", "({ ordinal }, n) => ordinal(n)", number) == words


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (
            {"detail": "n must be from 1 to 4", "limit": {"min": 1, "max": 4}},
            "N must be from 1 to 4.",
        ),
        (
            {"detail": "too long", "limit": {"max_chars": 9}},
            "Too long. Allowed: at most 9 characters.",
        ),
        (
            {"detail": "has 10,000; 2,000 are allowed", "limit": 2000},
            "Has 10,000; 2,000 are allowed.",
        ),
        ({"detail": "no such one", "limit": ["a", "b"]}, "No such one. Allowed: a, b."),
        ({"title": "Too much at once"}, "Too much at once."),
    ],
)
def test_a_problem_says_its_limit_once(page: Page, problem: dict[str, Any], text: str) -> None:
    body = "({ problemText }, problem) => problemText(problem)"
    assert in_page(page, "format.js", body, problem) == text
