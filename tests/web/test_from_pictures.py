"""The page, where a job begins from a picture: added, painted on, varied, upscaled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.pictures import file_of, scene
from tests.serving import Server
from tests.web.test_page import arrived, make, write

TEXT = "a white cottage on the left, snowy hills"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    file.write_bytes(file_of(scene(192, 144)))
    return file


def add(page: Page, photo: Path) -> None:
    page.set_input_files("#source-file", photo)
    expect(page.locator("#source-picture")).to_have_attribute("src", re.compile("/pic_"))


def newest(server: Server) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/v1/jobs?limit=1", headers=server.headers)
    job: dict[str, Any] = answer.json()["jobs"][0]
    return job


def tray_of(page: Page, kind: str) -> Locator:
    tray = page.locator("#developing .tray", has=page.locator(".facts", has_text=kind))
    arrived(tray)
    return tray


def test_a_picture_is_added_and_begun_from(page: Page, server: Server, photo: Path) -> None:
    add(page, photo)
    page.fill("#source-amount", "0.5")
    make(page, TEXT, steps="6")
    job = newest(server)
    assert (job["kind"], job["strength"], job["mask"]) == ("image", 0.5, None)
    assert (job["width"], job["height"]) == (192, 144)
    page.click("#source-remove")
    expect(page.locator("#source")).to_be_hidden()
    make(page, "a tent in the forest", steps="4")
    assert newest(server)["kind"] == "text"


def test_only_what_is_painted_changes(page: Page, server: Server, photo: Path) -> None:
    add(page, photo)
    page.check("#source-paint", force=True)
    box = page.locator("#source-mask").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.5, steps=5)
    page.mouse.up()
    expect(page.locator("#source-note")).to_contain_text("Only what is painted")
    make(page, TEXT, steps="6")
    job = newest(server)
    assert job["kind"] == "inpaint"
    seen = httpx.get(f"{server.url}/v1/pictures/{job['mask']}", headers=server.headers).json()
    assert (seen["width"], seen["height"]) == (192, 144)


def test_what_is_no_picture_is_refused_beside_the_prompt(page: Page, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"no picture")
    page.set_input_files("#source-file", tmp_path / "photo.png")
    expect(page.locator("#problem-source")).to_contain_text("isn't a PNG, JPEG or WebP")
    expect(page.locator("#source")).to_be_hidden()


@pytest.mark.parametrize(
    ("button", "kind", "count", "side"),
    [("subtly", "Subtle variation", 4, 128), ("2 ×", "Upscaled 2×", 1, 256)],
)
def test_a_finished_picture_is_varied_and_upscaled(
    page: Page, server: Server, button: str, kind: str, count: int, side: int
) -> None:
    make(page, TEXT, steps="6").locator(".sheet").click()
    page.locator("#viewer-on").get_by_role("button", name=button).click()
    expect(page.locator("#viewer")).to_be_hidden()
    tray = tray_of(page, kind)
    expect(tray.locator(".sheet img.over[data-kind=picture]")).to_have_count(count)
    job = newest(server)
    assert {image["width"] for image in job["images"]} == {side}
    assert job["parent"] is not None
    tray.locator(".sheet").first.click()
    expect(page.locator("#viewer-settings")).to_contain_text(kind)


def test_a_finished_picture_is_begun_from(page: Page, server: Server) -> None:
    make(page, TEXT, steps="6").locator(".sheet").click()
    page.click("#viewer-source")
    expect(page.locator("#source-picture")).to_have_attribute("src", re.compile("/img_"))
    make(page, "a red tent at night", steps="6")
    assert newest(server)["source"].startswith("img_")


def test_settings_come_back_with_their_picture(page: Page, photo: Path) -> None:
    add(page, photo)
    page.fill("#source-amount", "0.7")
    tray = make(page, TEXT, steps="6")
    page.click("#source-remove")
    tray.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#source-picture")).to_have_attribute("src", re.compile("/pic_"))
    expect(page.locator("#source-amount")).to_have_value("0.7")


def test_a_style_is_added_with_its_weight(page: Page, server: Server) -> None:
    write(page, TEXT, steps="6")
    style = page.locator("#loras .lora").first
    style.get_by_role("checkbox").check()
    style.locator("input[type=range]").fill("0.5")
    page.press("#prompt", "Enter")
    arrived(page.locator("#developing .tray", has_text=TEXT))
    assert [use["weight"] for use in newest(server)["loras"]] == [0.5]


def test_the_words_of_a_style_that_is_on_are_added_to_the_prompt(page: Page) -> None:
    write(page, "a tent,", steps="6")
    style = page.locator("#loras .lora", has_text="With words")
    word = style.get_by_role("button", name="zwx")
    expect(word).to_be_hidden()
    style.get_by_role("checkbox").check()
    word.click()
    expect(page.locator("#prompt")).to_have_value("a tent, zwx")
    word.click()
    expect(page.locator("#prompt")).to_have_value("a tent, zwx")
    page.fill("#prompt", "")
    style.get_by_role("button", name="ink wash").click()
    expect(page.locator("#prompt")).to_have_value("ink wash")


def test_no_button_of_the_viewer_is_cut_off_on_a_phone(visit: Any) -> None:
    page = visit(viewport=PHONE).page
    expect(page.locator("#bench")).to_be_visible()
    make(page, TEXT, steps="4").locator(".sheet").click()
    for button in page.locator("#viewer-on button").all():
        button.scroll_into_view_if_needed()
        box = button.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
