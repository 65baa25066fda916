"""Five policies side by side in the simulator: ``python -m benchmarks.policies --gentd26 FILE``.

On generated traffic, and on a real trace at 1, 10 and 100 times its rate: FILE, which has to be at
hand, is ``lora_request_trace.csv`` of the "GenAI Serving Top-Down Dataset 2026" (see
``calotype.sim.trace``), or a part of it. Writes the figures (``results/policies.json``), the plot
(``docs/line.svg``) and the table of ``docs/line.md``, between its marks. The same seed and trace
give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.marks import fill, row
from benchmarks.policies_plot import Panel, draw
from calotype.sim.baselines import POLICIES
from calotype.sim.compare import compare
from calotype.sim.fleet import FleetPlan, Loading, of_gpus
from calotype.sim.jobs import Asked, Costs
from calotype.sim.page import seconds
from calotype.sim.trace import import_gentd26
from calotype.sim.traffic import Traffic, generate

ROOT = Path(__file__).parents[1]
SEED = 1  # of tiers, LoRAs, traffic and noise
IMAGES, GENERATED_ON = 100_000, 11
RATES = {1: 1, 10: 5, 100: 40}  # times the trace's rate: A100s it is played on
LOADING = Loading(model_s=22.7, lora_s=4.4)  # the data set's own medians


def main() -> None:
    """Play all, and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gentd26", type=Path, required=True, help="lora_request_trace.csv")
    parser.add_argument("--images", type=int, default=IMAGES, help="of generated traffic")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    asked = parser.parse_args()
    jobs = import_gentd26(asked.gentd26, SEED)
    scenarios = list(_scenarios(jobs, asked.images))
    reports = [
        _played(*scenario) for scenario in track(scenarios, "traffic", console=Console(stderr=True))
    ]
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "policies.json").write_text(json.dumps(reports, indent=1) + "\n")
    panels: list[Panel] = [(it["title"], it["ran_on"], it["runs"]) for it in reports]
    (asked.docs / "line.svg").write_text(draw(panels), encoding="utf-8")
    fill(asked.docs / "line.md", "policies", table(reports))


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """All runs as one Markdown table."""
    tiers = ("turbo", "fast", "relax")
    titles = ["traffic", "policy", *(f"{tier} P50 / P95" for tier in tiers)]
    titles += ["relax, by tenant P50 / P95", "warm", "Jain"]
    lines = [row(titles), row(["---"] * 2 + ["---:"] * (len(titles) - 2))]
    for report in reports:
        title = f"{report['title']}, {report['ran_on']}"
        for run in report["runs"]:
            waits = [_two(run["tiers"][tier]["wait_s"]) for tier in tiers]
            of_tenants = _two(run["tiers"]["relax"]["tenant_wait_s"])
            name = f"**{run['policy']}**" if run["policy"] == "ours" else run["policy"]
            shares = (f"{run['warm_hit_rate']:.0%}", f"{run['jain']:.2f}")
            lines.append(row([title, name, *waits, of_tenants, *shares]))
            title = ""
    return "\n".join(lines) + "\n"


def _scenarios(jobs: list[Asked], images: int) -> Iterator[tuple[str, FleetPlan, list[Asked]]]:
    generated = list(generate(Traffic(images=images), SEED))
    yield f"Generated, {images:,} images a day", of_gpus(GENERATED_ON), generated
    for rate, gpus in RATES.items():
        faster = [replace(job, at_s=job.at_s / rate) for job in jobs]
        yield f"Real trace at {rate} x its rate", replace(of_gpus(gpus), loading=LOADING), faster


def _played(title: str, plan: FleetPlan, jobs: list[Asked]) -> dict[str, Any]:
    report, _ = compare(
        plan=plan,
        traffic=lambda: jobs,
        costs=Costs(),
        seed=SEED,
        policies=list(POLICIES),
        said=title,
    )
    use = max(run["utilisation"] for run in report["runs"])
    plural = "s" if plan.size > 1 else ""
    return {"title": title, "ran_on": f"{plan.size} GPU{plural}, {use:.0%} in use", **report}


def _two(quantiles: Mapping[str, float]) -> str:
    return f"{seconds(quantiles['p50'])} / {seconds(quantiles['p95'])}"


if __name__ == "__main__":
    main()
