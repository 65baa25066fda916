"""``python -m benchmarks.memory``: does anything grow with the pictures an engine makes?

Waves of eight rows on the embedded model, each row another kind: plain, two sizes, LoRAs (its own
two and twenty of no meaning), the ControlNet, image to image, a mask. After each hundred pictures,
once the last is decoded: the bytes of all tensors that are alive, and the process's resident
memory. In the first half sizes are proven, adapters read and caches filled; what is alive in the
second may not be more.
"""

from __future__ import annotations

import gc
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track

from calotype.cli.bench_loras import make_loras
from calotype.cli.console import print_table, say_error
from calotype.core.messages import (
    LoadModel,
    Message,
    RowControl,
    RowDone,
    RowFailed,
    RowLora,
    RowPicture,
    RunRow,
)
from calotype.core.nouns import AdapterKind, ModelInfo
from calotype.engine.loop import Engine
from calotype.engine.tensors import bytes_of
from calotype.pool.adapters import AdapterRegistry, embedded_adapters
from calotype.pool.registry import ModelRegistry, embedded_folder

WAVE = 8  # rows at one time
SAMPLERS = ("ddim", "dpmpp_2m", "euler", "euler_a")
LORAS = 20  # of no meaning, beside the two that ship


class Told:
    """What the engine said of its rows."""

    def __init__(self) -> None:
        self.done = 0
        self.failed: list[str] = []

    def __call__(self, message: Message, blob: bytes = b"") -> None:
        """Count it."""
        if isinstance(message, RowDone):
            self.done += 1
        elif isinstance(message, RowFailed):
            self.failed.append(message.reason)


def main(*, pictures: int = 1000, every: Annotated[int, typer.Option(min=WAVE)] = 100) -> None:
    """Tensor bytes and resident memory over so many pictures (about five minutes for 1,000)."""
    told = Told()
    engine, model = Engine(told, torch.device("cpu")), _embedded()
    engine.load(LoadModel(model.name, model.path, model.build))
    measured: list[tuple[int, int, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        rows = _rows(model, Path(folder))
        for _ in track(range(0, pictures, every), f"{pictures} pictures"):
            for left in range(every, 0, -WAVE):
                _draw(engine, [next(rows) for _ in range(min(WAVE, left))])
            gc.collect()
            measured.append((told.done, _tensor_bytes(), _resident_bytes()))
    engine.close()
    _report(measured, told)


def _embedded() -> ModelInfo:
    registry = ModelRegistry([embedded_folder()], embedded_folder())
    registry.scan()
    return registry.get(embedded_folder().name)


def _rows(model: ModelInfo, folder: Path) -> Iterator[tuple[RunRow, bytes]]:
    """For ever: rows of every kind in turn, with their pictures' bytes."""
    adapters = AdapterRegistry([embedded_adapters()])
    adapters.scan()
    shipped = [
        RowLora(one.name, one.path, one.build, 0.8) for one in adapters.list(AdapterKind.LORA)
    ]
    loras = [*shipped, *make_loras(Path(model.path), folder, LORAS, seed=1).values()]
    edges = adapters.list(AdapterKind.CONTROL)[0]
    for number in count():
        size = 192 if number % 5 == 4 else model.width
        chance = np.random.default_rng(number)
        photo = chance.integers(0, 256, (size, size, 3), dtype=np.uint8).tobytes()
        half = np.repeat(np.array([0, 255], np.uint8), size * size // 2).tobytes()
        row = RunRow(
            row=f"row/{number}",
            model=model.name,
            prompt=f"a red house by the sea, number {number}",
            negative_prompt="" if number % 2 else "snow",
            width=size,
            height=size,
            steps=4,
            guidance=1.0 if number % 4 == 3 else 5.0,
            sampler=SAMPLERS[number % len(SAMPLERS)],
            seed=number,
            tier=("turbo", "fast", "relax")[number % 3],
        )
        seen, mask = RowPicture(size, size), RowPicture(size, size, 1)
        match number % 7:
            case 1:
                yield replace(row, loras=(loras[number % len(loras)],)), b""
            case 2:
                yield replace(row, loras=tuple(shipped)), b""
            case 3:
                control = RowControl(edges.name, edges.path, edges.build, 0, canny=True)
                yield replace(row, controls=(control,), pictures=(seen,)), photo
            case 4:
                yield replace(row, source=0, strength=0.8, pictures=(seen,)), photo
            case 5:
                pictures = (seen, mask)
                yield replace(row, source=0, mask=1, strength=0.8, pictures=pictures), photo + half
            case _:
                yield row, b""


def _draw(engine: Engine, rows: list[tuple[RunRow, bytes]]) -> None:
    for row, pictures in rows:
        engine.handle(row, pictures)
    while engine.rows_held:
        if not engine.tick():
            engine.settle()  # or an adapter is being read


def _tensor_bytes() -> int:
    """Of all tensors that are alive, each storage once."""
    return bytes_of(it for it in gc.get_objects() if issubclass(type(it), torch.Tensor))


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _report(measured: list[tuple[int, int, int]], told: Told) -> None:
    half = max(1, len(measured) // 2)
    tensors_max = max(tensors for _, tensors, _ in measured[:half])
    resident_max = max(resident for _, _, resident in measured[:half])
    print_table(
        ("pictures", "tensors", "to the first half's most", "resident", "to the first half's most"),
        [
            (
                str(done),
                f"{tensors / 1e6:.3f} MB",
                f"{tensors - tensors_max:+d} B",
                f"{resident / 1e6:.0f} MB",
                f"{(resident / resident_max - 1) * 100:+.1f} %",
            )
            for done, tensors, resident in measured
        ],
        f"Memory over {told.done} pictures",
    )
    for reason in dict.fromkeys(told.failed):
        say_error(f"{told.failed.count(reason)} rows failed: {reason}")
    if told.failed or any(tensors > tensors_max for _, tensors, _ in measured[half:]):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
