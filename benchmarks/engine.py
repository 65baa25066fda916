"""``python -m benchmarks.engine``: the engine beside serial diffusers, a thread a request, LitServe
and Ray Serve, on the embedded model and on a wide one. One command: it makes what it needs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.environment import CACHE, ROOT, python
from benchmarks.report import write
from benchmarks.wide_model import NAME as WIDE
from benchmarks.wide_model import wide_model
from calotype.cli.bench_compare import SYSTEMS, Plan
from calotype.cli.bench_drive import System
from calotype.cli.bench_engine import (
    EMBEDDED,
    SECONDS,
    Loads,
    Loras,
    MixOf,
    Quick,
    Requests,
    Seconds,
    Seed,
    Turbo,
    choose,
    measure,
    plan_of,
)
from calotype.cli.bench_report import tables
from calotype.cli.console import exit_code, print_table, say, say_error
from calotype.core.errors import CalotypeError, InvalidInput
from calotype.core.nouns import ModelInfo
from calotype.pool.registry import ModelRegistry, embedded_folder

_ENV = {
    "PYTHONPATH": str(ROOT),  # their workers start in folders of their own
    "OMP_WAIT_POLICY": "PASSIVE",  # as the engine has it: read before any code of ours runs
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would tell its makers
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too: no cluster, so the loopback address
}
_SERVERS = {
    "litserve": ("LitServe, batches", "with_litserve"),
    "ray": ("Ray Serve, batches", "with_ray"),
}
WIDE_REQUESTS, WIDE_LOADS, WIDE_TURBO = 24, "0.5,0.95", 6  # a picture takes some four times as long


def main(
    *,
    model: Annotated[str, typer.Option(help="Which, of vignette and wide.")] = "",
    systems: Annotated[
        str, typer.Option(help="Which; serial is always there.")
    ] = "ours,async,litserve,ray",
    requests: Requests = None,
    seconds: Seconds = SECONDS,
    loads: Loads = None,
    turbo: Turbo = None,
    seed: Seed = 1,
    mix: MixOf = "mixed",
    loras: Loras = 2,
    quick: Quick = False,
    out: Annotated[Path, typer.Option(help="Folder for table, plot and JSON.")] = Path(
        "benchmarks/results"
    ),
) -> None:
    """Compare; about 25 minutes on 2 quiet cores, --quick about 3 (the embedded model only)."""

    def plan(name: str) -> Plan:
        wide = name == WIDE and not quick
        return plan_of(
            requests=requests or (WIDE_REQUESTS if wide else None),
            seconds=seconds,
            loads=loads or (WIDE_LOADS if wide else None),
            turbo=turbo if turbo is not None else (WIDE_TURBO if wide else None),
            seed=seed,
            mix=mix,
            loras=loras,
            quick=quick,
        )

    names = [
        name.strip() for name in (model or (EMBEDDED if quick else f"{EMBEDDED},{WIDE}")).split(",")
    ]
    chosen = _chosen(systems)
    plotting = python() if any(system.name in _SERVERS for system in chosen) else None
    title = f"engine{'-quick' if quick else ''}{'-alike' if mix == 'alike' else ''}"

    def keep(result: dict[str, Any]) -> list[Path]:
        return write(result, out, title, plotting)

    result = measure([(_model(name), plan(name)) for name in names], chosen, keep)
    for caption, titles, rows in tables(result):
        print_table(titles, rows, caption)
    for path in keep(result):
        say(str(path))


def _chosen(names: str) -> list[System]:
    """The systems of these names; the environment is made if one of them needs it."""
    known = [*SYSTEMS, *(System(name, title, ()) for name, (title, _) in _SERVERS.items())]
    return [_server(one) if one.name in _SERVERS else one for one in choose(names, known)]


def _server(system: System) -> System:
    module = f"benchmarks.peers.{_SERVERS[system.name][1]}"
    return replace(system, command=(str(python()), "-m", module), env=_ENV)


def _model(name: str) -> ModelInfo:
    if name == WIDE:
        return wide_model(CACHE)
    if name != EMBEDDED:
        raise InvalidInput(f"there is no model {name!r} here", limit=[EMBEDDED, WIDE])
    registry = ModelRegistry([embedded_folder()], CACHE / "none")
    registry.scan()
    return registry.get(EMBEDDED)


if __name__ == "__main__":
    try:
        typer.run(main)
    except CalotypeError as error:
        say_error(error.detail)
        sys.exit(exit_code(error))
