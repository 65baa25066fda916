"""``calotype bench load``: how long a model of SDXL's size takes to be in memory.

Ours beside ``from_pretrained`` and plain reads of the same bytes, from the disk and from the page
cache, each in a process of its own and in turn. The model's layers are real, its weights are noise.
What is timed is a process's second load, as most are, until each page of the weights was touched.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli.bench_engine import machine
from calotype.cli.console import AsJson, print_json, print_table, say
from calotype.core.errors import InternalError, InvalidInput, OperatorError

_FOLDER = Path("~/.cache/calotype/bench-load")
_SIZES = {"sdxl": 6_938_000_000, "sd15": 2_133_000_000}  # bytes of weights, the larger first
_ROOM = 2.5  # times its bytes must be free in memory: page cache, weights, and some for others
_DTYPE = "fp16"  # as the weights are in the files
_HOW = {
    "ours": "Calotype",
    "staged": "Calotype, from a copy in host memory",
    "from_pretrained": "from_pretrained",
    "upcast": "from_pretrained, decoder in float32",
    "keep": "read into memory that keeps it",
    "read": "read through one buffer",
    "map": "mapped, each page touched",
}
_COLD = ("ours", "from_pretrained", "read")  # the others tell nothing more, or copy from memory

Rounds = Annotated[int, typer.Option(min=1, max=20, help="Of each, in turn; the median counts.")]
Size = Annotated[str | None, typer.Option(help="sdxl or sd15; else the largest that fits.")]
Folder = Annotated[Path, typer.Option(help="Where the model is made, once, and kept.")]


def load(
    *, rounds: Rounds = 3, size: Size = None, folder: Folder = _FOLDER, as_json: AsJson = False
) -> None:
    """How quickly a model loads, beside from_pretrained and a plain read (about 5 min, 7 GB)."""
    from calotype.cli.servers import terminating_as_interrupt

    with terminating_as_interrupt():  # so that what runs ends with this process
        result = measure(rounds, _made(size, folder.expanduser()))
    if as_json:
        print_json(result)
    else:
        _print(result)


def measure(rounds: int, model: Path) -> dict[str, Any]:
    """Seconds and bytes of each load, by cache and by how."""
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    loras: list[dict[str, Any]] = []
    lora = model.with_name(f"{model.name}-lora.safetensors")
    for number in range(rounds):
        say(f"round {number + 1} of {rounds} ...")
        for cache in ("cold", "warm"):
            for how in _HOW:
                if cache == "cold" and how not in _COLD:
                    continue
                cold = ["--cold"] if cache == "cold" else []
                run = _run("load_speed", "--model", model, "--how", how, "--dtype", _DTYPE, *cold)
                runs.setdefault(cache, {}).setdefault(how, []).append(run)
        if lora.exists():
            asked = ("--model", lora, "--base", model, "--how", "lora", "--dtype", _DTYPE)
            loras.append(_run("load_speed", *asked))
    return {
        "machine": machine(),
        "model": model.name,
        "rounds": rounds,
        **{cache: {how: _middle(it) for how, it in each.items()} for cache, each in runs.items()},
        "lora": _middle(loras) if loras else None,
    }


def _middle(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The medians of some runs, with the quickest and the slowest."""
    seconds = [run["seconds"] for run in runs]
    return {
        "seconds": statistics.median(seconds),
        "returned_s": statistics.median(run["returned_s"] for run in runs),
        "first_s": statistics.median(run.get("first_s", run["seconds"]) for run in runs),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "cpu_s": statistics.median(run["cpu_s"] for run in runs),
        "bytes": runs[0]["bytes"],
        "kept": runs[0]["kept"],
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "resident": max(run["resident"] for run in runs),
    }


def _made(size: str | None, folder: Path) -> Path:
    """The folder of a model of this size, made now if it isn't there.

    Raises InvalidInput for another size, OperatorError if disk or memory has no room for it.
    """
    if size is not None and size not in _SIZES:
        raise InvalidInput(f"there is no size {size!r}", field="size", limit=[*_SIZES])
    sizes = [size] if size else [*_SIZES]
    free, memory = _free(folder), _available()
    for one in sizes:
        model = folder / one
        has_disk = (model / "model_index.json").exists() or free > 1.1 * _SIZES[one]
        if has_disk and memory > _ROOM * _SIZES[one]:
            break
    else:
        raise OperatorError(
            f"a model of {_SIZES[one]:,} bytes needs as much room on disk and {_ROOM} times it in "
            f"memory; free are {free:,} and {memory:,}"
        )
    if not (model / "model_index.json").exists():
        say(f"writing {_SIZES[one] / 1e9:.1f} GB of weights to {model} ...")
        shutil.rmtree(model, ignore_errors=True)  # half of one
        _run("large_model", "--size", one, "--folder", model)
    return model


def _free(folder: Path) -> int:
    """Bytes of the disk that this folder is, or will be, on."""
    there = next(it for it in (folder, *folder.parents) if it.exists())
    return shutil.disk_usage(there).free


def _available() -> int:
    """Bytes of memory that processes can have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(it.split()[1]) for it in lines if it.startswith("MemAvailable:"))


def _run(module: str, *arguments: object) -> dict[str, Any]:
    """Run one of the engine's modules in a process of its own: this one never imports torch."""
    command = [sys.executable, "-m", f"calotype.engine.{module}", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise InternalError(f"{module} failed: {answer.stderr.strip()[-500:]}")
    lines = answer.stdout.strip().splitlines()
    measured: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return measured


def _print(result: dict[str, Any]) -> None:
    rows = []
    for cache in ("cold", "warm"):
        ours = result[cache]["ours"]["seconds"]
        for how, one in result[cache].items():
            rows.append(
                (
                    cache,
                    _HOW[how],
                    f"{one['seconds']:.2f} s",
                    f"{one['seconds_min']:.2f} .. {one['seconds_max']:.2f}",
                    f"{one['returned_s']:.2f} s",
                    f"{one['first_s']:.2f} s",
                    f"{one['cpu_s']:.2f} s",
                    f"{one['bytes'] / one['seconds'] / 1e9:.2f} GB/s",
                    f"{one['seconds'] / ours:.2f}",
                    f"{one['peak_bytes'] / one['kept']:.2f}",
                )
            )
    title = f"{result['model']}, {result['warm']['ours']['bytes'] / 1e9:.2f} GB of files"
    titles = (
        "cache",
        "how",
        "median",
        "all",
        "returned",
        "first load",
        "of CPU",
        "speed",
        "times ours",
        "peak / weights",
    )
    print_table(titles, rows, title)
    if result["lora"]:
        say(f"a LoRA of {result['lora']['bytes'] / 1e6:.0f} MB: {result['lora']['seconds']:.2f} s")
