"""``calotype simulate``: a day of traffic on a fleet, with the production policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.console import AsJson, print_json, print_table, say
from calotype.core.errors import InvalidInput

if TYPE_CHECKING:
    from calotype.sim.jobs import Asked

Trace = Annotated[
    Path | None, typer.Option(help="Traffic from a trace: JSON lines, as `trace import` writes.")
]
Images = Annotated[int | None, typer.Option(help="Generated traffic of about so many images.")]
Fleet = Annotated[
    Path | None,
    typer.Option(help="The fleet, in TOML; autoscaled within `min` and `max`, and as it is."),
]
Gpus = Annotated[int | None, typer.Option(help="A fleet of so many A100s, all on demand.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result, byte for byte.")]
Policy = Annotated[
    str,
    typer.Option(help="ours, fifo, strict, round-robin, shortest: several with commas, or all."),
]
Rate = Annotated[float, typer.Option(help="How many times as fast a trace is played.")]
Hours = Annotated[float, typer.Option(help="Over how long generated traffic comes.")]
Tenants = Annotated[int, typer.Option(help="How many tenants generated traffic has.")]
Tiers = Annotated[str, typer.Option(help="Shares of generated jobs: turbo=0.1,fast=0.3,relax=0.6.")]
ImageSeconds = Annotated[
    float | None,
    typer.Option("--seconds-per-image", help="Device-seconds of every image, on an A100."),
]
EtaEvery = Annotated[
    int | None,
    typer.Option(help="Tell every N-th job its time, and compare; 0: none. Else some 1,000 jobs."),
]
Html = Annotated[Path | None, typer.Option(help="Write the report there, with plots.")]

ETAS = 1_000  # jobs that are told their time, about, where --eta-every isn't given


def simulate(
    *,
    trace: Trace = None,
    images: Images = None,
    fleet: Fleet = None,
    gpus: Gpus = None,
    seed: Seed = 0,
    policy: Policy = "ours",
    rate: Rate = 1.0,
    hours: Hours = 24.0,
    tenants: Tenants = 1_000,
    tiers: Tiers = "turbo=0.1,fast=0.3,relax=0.6",
    seconds_per_image: ImageSeconds = None,
    eta_every: EtaEvery = None,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Play traffic on a simulated fleet: waits, objectives, use and cost, by tier and policy."""
    from calotype.sim.compare import compare, policies_named
    from calotype.sim.fleet import of_gpus, read
    from calotype.sim.jobs import Costs
    from calotype.sim.page import page

    _one_of("trace", trace, "images", images)
    _one_of("fleet", fleet, "gpus", gpus)
    if eta_every is not None and eta_every < 0:
        raise InvalidInput(f"--eta-every must be 0 or more, not {eta_every}", field="eta-every")
    _above_zero(rate=rate, hours=hours, seconds_per_image=seconds_per_image)
    plan = read(fleet) if fleet is not None else of_gpus(gpus or 0)
    if trace is not None:
        traffic, said = _played(trace, rate)
    else:
        traffic, said = _generated(images or 0, hours, tenants, tiers, seed)
    if eta_every is None:
        jobs = (images or 0) // 2 if trace is None else sum(1 for _ in traffic())
        eta_every = max(1, jobs // ETAS)
    begin = time.perf_counter()
    chosen = policies_named(policy)
    report, plots = compare(
        plan=plan,
        traffic=traffic,
        costs=Costs(seconds_per_image),
        seed=seed,
        policies=chosen,
        said=said,
        etas_every=eta_every,
    )
    took_s = time.perf_counter() - begin
    say(f"{len(chosen)} run(s) of {report['runs'][0]['jobs']:,} jobs in {took_s:.1f} s")
    for reason, count in report["runs"][0]["refused"].items():
        say(f"{count:,} job(s) refused: {reason}")
    if html is not None:
        _write(html, page(report, plots))
    if as_json:
        print_json(report)
    else:
        _print(report, is_scaled=plan.is_scaled)


def _print(report: dict[str, Any], *, is_scaled: bool) -> None:
    from calotype.sim.page import eta_table, fleet_table, machine_table, tier_table

    print_table(*tier_table(report), title=report["said"])
    print_table(*fleet_table(report))
    if is_scaled or any(run["engines"]["lost"] for run in report["runs"]):
        print_table(*machine_table(report))
    if (etas := eta_table(report))[1]:
        print_table(*etas, title="Times that jobs were told when they were admitted")


def _played(trace: Path, rate: float) -> tuple[Callable[[], Iterable[Asked]], str]:
    from calotype.sim.trace import read

    return lambda: read(trace, rate), f"The trace {trace.name} at {rate:g} x its rate"


def _generated(
    images: int, hours: float, tenants: int, tiers: str, seed: int
) -> tuple[Callable[[], Iterable[Asked]], str]:
    from calotype.sim.traffic import Traffic, generate

    made = Traffic(images=images, hours=hours, tenants=tenants, tiers=_shares(tiers))
    said = f"About {images:,} generated images of {tenants:,} tenants in {hours:g} h"
    return lambda: generate(made, seed), said


def _shares(text: str) -> dict[Any, float]:
    from calotype.core.nouns import Tier

    shares = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            shares[Tier(name.strip())] = float(share)
        except ValueError:
            raise InvalidInput(f"--tiers: {part!r} is no share of a tier", field="tiers") from None
    return shares


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        said = f"--html: {path} can't be written: {error.strerror}"
        raise InvalidInput(said, field="html") from None


def _one_of(name: str, value: object, other: str, instead: object) -> None:
    if (value is None) == (instead is None):
        raise InvalidInput(f"give either --{name} or --{other}", field=name)


def _above_zero(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            option = name.replace("_", "-")
            raise InvalidInput(f"--{option} must be above 0, not {value}", field=name)
