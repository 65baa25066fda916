"""What is kept loaded, side by side: ``python -m benchmarks.warm --gentd26 FILE``.

Ours, LRU, LFU, GDSF and the clairvoyant optimum (``calotype.sim.keepers``) on one device with room
for 3, 5, 10 and 20 models, in the simulator, with the production line:

- a real trace: FILE is ``lora_request_trace.csv`` of the "GenAI Serving Top-Down Dataset 2026" (see
  ``calotype.sim.trace``), or a part of it, with the data set's own times to load;
- two generated days of 60 models by Zipf's law, small, middling and large, with bursts, whose
  tenants stay with a model for a while as those of the trace do.

Rates and the like are learnt from all of it; the figures are of the second half alone. What was
tuned was tuned on the first (``--tuning``). Writes ``results/warm.json``, ``docs/pool.svg`` and the
table of ``docs/pool.md``, between its marks. The same seed and trace give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.warm_plot import draw
from calotype.sim.fleet import Engines, FleetPlan, Kind, Loading, ModelSize
from calotype.sim.jobs import Asked, Costs
from calotype.sim.keepers import keepers
from calotype.sim.page import seconds
from calotype.sim.trace import import_gentd26
from calotype.sim.traffic import Traffic, generate
from calotype.sim.world import World

ROOT = Path(__file__).parents[1]
SEED, TUNING_SEED = 2, 1
ROOMS = (3, 5, 10, 20)  # models, of the mean size
MODEL_GB = 6.9
LOADING = Loading(model_s=22.7, lora_s=4.4, model_gb=MODEL_GB)  # the data set's own medians
DEVICE = Kind(speed=4.0, price_per_hour=0.0, spot_price_per_hour=0.0, rows=4)
SIZES_GB = (6.9, 2.1, 11.7)  # of generated models, in turn; their mean is MODEL_GB
STICKS = 0.7
BEGIN, END = "<!-- warm -->\n", "<!-- /warm -->"
Traffics = Mapping[str, tuple[FleetPlan, list[Asked]]]


def main() -> None:
    """Play all, and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gentd26", type=Path, required=True, help="lora_request_trace.csv")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument(
        "--tuning", action="store_true", help="the first half; print, write nothing"
    )
    asked = parser.parse_args()
    found = [
        measure(title, *of, room, is_tuning=asked.tuning)
        for title, of in traffics(asked.gentd26, is_tuning=asked.tuning).items()
        for room in track(ROOMS, title, console=Console(stderr=True))
    ]
    if asked.tuning:
        print(table(found))
        return
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "warm.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.docs / "pool.svg").write_text(draw(found), encoding="utf-8")
    page = asked.docs / "pool.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"docs/pool.md has no {BEGIN.strip()} ... {END}")
    page.write_text(f"{before}{BEGIN}{table(found)}{END}{after}", encoding="utf-8")


def traffics(gentd26: Path, *, is_tuning: bool) -> Traffics:
    """What is played, by its title, with what its models need."""
    of_trace = import_gentd26(gentd26, SEED)
    names = [f"m{at}" for at in range(60)]
    made = Traffic(
        images=12_000,
        hours=48.0,
        tenants=300,
        bursts=24,
        burst_factor=6.0,
        models={name: 1 / (at + 1) for at, name in enumerate(names)},
        sticks=STICKS,
        lora_share=0.0,
    )
    sizes = {name: SIZES_GB[at % 3] for at, name in enumerate(names)}
    models = {name: ModelSize(gb, LOADING.model_s * gb / MODEL_GB) for name, gb in sizes.items()}
    generated = list(generate(made, TUNING_SEED if is_tuning else SEED))
    return {
        "Real trace": (_plan({}), of_trace[: len(of_trace) // 2] if is_tuning else of_trace),
        "Generated, Zipf with bursts": (_plan(models), generated),
    }


def measure(
    title: str, plan: FleetPlan, jobs: list[Asked], room: int, *, is_tuning: bool
) -> dict[str, Any]:
    """All keepers on one device with so much room; figures of the second half of the jobs."""
    kind = Kind(**{**vars(DEVICE), "models_gb": room * MODEL_GB})
    plan = FleetPlan(plan.engines, {"device": kind}, loading=plan.loading, models=plan.models)
    half = jobs[len(jobs) // 2].at_s
    runs = {}
    for name, made in keepers(jobs, plan.needs).items():
        world = World(plan, jobs, Costs(), SEED, keeper=made(), measured_from_s=half)
        figures = world.run().figures()
        runs[name] = {
            "hits": figures["warm_hit_rate"],
            "wait_s": figures["wait_s"],
            "loaded_gb": figures["loaded_gb"],
            "loads": figures["loads"],
            "jobs": figures["jobs"],
            "utilisation": figures["utilisation"],
        }
    return {"title": title, "room": room, "runs": runs}


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """All runs as one Markdown table."""
    titles = ["traffic", "room", "", "warm hits", "of the optimum's", "wait P50 / P95", "loaded"]
    lines = [_row(titles), _row(["---"] * 3 + ["---:"] * 4)]
    before = ""
    for one in found:
        best = one["runs"]["optimum"]["hits"]
        for name, run in one["runs"].items():
            wait = run["wait_s"]
            cells = [
                one["title"] if one["title"] != before else "",
                str(one["room"]) if name == "ours" else "",
                "**ours**" if name == "ours" else name,
                f"{run['hits']:.1%}",
                f"{run['hits'] / best:.1%}",
                f"{seconds(wait['p50'])} / {seconds(wait['p95'])}",
                f"{run['loaded_gb'] / 1e3:.2f} TB",
            ]
            lines.append(_row(cells))
            before = one["title"]
    return "\n".join(lines) + "\n"


def _plan(models: Mapping[str, ModelSize]) -> FleetPlan:
    return FleetPlan((Engines("device", 1),), loading=LOADING, models=models)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
