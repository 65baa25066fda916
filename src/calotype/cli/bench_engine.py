"""``calotype bench engine``: the engine beside plain diffusers, serial and with a thread a request.

Both serve the same requests, one after the other, on this machine. In a checkout, ``python -m
benchmarks.engine`` adds other servers and a wide model to the same comparison.
"""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli.bench_compare import SYSTEMS, Plan, Tell, compare
from calotype.cli.bench_drive import System
from calotype.cli.bench_report import SERIAL, tables
from calotype.cli.bench_workload import Mix
from calotype.cli.console import AsJson, print_json, print_table, say
from calotype.core.errors import InvalidInput
from calotype.core.nouns import ModelInfo

EMBEDDED = "vignette"
LOADS, REQUESTS, TURBO, SECONDS = "0.5,0.8,0.95,1.2", 60, 10, 120.0
QUICK_LOADS, QUICK_REQUESTS, QUICK_TURBO = "0.95", 15, 4

Requests = Annotated[int | None, typer.Option(min=1, max=10_000, help="Pictures of each run.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="A run's arrivals take no longer.")]
Loads = Annotated[str | None, typer.Option(help="Shares of the serial capacity.")]
Turbo = Annotated[
    int | None, typer.Option(min=0, max=1_000, help="Turbo requests while relax saturates.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed asks the same.")]
MixOf = Annotated[
    Mix, typer.Option(help="alike: equal steps, guidance and sampler, for servers that batch.")
]
Loras = Annotated[int, typer.Option(min=0, max=8, help="LoRAs that half of the requests share.")]
Quick = Annotated[bool, typer.Option("--quick", help="Few pictures, one load: shows it works.")]


def engine(
    *,
    model: Annotated[str, typer.Option(help="A model's name.")] = EMBEDDED,
    systems: Annotated[str, typer.Option(help="Which; serial is always there.")] = "ours,async",
    requests: Requests = None,
    seconds: Seconds = SECONDS,
    loads: Loads = None,
    turbo: Turbo = None,
    seed: Seed = 1,
    mix: MixOf = "mixed",
    loras: Loras = 0,
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """The engine beside plain diffusers on a stream of mixed requests (about 5 min)."""
    from calotype.cli.catalogues import catalogue_of

    plan = plan_of(
        requests=requests,
        seconds=seconds,
        loads=loads,
        turbo=turbo,
        seed=seed,
        mix=mix,
        loras=loras,
        quick=quick,
    )
    chosen = choose(systems, SYSTEMS)
    info = catalogue_of(None).models.get(model)
    result = measure([(info, plan)], chosen)
    if as_json:
        print_json(result)
        return
    for title, titles, rows in tables(result):
        print_table(titles, rows, title)


def plan_of(
    *,
    requests: int | None,
    seconds: float,
    loads: str | None,
    turbo: int | None,
    seed: int,
    mix: Mix,
    loras: int,
    quick: bool,
) -> Plan:
    """What the options mean; raise InvalidInput for loads that aren't numbers above 0."""
    text = loads or (QUICK_LOADS if quick else LOADS)
    try:
        shares = tuple(float(load) for load in text.split(","))
    except ValueError:
        shares = (0.0,)
    if min(shares) <= 0:
        raise InvalidInput(f"loads are numbers above 0, not {text!r}", field="loads")
    return Plan(
        requests=requests or (QUICK_REQUESTS if quick else REQUESTS),
        seconds=seconds,
        loads=shares,
        turbo=turbo if turbo is not None else (QUICK_TURBO if quick else TURBO),
        seed=seed,
        mix=mix,
        loras=loras,
    )


def choose(names: str, known: Sequence[System]) -> list[System]:
    """The systems of these names, in the order of ``known``; the serial one always, and first."""
    asked = {SERIAL, *(name.strip() for name in names.split(",") if name.strip())}
    if unknown := asked - {system.name for system in known}:
        raise InvalidInput(
            f"there is no system {min(unknown)!r}",
            field="systems",
            limit=[system.name for system in known],
        )
    return [system for system in known if system.name in asked]


def measure(
    models: Sequence[tuple[ModelInfo, Plan]],
    systems: Sequence[System],
    keep: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure all systems on all models, with bars on stderr; return JSON (see bench_report).

    What there is goes to ``keep`` after each model. What the systems print goes to a folder that is
    told.
    """
    from calotype.cli.servers import terminating_as_interrupt

    logs = Path(tempfile.mkdtemp(prefix="calotype-bench-logs-"))
    say(f"what the systems print: {logs}")
    measured: list[dict[str, Any]] = []
    result = {"machine": machine(), "models": measured}
    with terminating_as_interrupt(), _bars(models, systems) as tell:
        for model, plan in models:
            found = asyncio.run(compare(systems, model, plan, logs / model.name, tell))
            size = f"{model.width} x {model.height}, {model.parameter_bytes / 1e6:.0f} MB"
            speed = f"serial capacity {found['capacity_images_s']:.2f} images/s"
            about = f"{size}, {plan.requests} {plan.mix} requests a run, {speed}"
            measured.append(
                {**found, "about": about, "is_embedded": model.name == EMBEDDED, "plan": vars(plan)}
            )
            keep(result)
    return result


@contextmanager
def _bars(models: Sequence[tuple[ModelInfo, Plan]], systems: Sequence[System]) -> Iterator[Tell]:
    """A bar for all runs and one for what runs now."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        whole = sum((1 + plan.runs) * len(systems) for _, plan in models)
        everything = progress.add_task("runs", total=whole)
        now = progress.add_task("starting", total=1)
        last = ""

        def tell(what: str, ended: int, total: int) -> None:
            nonlocal last
            if what != last:
                progress.advance(everything, 1 if last else 0)
                last = what
            progress.update(now, description=what, completed=ended, total=total)

        yield tell


def machine() -> dict[str, Any]:
    """What was measured on: cores, processor, system, and versions by package."""
    packages = ("calotype", "torch", "diffusers", "transformers")
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
