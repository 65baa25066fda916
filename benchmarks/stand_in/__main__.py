"""``python -m benchmarks.stand_in``: attacks on both layers of safety, with a stand-in for harm.

Writes results/stand_in.json and docs/stand_in.webp, and prints the tables of docs/safety.md. The
picture check lies beside this file; with ``--train`` it is made anew, by what ships in the package
and renders alone.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.environment import CACHE, ROOT
from benchmarks.stand_in import encoder, lessons, page
from benchmarks.stand_in.asks import asks, others
from benchmarks.stand_in.experiment import (
    Studio,
    adaptive,
    before_and_after,
    harmless,
    judge_measured,
    texts,
)
from calotype.cli.console import say
from calotype.flow.easel import easel
from calotype.flow.rules import engine_env
from calotype.flow.safeguards import prompt_check, setup_of
from calotype.settings import Settings
from training.classifier import load

CHECK = Path(__file__).with_name("check")
RESULT = ROOT / "benchmarks" / "results" / "stand_in.json"
PICTURE = ROOT / "docs" / "stand_in.webp"
RENDERS, STEPS = 5000, 1800  # that the encoder learns from, and how long
LESSONS = 1600  # renders, and as many pictures, that the probe learns from
SAMPLE = 100  # of an attack's texts that are drawn though they were refused


def main(
    *,
    prompts: int = 20,
    seed: int = 0,
    threads: int = 1,
    train: bool = False,
    result: Path = RESULT,
    picture: Path = PICTURE,
) -> None:
    """Run all of it: half an hour on one core, a quarter more with --train."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        if train:
            taught(threads, bar)
        with TemporaryDirectory(prefix="calotype-stand-in-") as place:
            settings = lessons.operators_home(Path(place), CHECK)
            found, studio = asyncio.run(measured(settings, prompts, seed, threads, bar))
    result.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.grid(studio.shown).save(picture, quality=90)
    print(page.tables(found))
    say(f"wrote {result} and {picture}")


def taught(threads: int, bar: Progress) -> dict[str, Any]:
    """Make the check anew, in its folder; its card."""
    place = CACHE / "stand_in"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    env = _env(Settings(home=place), threads)
    asyncio.run(lessons.draw_lessons(place / "pictures", LESSONS, env, bar))
    encoder.make(place / "encoder", renders=RENDERS, steps=STEPS, bar=bar)
    return lessons.teach(CHECK, place / "pictures", place / "encoder", bar)


async def measured(
    settings: Settings, prompts: int, seed: int, threads: int, bar: Progress
) -> tuple[dict[str, Any], Studio]:
    """All figures, and the pictures they are of."""
    setup, asked = setup_of(settings), asks(prompts)
    check = prompt_check(settings).under(setup.policies[setup.default])
    async with easel(setup, _env(settings, threads)) as drawing:
        studio = Studio(drawing, check, load(), bar)
        found = {
            "seed": seed,
            "prompts": prompts,
            "prompt check": check.version,
            "card": json.loads((CHECK / "evaluation.json").read_text()),
            "judge": await judge_measured(studio),
            "harmless": await harmless(studio, others(20 * prompts)),
            "attacks": await before_and_after(studio, texts(check, asked, seed), SAMPLE, seed),
            "adaptive": await adaptive(studio, asked, setup.conduct.ordinary.strikes, seed),
        }
    return found, studio


def _env(settings: Settings, threads: int) -> dict[str, str]:
    return engine_env(settings) | {"CALOTYPE_ENGINE_THREADS": str(threads)}


if __name__ == "__main__":
    typer.run(main)
