"""The command line for jobs that begin from pictures: a real server, a real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calotype.cli.client import Server
from calotype.settings import Settings
from tests.flow.command_line import here
from tests.pictures import mask, scene

TEXT = "a red cottage on the left, green hills"


@pytest.fixture
def home(running: tuple[Server, Settings]) -> Path:
    """Of a server that draws."""
    return running[1].home


@pytest.fixture(scope="module")
def made(running: tuple[Server, Settings], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished picture's file."""
    file = tmp_path_factory.mktemp("made") / "cottage.png"
    run(running[1].home, "generate", TEXT, "--seed", "5", "--steps", "8", "-o", str(file))
    return file


def run(home: Path, *arguments: str) -> dict[str, Any]:
    done = here(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def test_a_picture_is_varied_by_its_file(home: Path, made: Path) -> None:
    body = run(home, "vary", str(made), "-n", "2", "-o", str(made.with_name("varied.png")))
    assert [Path(file).name for file in body["files"]] == ["varied-1.png", "varied-2.png"]
    [first, _] = body["manifests"]
    assert (first["kind"], first["prompt"], first["strength"]) == ("vary_subtle", TEXT, 0.5)
    assert first["parent"] == body["job"]["parent"]


def test_a_picture_is_upscaled_by_its_id(home: Path, made: Path) -> None:
    parent = run(home, "vary", str(made), "--strong", "-n", "1", "-o", str(made))["job"]
    image, file = parent["images"][0]["id"], made.with_name("large.png")
    job = run(home, "upscale", image, "--by", "2", "-o", str(file))["job"]
    assert job["kind"] == "upscale_2x"
    assert Image.open(file).size == (256, 256)


def test_a_text_can_begin_from_a_picture_and_change_a_part_of_it(
    home: Path, tmp_path: Path
) -> None:
    scene(128, 128).save(tmp_path / "photo.jpg")
    mask(128, 128).save(tmp_path / "mask.png")
    files = ["--source", str(tmp_path / "photo.jpg"), "--mask", str(tmp_path / "mask.png")]
    file = tmp_path / "out.png"
    body = run(home, "generate", TEXT, *files, "--steps", "6", "-o", str(file))
    assert body["job"]["kind"] == "inpaint"
    assert body["manifests"][0]["mask_sha256"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", TEXT, "--lora", "nope:0.5"], "no LoRA named 'nope'"),
        (["generate", TEXT, "--control", "edges"], "NAME=FILE"),
        (["generate", TEXT, "--strength", "0.5"], "there is none"),
        (["upscale", "img_1", "--by", "3"], "not by 3"),
        (["vary", "img_1"], "no image img_1"),
        (["vary", "server.log"], "doesn't say which image"),
        (["vary", "gone.png"], "no file gone.png"),
        (["generate", TEXT, "--source", "server.log"], "no PNG, JPEG or WebP"),
    ],
)
def test_wrong_use_says_why(home: Path, arguments: list[str], said: str) -> None:
    done = here(home, *arguments)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
