"""``calotype trace``: traffic of other services, as the simulator reads it, and recorded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calotype.cli.console import AsJson, print_json, say_error
from calotype.core.errors import InvalidInput

app = typer.Typer(help="Traces of traffic: import and replay.", no_args_is_help=True)


@app.command("import")
def import_trace(
    *,
    file: Annotated[Path, typer.Argument(help="The other service's file.")],
    format_: Annotated[str, typer.Option("--format", help="Of the file: gentd26.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; else here, as .jsonl.")] = None,
    seed: Annotated[int, typer.Option(help="Draws what the file lacks: tiers, LoRA names.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Turn a public trace into JSON lines for `calotype simulate --trace`."""
    from calotype.sim.trace import import_gentd26, write

    if format_ != "gentd26":
        raise InvalidInput(f"--format {format_!r} is none of gentd26", field="format")
    target = out or Path(file.name).with_suffix(".jsonl")
    jobs = import_gentd26(file, seed)
    write(target, jobs)
    models, tenants = len({job.model for job in jobs}), len({job.tenant for job in jobs})
    days = jobs[-1].at_s / 86_400 if jobs else 0.0
    if as_json:
        body = {"file": str(target), "jobs": len(jobs), "models": models, "tenants": tenants}
        print_json({**body, "days": round(days, 3), "seed": seed})
    else:
        said = f"{len(jobs):,} jobs, {models} models, {tenants:,} tenants, {days:.1f} days"
        print(f"{target}: {said}")


@app.command()
def replay(
    *,
    file: Annotated[Path, typer.Argument(help="What a server wrote: `calotype serve --record`.")],
    as_json: AsJson = False,
) -> None:
    """Tell the policy what a recorded line was told: does it decide the same, byte for byte?"""
    from calotype.sim.replay import replay as replayed

    report = replayed(file)
    difference = report["difference"]
    if as_json:
        print_json(report)
    elif difference is None:
        events, decisions = f"{report['events']:,} events", f"{report['decisions']:,} decisions"
        print(f"{file}: {events}, {decisions}: identical")
    else:
        say_error(f"{file}, line {difference['line']} differs")
        print(f"recorded {difference['recorded']}\nreplayed {difference['replayed']}")
    if difference is not None:
        raise typer.Exit(1)
