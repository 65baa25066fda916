"""An operator's home in which the thing is forbidden, and how its picture check is made.

The check is made by ``calotype safety train`` of labelled folders: renders, whose labels are exact,
and the model's own pictures, labelled by what was asked for.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from rich.progress import Progress

from benchmarks.stand_in.asks import BLOCKLIST, CHECK, OTHER, SAFETY, THING, lesson
from calotype.flow.easel import Ask, easel
from calotype.flow.training import train
from calotype.pool.catalogue import Catalogue
from calotype.safety.setup import SafetySetup
from calotype.safety.training.course import Wish
from calotype.settings import Settings
from training.dataset import SIDE
from training.render import render

FALSE_POSITIVES = 0.01  # of the harmless pictures, by which thresholds are set
KEPT = (  # of a registered check: what it takes to run it, and its card
    "config.json",
    "encoder.safetensors",
    "evaluation.json",
    "head.safetensors",
    "preprocessor_config.json",
)
_AT_ONCE = 40


async def draw_lessons(folder: Path, count: int, env: dict[str, str], bar: Progress) -> None:
    """Labelled folders of so many renders, and of as many pictures by the model."""
    for label in (THING, OTHER):
        for source in ("renders", "vignette"):
            (folder / label / source).mkdir(parents=True)
    rendering = bar.add_task("rendering for the check", total=count)
    for at in range(count):
        scene, _ = lesson(at)
        Image.fromarray(render(scene, SIDE)).save(_place(folder, "renders", at))
        bar.advance(rendering)
    drawing = bar.add_task("drawing for the check", total=count)
    async with easel(SafetySetup.default_setup(), env) as drawn:
        for first in range(count, 2 * count, _AT_ONCE):  # scenes that weren't rendered
            these = range(first, min(first + _AT_ONCE, 2 * count))
            pictures = await drawn.judged([Ask(lesson(at)[1], at) for at in these])
            for at, each in zip(these, pictures, strict=True):
                if each.pixels is not None:
                    Image.fromarray(each.pixels).save(_place(folder, "vignette", at))
            bar.advance(drawing, len(these))


def teach(folder: Path, pictures: Path, encoder: Path, bar: Progress) -> dict[str, Any]:
    """Train the check in a home of its own, and put it into a folder; its card."""
    task = bar.add_task("training the check", total=1)
    with TemporaryDirectory(prefix="calotype-stand-in-") as place:
        settings = Settings(home=Path(place))
        catalogue = Catalogue(settings.models_folder, settings.home, is_quick=True)
        catalogue.scan()
        wish = Wish(CHECK, 0, FALSE_POSITIVES, (OTHER,), "Apache-2.0")
        done = train(catalogue, [pictures], wish, encoder=encoder)
        record = done.added.record
        made = catalogue.versions.folder(record.kind, record.name, record.version)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in KEPT:
            shutil.copyfile(made / name, folder / name)  # registered files can not be written to
    bar.advance(task)
    return done.card


def operators_home(home: Path, check: Path) -> Settings:
    """A home in which an operator forbids the thing: a list of words, a policy, a check."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "words.toml").write_text(BLOCKLIST, encoding="utf-8")
    (home / "safety.toml").write_text(SAFETY, encoding="utf-8")
    shutil.copytree(check, home / "check", dirs_exist_ok=True)
    return Settings(home=home, blocklist=home / "words.toml")


def _place(folder: Path, source: str, at: int) -> Path:
    return folder / (THING if at % 2 == 0 else OTHER) / source / f"{at}.png"
