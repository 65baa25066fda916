"""The page's look at where a picture is from: ours, changed, saved anew, and no picture at all."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, expect

from tests.pictures import file_of, picture
from tests.serving import Server
from tests.web.test_page import make

TEXT = "a red lighthouse by the sea"


def check(page: Page, file: Path, verdict: str, says: str) -> None:
    page.set_input_files("#witness-file", file)
    expect(page.locator("#witness")).to_have_attribute("data-verdict", verdict)
    expect(page.locator("#witness-said")).to_contain_text(says)


def test_where_a_picture_is_from_is_told_with_how_sure_it_is(
    page: Page, server: Server, tmp_path: Path
) -> None:
    make(page, TEXT, steps="6")
    answer = httpx.get(f"{server.url}/v1/jobs?limit=1", headers=server.headers)
    whole = httpx.get(server.url + answer.json()["jobs"][0]["images"][0]["url"]).content
    page.click("#witness-open")
    (tmp_path / "whole.png").write_bytes(whole)
    check(page, tmp_path / "whole.png", "ours", "Signed by us and unchanged.")
    expect(page.locator("#witness-found")).to_contain_text(
        "Proven: its signature covers every byte"
    )
    changed = bytearray(whole)
    changed[whole.index(b"IDAT") + 40] ^= 1
    (tmp_path / "changed.png").write_bytes(changed)
    check(page, tmp_path / "changed.png", "ours_changed", "changed since it was signed")
    again = io.BytesIO()
    Image.open(io.BytesIO(whole)).convert("RGB").save(again, "png")
    (tmp_path / "again.png").write_bytes(again.getvalue())
    check(page, tmp_path / "again.png", "ours_by_mark", "it has our mark")
    expect(page.locator("#witness-found")).to_contain_text("Next to certain")
    (tmp_path / "other.png").write_bytes(file_of(picture(192, 144, seed=77)))
    check(page, tmp_path / "other.png", "not_ours", "Nothing says that it was made here")
    (tmp_path / "text.png").write_text("no picture at all")
    check(page, tmp_path / "text.png", "not_ours", "text.png: Nothing says")
    page.click("#witness-close")
    expect(page.locator("#witness")).to_be_hidden()


def test_no_key_is_needed_to_ask(visit: object, tmp_path: Path) -> None:
    page = visit(fragment="").page  # type: ignore[operator]
    page.click("#witness-open")
    (tmp_path / "other.png").write_bytes(file_of(picture(192, 144, seed=78)))
    check(page, tmp_path / "other.png", "not_ours", "Nothing says")
