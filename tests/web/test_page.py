"""The page at / in a real Chromium, against a real server with a real engine."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.serving import Server
from tests.web.visits import WAIT_MS, Visitor

PHONE = {"width": 390, "height": 844}
JOB: dict[str, Any] = {  # the body of a job that no server has
    "id": "job_unknown",
    "status": "running",
    "progress": 0,
    "position": None,
    "attempt": 1,
    "prompt": "a tent",
    "negative_prompt": "",
    "model": "vignette",
    "tier": "fast",
    "n": 1,
    "width": 128,
    "height": 128,
    "steps": 20,
    "guidance": 5,
    "sampler": "ddim",
    "seed": 1,
    "created_at": "2026-01-31T12:00:00.000Z",
    "started_at": None,
    "finished_at": None,
    "images": [],
    "refused": [],
    "error": None,
}


def write(page: Page, prompt: str, **options: str) -> None:
    """Fill in the prompt and, unfolding them, options by their names."""
    if options:
        page.evaluate("document.getElementById('options').open = true")
    for name, value in options.items():
        page.fill(f"#{name}", value)
    page.fill("#prompt", prompt)


def make(page: Page, prompt: str, **options: str) -> Locator:
    """Make a picture, wait for it, and return its tray."""
    write(page, prompt, **options)
    page.press("#prompt", "Enter")
    tray = page.locator("#developing .tray", has_text=prompt)
    arrived(tray)
    return tray


def arrived(tray: Locator) -> None:
    """Wait until the job in the tray ends, and hold it to its picture."""
    ended = re.compile("succeeded|failed|cancelled")
    expect(tray).to_have_attribute("data-status", ended, timeout=WAIT_MS)
    assert tray.get_attribute("data-status") == "succeeded", tray.inner_text()


def is_drawn(picture: Locator) -> bool:
    picture.evaluate("image => image.decode()")
    return bool(picture.evaluate("image => image.naturalWidth > 0"))


def test_a_prompt_comes_up_in_the_tray_and_hangs_in_the_gallery_after_reload(page: Page) -> None:
    prompt = "a red lighthouse on the right, foggy dawn at sea"
    write(page, prompt, steps="40")
    page.press("#prompt", "Control+Enter")
    preview = page.locator(".sheet img[data-kind=preview]")
    expect(preview).to_have_attribute("src", re.compile("^data:image/"), timeout=WAIT_MS)
    tray = page.locator("#developing .tray", has_text=prompt)
    expect(tray.locator(".status")).to_contain_text(re.compile(r"Step \d+ of 40"))
    arrived(tray)
    assert is_drawn(tray.locator("img[data-kind=picture]"))
    expect(page.locator("#progress-said")).to_contain_text("Done")

    page.reload()

    newest = page.locator("#prints .print").first
    expect(newest).to_contain_text(prompt)
    expect(newest).to_contain_text("40 steps")
    assert is_drawn(newest.locator("img"))


def test_a_refused_prompt_says_why_beside_it(page: Page) -> None:
    write(page, "graphic violence and gore in a castle")
    page.click("#make")
    problem = page.locator("#problem-prompt")
    expect(problem).to_contain_text("gore")
    expect(page.locator("#prompt")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#developing .tray")).to_have_count(0)
    page.locator("#prompt").press_sequentially(" no")
    expect(problem).to_be_hidden()


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("steps", "900", "from 1 to 100"),
        ("width", "100", "multiple of 8"),
        ("seed", "-1", "from 0 to"),
        ("steps", "many", "a whole number"),
        ("steps", "0x14", "a whole number"),  # JavaScript would read twenty
        ("seed", "1e3", "a whole number"),
        ("guidance", "1e999", "a number"),  # ... and infinity, which JSON makes null
        ("guidance", "Infinity", "a number"),
    ],
)
def test_a_value_over_its_limit_is_refused_beside_its_control(
    page: Page, field: str, value: str, limit: str
) -> None:
    write(page, "a white cottage in the hills", **{field: value})
    page.press(f"#{field}", "Enter")
    expect(page.locator(f"#problem-{field}")).to_be_visible()
    expect(page.locator(f"#problem-{field}")).to_contain_text(limit)
    expect(page.locator(f"#{field}")).to_be_focused()
    expect(page.locator(f"#{field}")).to_have_value(value)
    expect(page.locator("#developing .tray")).to_have_count(0)


def test_an_empty_prompt_is_refused(page: Page) -> None:
    page.press("#prompt", "Enter")
    expect(page.locator("#problem-prompt")).to_contain_text("empty")


def test_a_run_can_be_cancelled(page: Page) -> None:
    write(page, "a castle in the mountains at night", steps="100")
    page.check("input[name=n][value='4']", force=True)
    page.click("#make")
    tray = page.locator("#developing .tray")
    expect(tray).to_have_attribute("data-status", "running", timeout=WAIT_MS)
    tray.get_by_role("button", name="Cancel").click()
    expect(tray).to_have_attribute("data-status", "cancelled")
    expect(tray.locator(".status")).to_have_text("Cancelled")
    tray.get_by_role("button", name="Put away").click()
    expect(page.locator("#idle")).to_be_visible()


def test_jobs_that_wait_are_told_their_place_in_line(page: Page, server: Server) -> None:
    ask = {"prompt": "a tent in the forest", "steps": 100, "n": 4, "tier": "relax"}
    with httpx.Client(base_url=server.url, headers=server.headers) as client:
        ids = [client.post("/v1/jobs", json=ask).json()["id"] for _ in range(8)]
        try:
            page.reload()
            place = page.locator("#waiting .status", has_text=re.compile("in line"))
            expect(place.last).to_have_text(re.compile(r"^\d+(st|nd|rd|th) in line$"))
            expect(page.locator("#waiting .tray")).to_have_count(7)
        finally:
            for job_id in ids:
                client.delete(f"/v1/jobs/{job_id}")
    expect(page.locator("#waiting")).to_be_hidden()


def test_a_picture_opens_with_its_settings_and_can_be_taken_away(page: Page) -> None:
    prompt = "a purple balloon over the desert at sunset"
    make(page, prompt, seed="1841", steps="6")
    page.reload()
    page.locator("#prints .print", has_text=prompt).first.click()
    viewer = page.locator("#viewer")
    expect(viewer).to_be_visible()
    expect(viewer.locator("dl")).to_contain_text("1841")
    for form, signature in (("png", b"\x89PNG"), ("webp", b"RIFF")):
        with page.expect_download() as download:
            page.click(f"#viewer-{form}")
        assert download.value.path().read_bytes().startswith(signature)
        assert download.value.suggested_filename.endswith(f".{form}")
    page.click("#viewer-use")
    expect(viewer).to_be_hidden()
    expect(page.locator("#prompt")).to_have_value(prompt)
    expect(page.locator("#seed")).to_have_value("1841")
    expect(page.locator("#steps")).to_have_value("6")


def test_a_copied_link_opens_without_the_key(visit: Visitor) -> None:
    visited = visit()
    visited.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visited.page
    tray = make(page, "a yellow windmill on the left, green hills", steps="4")
    tray.locator(".sheet").click()
    page.click("#viewer-copy")
    expect(page.locator("#viewer-said")).to_contain_text("Copied")
    answer = httpx.get(page.evaluate("navigator.clipboard.readText()"))
    assert answer.headers["content-type"] == "image/png"
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()


def test_again_with_a_new_seed_makes_another_picture(page: Page) -> None:
    tray = make(page, "a pink castle in snowy mountains", seed="7", steps="5")
    first = tray.get_attribute("data-job")
    tray.get_by_role("button", name="Again with a new seed").click()
    other = page.locator(f"#developing .tray:not([data-job='{first}'])")
    arrived(other)
    expect(other).to_contain_text("a pink castle in snowy mountains")
    expect(other.locator(".facts")).not_to_contain_text("seed 7 ·")


def test_without_storage_the_page_works_and_the_theme_turns(visit: Visitor, server: Server) -> None:
    page = visit(fragment="#nothing").page
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('off'); } })"
    )
    page.goto(f"{server.url}/?off#key={server.key}")
    expect(page.locator("#composer")).to_be_visible()
    for word in ("Light", "Dark", "Light"):
        page.click("#theme")
        expect(page.locator("#theme")).to_have_text(word)


def listing(page: Page, *jobs: dict[str, Any]) -> None:
    """Open the page anew with these jobs listed in place of its own."""
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": list(jobs)}))
    page.reload()


def test_a_page_of_cancelled_jobs_does_not_hide_the_older_ones(page: Page) -> None:
    cancelled = [{**JOB, "id": f"job_{n:02}", "status": "cancelled"} for n in range(48)]
    listing(page, *cancelled)
    expect(page.locator("#older")).to_be_visible()
    expect(page.locator("#examples")).to_be_hidden()


def test_the_end_of_the_list_is_remembered(page: Page) -> None:
    cancelled = [{**JOB, "id": f"job_{n:02}", "status": "cancelled"} for n in range(48)]
    listing(page, *cancelled)
    page.route("**/v1/jobs?*before=*", lambda route: route.fulfill(json={"jobs": []}))
    page.click("#older")
    expect(page.locator("#older")).to_be_hidden()
    with page.expect_response("**/v1/jobs?*"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(300)
    expect(page.locator("#older")).to_be_hidden()


def test_settings_of_a_model_that_is_gone_are_sent_and_refused(page: Page) -> None:
    listing(page, {**JOB, "status": "failed", "model": "gone", "error": {"detail": "no more"}})
    page.get_by_role("button", name="Use these settings").first.click()
    expect(page.locator("#model")).to_have_value("gone")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # lists models again
    page.wait_for_timeout(300)
    page.click("#make")
    expect(page.locator("#problem-model")).to_contain_text("gone")


def test_a_job_that_the_server_does_not_know_leaves_the_tray(page: Page) -> None:
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": [JOB]}), times=1)
    page.reload()
    expect(page.locator(f"[data-job={JOB['id']}]")).to_have_count(0)
    expect(page.locator("#bench")).to_be_visible()


def test_the_prompt_shows_that_it_has_the_focus(page: Page) -> None:
    sheet = page.locator(".sheet-form")
    edge = "element => getComputedStyle(element).borderTopColor"
    page.focus("#theme")
    before = sheet.evaluate(edge)
    page.focus("#prompt")
    assert sheet.evaluate(edge) != before


def test_dark_follows_the_system_and_the_toggle_is_remembered(visit: Visitor) -> None:
    def ground(of: Page) -> str:
        return str(of.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    light, dark = visit().page, visit(color_scheme="dark").page
    paper, darkroom = ground(light), ground(dark)
    assert paper != darkroom
    light.click("#theme")
    assert ground(light) == darkroom
    light.reload()
    assert ground(light) == darkroom
    light.click("#theme")
    assert ground(light) == paper


def test_nothing_sticks_out_on_a_phone(visit: Visitor) -> None:
    page = visit(viewport=PHONE, is_mobile=True, has_touch=True).page
    make(page, "a blue sailboat in the centre on a very-calm-and-" + "endless-" * 12 + "sea")

    def overhang() -> int:
        return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    assert overhang() <= 0
    write(page, "a tent", steps="900")  # unfolds the options
    page.click("#make")
    expect(page.locator("#problem-steps")).to_be_visible()
    assert overhang() <= 0
    page.locator("#developing .sheet").click()
    expect(page.locator("#viewer-png")).to_be_visible()
    assert overhang() <= 0
    assert page.evaluate("viewer.scrollWidth - viewer.clientWidth") <= 0


def test_a_whole_run_leaves_the_console_clean_and_fetches_nothing_from_elsewhere(
    visit: Visitor, server: Server
) -> None:
    visited = visit()
    tray = make(visited.page, "a green cottage in the autumn forest")
    tray.locator(".sheet").click()
    visited.page.keyboard.press("Escape")
    visited.page.reload()
    expect(visited.page.locator("#prints .print").first).to_be_visible()
    assert visited.console == []
    away = [url for url in visited.requests if not url.startswith((f"{server.url}/", "data:"))]
    assert away == []


def test_a_lost_connection_is_said_and_the_picture_still_comes(visit: Visitor) -> None:
    visited = visit()
    page = visited.page
    write(page, "a white lighthouse under the stars", steps="60")
    page.press("#prompt", "Enter")
    tray = page.locator("#developing .tray")
    expect(tray).to_have_attribute("data-status", "running", timeout=WAIT_MS)
    visited.context.set_offline(True)
    expect(page.locator("#banner")).to_contain_text("offline")
    visited.context.set_offline(False)
    expect(page.locator("#banner")).to_be_hidden()
    arrived(tray)


def test_reduced_motion_keeps_everything_still(visit: Visitor) -> None:
    page = visit(reduced_motion="reduce").page
    write(page, "an orange tent by night", steps="60")
    page.press("#prompt", "Enter")
    expect(page.locator(".sheet img[data-kind=preview]")).to_be_visible(timeout=WAIT_MS)
    assert page.evaluate("document.getAnimations().length") == 0
    page.get_by_role("button", name="Cancel").click()
