"""Measure the embedded model: does it draw what it is asked for?

``python -m training.evaluate`` takes 500 combinations that no trainer saw, asks for each in words
that tell all of it, draws them with the unmodified ``StableDiffusionXLPipeline`` in fp32, lets
``training.classifier`` read the pictures, and writes ``evaluation.json`` into the model's folder:
one row for each number of steps and each guidance, one for the judge's own reading of renders of
the same scenes, and how often it is night with and without a negative prompt that refuses night.
``--quick`` draws 100 at the defaults only, in a minute.

The pictures are not chosen: picture k has seed k.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from training import shapes
from training.captions import UNSAID, said
from training.classifier import Judge, accuracies, load, read
from training.dataset import scene_at
from training.export import MODEL
from training.render import render
from training.scenes import Scene

COUNT = 500
QUICK = 100
ROWS = 25  # pictures drawn at once
STEPS, GUIDANCE = 20, 3.0  # the model's defaults
SETTINGS = (
    (STEPS, GUIDANCE),
    *((steps, GUIDANCE) for steps in (4, 8, 30, 50)),
    *((STEPS, guidance) for guidance in (1.0, 5.0, 7.5)),
)
NEGATIVE = "night, dark, stars"
WANTED = {"time": 0.97, "terrain": 0.97, "there": 0.92, "colour": 0.92, "place": 0.92}
HEADINGS = {
    "time": "time",
    "terrain": "terrain",
    "weather": "weather",
    "season": "season",
    "light": "light",
    "there": "object",
    "colour": "its colour",
    "place": "its place",
    "colour_of_there": "colour, if there",
    "place_of_there": "place, if there",
    "invented": "another object",
}


@dataclass(frozen=True)
class Ask:
    """One picture asked for: what it should show, in words that tell all of it."""

    scene: Scene
    text: str
    is_light_told: bool  # few people say that there is nothing in the sky


def asks(count: int) -> list[Ask]:
    """The first ``count`` held-out combinations, each with one full caption."""
    found = []
    for k in range(count):
        scene = scene_at("unseen", k)
        text, what = said(scene, random.Random(f"evaluation {k}"), everything=True)
        assert UNSAID not in (what.time, what.weather, what.season, what.terrain), text
        found.append(Ask(scene, text, what.light != UNSAID))
    return found


def renders(wanted: Sequence[Ask]) -> np.ndarray:
    """How the renderer draws these: uint8 (n, 128, 128, 3)."""
    return np.stack([render(ask.scene, shapes.PIXELS) for ask in wanted])


def load_pipeline(folder: Path) -> Any:
    """The model as anyone would load it, on the CPU in fp32."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def draw(
    pipeline: Any,
    texts: Sequence[str],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    negative: str | None = None,
    tell: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Draw text k with seed k: uint8 (n, 128, 128, 3). ``tell`` hears how many are new."""
    drawn = []
    for first in range(0, len(texts), ROWS):
        rows = list(texts[first : first + ROWS])
        answer = pipeline(
            rows,
            negative_prompt=None if negative is None else [negative] * len(rows),
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=shapes.PIXELS,
            width=shapes.PIXELS,
            generator=[torch.Generator().manual_seed(first + k) for k in range(len(rows))],
            output_type="np",
        )
        drawn.append(np.rint(255 * np.asarray(answer.images)).astype(np.uint8))
        tell(len(rows))
    return np.concatenate(drawn)


def weights_digest(folder: Path) -> str:
    """SHA-256 over all weights of a model's folder: which model was measured."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def evaluate(
    folder: Path, count: int, settings: Sequence[tuple[int, float]], console: Console
) -> dict[str, Any]:
    """All that ``evaluation.json`` holds; accuracies are shares, 0 to 1."""
    judge, pipeline, wanted = load(), load_pipeline(folder), asks(count)
    texts = [ask.text for ask in wanted]
    started = time.monotonic()
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        for steps, guidance in settings:
            task = progress.add_task(f"{steps} steps, guidance {guidance:g}", total=count)
            began = time.monotonic()
            pictures = draw(
                pipeline,
                texts,
                steps=steps,
                guidance=guidance,
                tell=lambda new, task=task: progress.advance(task, new),
            )
            took_s = round(time.monotonic() - began, 1)
            row = {"steps": steps, "guidance": guidance, "draw_s": took_s}
            rows.append(row | judged(judge, pictures, wanted))
        task = progress.add_task("a negative prompt", total=2 * QUICK)
        refusing = refused_nights(
            judge, pipeline, wanted[:QUICK], lambda new: progress.advance(task, new)
        )
    return {
        "model_sha256": weights_digest(folder),
        "pictures": count,
        "sampler": "dpmpp_2m",
        "threads": torch.get_num_threads(),
        "wall_s": round(time.monotonic() - started, 1),
        "judge_on_renders": judged(judge, renders(wanted), wanted),
        "rows": rows,
        "negative_prompt": refusing,
    }


def refused_nights(
    judge: Judge, pipeline: Any, wanted: Sequence[Ask], tell: Callable[[int], None]
) -> dict[str, Any]:
    """Of pictures whose prompt tells no time of day, the shares at night, 0 to 1.

    ``without`` any negative prompt and ``with`` one that refuses night, from the same seeds.
    """
    first = [ask.scene.things[0] for ask in wanted]
    where = {"left": "on the left", "centre": "in the centre", "right": "on the right"}
    texts = [f"a {thing.colour} {thing.kind} {where[thing.place]}" for thing in first]
    shares = {}
    for name, negative in (("without", None), ("with", NEGATIVE)):
        readings = read(judge, draw(pipeline, texts, negative=negative, tell=tell))
        shares[name] = round(float(np.mean([r.setting["time"] == "night" for r in readings])), 4)
    return {"text": NEGATIVE, "pictures": len(texts), **shares}


def judged(judge: Judge, pictures: np.ndarray, wanted: Sequence[Ask]) -> dict[str, float]:
    """What the judge reads, as shares right: each of ``HEADINGS``, 0 to 1."""
    scenes, lights = [ask.scene for ask in wanted], [ask.is_light_told for ask in wanted]
    shares = accuracies(read(judge, pictures), scenes, lights)
    return {name: round(shares[name], 4) for name in HEADINGS}


def table(report: dict[str, Any]) -> Table:
    """The report in percent, for a terminal."""
    title = f"{report['pictures']} pictures of held-out combinations, % right"
    shown = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    names = [name for name in HEADINGS if not name.endswith("_of_there")]  # 80 columns hold these
    for heading in ("steps", "guidance", *(HEADINGS[name] for name in names)):
        shown.add_column(heading, justify="right")
    for row in report["rows"]:
        first = (str(row["steps"]), f"{row['guidance']:g}")
        shown.add_row(*first, *(f"{100 * row[name]:.1f}" for name in names))
    judge = report["judge_on_renders"]
    shown.add_row("", "renders", *(f"{100 * judge[name]:.1f}" for name in names))
    return shown


def _refusing(report: dict[str, Any]) -> str:
    found = report["negative_prompt"]
    shares = f"{100 * found['without']:.0f} % without it, {100 * found['with']:.0f} % with it"
    return (
        f"night, where the prompt tells no time and the negative one is “{found['text']}”: {shares}"
    )


def shortfalls(report: dict[str, Any]) -> list[str]:
    """Where the row of the defaults, always the first, is below what is wanted; in words."""
    row = report["rows"][0]
    return [
        f"{HEADINGS[name]} {100 * row[name]:.1f} % of {100 * share:.0f} %"
        for name, share in WANTED.items()
        if row[name] < share
    ]


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--quick", action="store_true", help="100 pictures, the defaults only")
    parser.add_argument("--folder", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, help="default: evaluation.json in the folder")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console()
    count = QUICK if arguments.quick else arguments.count
    settings = SETTINGS[:1] if arguments.quick else SETTINGS
    report = evaluate(arguments.folder, count, settings, console)
    console.print(table(report))
    console.print(_refusing(report))
    console.print(f"{report['wall_s']:.0f} s; below what is wanted: {shortfalls(report) or 'none'}")
    out = arguments.out
    if out is None and not arguments.quick:
        out = arguments.folder / "evaluation.json"  # a quick look is not the record
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n")
        console.print(str(out))


if __name__ == "__main__":
    main()
