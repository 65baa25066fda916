"""A day on fixed and autoscaled fleets, and on spot machines: ``python -m benchmarks.scale``.

In the simulator, with the server's own line and scaler: the same generated day of 50,000 images

- on the smallest fixed fleet of A100s on which 95 % of each tier's jobs wait no longer than the
  scaler is asked for (found by halving), on an autoscaled one, and on a fixed one of the same
  GPU-hours;
- on autoscaled spot machines that are taken away every four hours in the mean, told two minutes
  before, half a minute before, and not at all; and that with images that take ten times as long.

Writes ``results/scale.json`` and the tables of ``docs/line.md``, between their marks. The same
bytes each time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.marks import fill, row
from calotype.core.nouns import Tier
from calotype.sim.fleet import Engines, FleetPlan
from calotype.sim.jobs import Asked, Costs
from calotype.sim.page import seconds
from calotype.sim.traffic import Traffic, generate
from calotype.sim.world import World

ROOT = Path(__file__).parents[1]
SEED = 1  # nothing was tuned on it
IMAGES = 50_000
MOST = 20  # A100s
SPOT_HOURS = 4.0
LONG_S = 70.0  # of an image, on an A100: about ten times what those of the day take
BEGUN = 4  # A100s that are there at midnight
NOTICES = {"told 2 min before": 120.0, "told 30 s before": 30.0, "not told": 0.0}
A100 = Engines("A100", BEGUN, warm=("flux", "sd3", "sdxl"))  # sdxl, the most used, is kept longest
SCALED = replace(A100, min=2, max=MOST)


def main() -> None:
    """Play all, and write the two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=IMAGES, help="of the day")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    asked = parser.parse_args()
    jobs = list(generate(Traffic(images=asked.images), SEED))
    longer = list(generate(Traffic(images=asked.images // 10), SEED))
    found = {
        "fleets": fleets(jobs),
        "spot": spot(jobs, Costs()),
        "spot, long": spot(longer, Costs(LONG_S)),
    }
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "scale.json").write_text(json.dumps(found, indent=1) + "\n")
    fill(asked.docs / "line.md", "scale", fleet_table(found["fleets"]))
    of_spot = {"Images of 7 s": found["spot"], "Images of 70 s": found["spot, long"]}
    fill(asked.docs / "line.md", "spot", spot_table(of_spot))


def fleets(jobs: Sequence[Asked]) -> dict[str, Any]:
    """Fixed and autoscaled, by name."""
    scaled = _played("autoscaled", SCALED, jobs)
    mean = round(scaled["engines"]["mean"])
    runs: dict[int, dict[str, Any]] = {}

    def fixed(count: int) -> dict[str, Any]:
        if count not in runs:
            runs[count] = _played(f"{count} fixed", replace(A100, count=count), jobs)
        return runs[count]

    count = _fewest(lambda it: meets(fixed(it)), mean, MOST)
    return {
        f"{count} A100s, the fewest that hold the waits": fixed(count),
        f"{SCALED.min} to {MOST} A100s, autoscaled": scaled,
        f"{mean} A100s, about the same GPU-hours": fixed(mean),
    }


def spot(jobs: Sequence[Asked], costs: Costs) -> dict[str, Any]:
    """Autoscaled spot machines, by when they are told."""
    spot = replace(SCALED, spot_hours=SPOT_HOURS)
    return {
        name: _played(name, replace(spot, notice_s=notice_s), jobs, costs)
        for name, notice_s in NOTICES.items()
    }


def meets(figures: Mapping[str, Any]) -> bool:
    """Whether 95 % of each tier's jobs waited no longer than the scaler is asked for."""
    waits = FleetPlan(()).waits
    return all(of["wait_s"]["p95"] <= waits[Tier(tier)] for tier, of in figures["tiers"].items())


def _fewest(is_enough: Callable[[int], bool], low: int, high: int) -> int:
    """The fewest above ``low``, where ``high`` are enough."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _played(
    title: str, group: Engines, jobs: Sequence[Asked], costs: Costs | None = None
) -> dict[str, Any]:
    with Console(stderr=True).status(title):
        return World(FleetPlan((group,)), jobs, costs or Costs(), SEED).run().figures()


def fleet_table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """As Markdown."""
    titles = ["fleet", "GPU-hours", "in use", "$ / 1,000 images"]
    titles += [f"{tier} P95" for tier in Tier] + ["promoted", "added / given up"]
    lines = [row(titles), row(["---"] + ["---:"] * (len(titles) - 1))]
    for name, run in runs.items():
        money = f"{run['gpu_hours']:,.0f}", f"{run['utilisation']:.0%}"
        waits = [seconds(run["tiers"][tier]["wait_s"]["p95"]) for tier in Tier]
        moves = f"{run['engines']['added']} / {run['engines']['given_up']}"
        dollars = f"{run['cost_per_1000_images']:.2f}"
        lines.append(row([name, *money, dollars, *waits, f"{run['promoted']:,}", moves]))
    return "\n".join(lines) + "\n"


def spot_table(of_spot: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """As Markdown."""
    titles = ["", "spot machines", "taken away", "work lost", "handed back", "attempts lost"]
    titles += ["failed", "$ / 1,000 images", *(f"{tier} P95" for tier in Tier)]
    lines = [row(titles), row(["---"] * 2 + ["---:"] * (len(titles) - 2))]
    for title, runs in of_spot.items():
        for at, (name, run) in enumerate(runs.items()):
            engines = run["engines"]
            lost = f"{engines['lost_device_s']:,.0f} s"
            counts = [f"{run[one]:,}" for one in ("handed_back", "retried", "failed")]
            waits = [seconds(run["tiers"][tier]["wait_s"]["p95"]) for tier in Tier]
            dollars = f"{run['cost_per_1000_images']:.2f}"
            cells = [name, f"{engines['lost']:,}", lost, *counts, dollars, *waits]
            lines.append(row([title if not at else "", *cells]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
