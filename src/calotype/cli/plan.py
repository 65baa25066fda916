"""``calotype plan``: the smallest and cheapest fleet for a traffic; with ``memory``, what fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli import plan_memory
from calotype.cli.console import AsJson, print_json, print_table
from calotype.core.errors import InvalidInput

ImagesPerDay = Annotated[float | None, typer.Option(help="Images in a day.")]
Peak = Annotated[
    float | None, typer.Option("--peak-per-second", help="Images a second at the peak.")
]
Seconds = Annotated[float | None, typer.Option(help="Device-seconds of an image, on an A100.")]
Use = Annotated[float, typer.Option(help="Of the devices at peak, for the formula: 0 to 1.")]
Objectives = Annotated[
    str, typer.Option(help="Seconds from asking to the picture: turbo=15,fast=15,relax=600.")
]
Attained = Annotated[float, typer.Option(help="Share of a tier's jobs within its objective.")]
Fleet = Annotated[Path | None, typer.Option(help="Take the kinds of GPUs from this fleet (TOML).")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same plan.")]

app = typer.Typer(help="The smallest fleet for a traffic, or what fits on a device: memory.")
app.command("memory")(plan_memory.memory)


@app.callback(invoke_without_command=True)
def plan(
    context: typer.Context,
    *,
    images_per_day: ImagesPerDay = None,
    peak_per_second: Peak = None,
    seconds_per_image: Seconds = None,
    utilization: Use = 0.7,
    objectives: Objectives = "turbo=15,fast=15,relax=600",
    attained: Attained = 0.95,
    fleet: Fleet = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Find the smallest and cheapest fleet that meets the objectives, and say why."""
    from calotype.sim.plan import Wanted
    from calotype.sim.plan import plan as planned

    needed = {
        "images-per-day": images_per_day,
        "peak-per-second": peak_per_second,
        "seconds-per-image": seconds_per_image,
    }
    if context.invoked_subcommand is not None:
        _refuse(needed, is_given=True, why=f"is not for {context.invoked_subcommand}")
        return
    _refuse(needed, is_given=False, why="is missing")
    wanted = Wanted(
        images_per_day=images_per_day or 0.0,
        peak_per_s=peak_per_second or 0.0,
        seconds_per_image=seconds_per_image or 0.0,
        utilization=utilization,
        attained=attained,
        objectives=_objectives(objectives),
    )
    report = planned(wanted, seed, _kinds(fleet))
    if as_json:
        print_json(report)
    else:
        _print(report)


def _refuse(options: dict[str, float | None], *, is_given: bool, why: str) -> None:
    """Refuse the first option that is given, or isn't."""
    for name, value in options.items():
        if (value is not None) is is_given:
            raise InvalidInput(f"--{name} {why}", field=name)


def _objectives(text: str) -> dict[Any, float]:
    from calotype.core.nouns import Tier

    found = {}
    for part in text.split(","):
        name, _, seconds = part.partition("=")
        try:
            found[Tier(name.strip())] = float(seconds)
        except ValueError:
            said = f"--objectives: {part!r} is no tier with seconds"
            raise InvalidInput(said, field="objectives") from None
    return found


def _kinds(fleet: Path | None) -> dict[str, Any] | None:
    from calotype.sim.fleet import read

    if fleet is None:
        return None
    plan = read(fleet)
    return {group.kind: plan.kinds[group.kind] for group in plan.engines}


def _print(report: dict[str, Any]) -> None:
    rows = [
        (
            one["kind"],
            str(one["formula"]),
            str(one["erlang_c"]),
            str(one["simulated"]),
            f"{one['utilisation']:.0%}",
            f"{one['per_hour']:,.0f}",
            f"{one['per_1000_images_at_mean']:,.2f}",
            "cheapest" if one["kind"] == report["cheapest"] else "",
        )
        for one in report["kinds"]
    ]
    titles = ("kind", "formula", "Erlang C", "simulated", "in use", "$ an hour", "$ / 1,000", "")
    peak, gpus, pool = report["peak_per_s"], report["formula"], report["formula_with_pool"]
    title = f"{peak:g} images a second at peak: {gpus} A100s by formula, {pool} with the pool's own"
    print_table(titles, rows, title=title)
    for name, least_s in report["too_slow"].items():
        print(f"{name} takes {least_s:g} s for an image, more than the tightest objective")
    for name, models in report["too_small"].items():
        print(f"{name} can't hold {', '.join(models)}")
    print(report["why"])
