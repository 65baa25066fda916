"""``python -m benchmarks.previews``: what previews add to a step, with and without side by side.

The same rows run again and again on the embedded model, in turns with and without previews; a round
of both is a pair, and the median of the pairs' ratios counts.
"""

from __future__ import annotations

import statistics
import time

import torch
import typer
from rich.progress import track

from calotype.cli.console import print_table
from calotype.core.messages import LoadModel, Message, RunRow
from calotype.engine.loop import Engine
from calotype.pool.registry import ModelRegistry, embedded_folder

STEPS = 30
NEVER = 1_000_000  # a step after which no preview is due


def main(*, pairs: int = 5) -> None:
    """Seconds of a step, and their ratio, of 1, 4 and 8 rows (about two minutes)."""
    registry = ModelRegistry([embedded_folder()], embedded_folder())
    registry.scan()
    model = registry.get(embedded_folder().name)
    engine = Engine(_ignored, torch.device("cpu"))
    engine.load(LoadModel(model.name, model.path, model.build))
    table = []
    for count in (1, 4, 8):
        found = [_pair(engine, model.name, count) for _ in track(range(pairs), f"{count} rows")]
        ratio = statistics.median(shown / hidden for shown, hidden in found)
        step_s = statistics.median(hidden for _, hidden in found)
        table.append([str(count), f"{step_s * 1e3:.1f} ms", f"{(ratio - 1) * 100:+.1f} %"])
    print_table(("rows", "a step without previews", "with them"), table, "Previews")


def _pair(engine: Engine, model: str, count: int) -> tuple[float, float]:
    """Seconds of a step with previews, and without."""
    return _step_s(engine, model, count, None), _step_s(engine, model, count, NEVER)


def _step_s(engine: Engine, model: str, count: int, previewed: int | None) -> float:
    for at in range(count):
        row = RunRow(f"r{at}", model, "a red house", "", 128, 128, STEPS, 5.0, "euler", at, "fast")
        engine.handle(row)
        engine._rows[row.row].previewed = previewed
    begun_s, passes = time.perf_counter(), engine.passes
    while engine.tick():
        pass
    seconds = time.perf_counter() - begun_s
    passes = engine.passes - passes
    engine.settle()
    return seconds / passes


def _ignored(message: Message, blob: bytes = b"") -> None:
    """Nobody listens."""


if __name__ == "__main__":
    typer.run(main)
