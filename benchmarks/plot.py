"""Latency by load, one panel a model and percentile, from a comparison's JSON.

Run in the benchmark's environment, which has matplotlib: ``python -m benchmarks.plot IN.json OUT``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from calotype.cli.bench_report import OURS

_PANELS = (("latency_s", "p50"), ("latency_s", "p95"), ("first_step_s", "p95"))
_NAMES = {"latency_s": "latency", "first_step_s": "time to first step"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the plot; its format is that of the path's suffix."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    models = result["models"]
    size = (4.2 * len(_PANELS), 3.4 * len(models))
    figure, grid = pyplot.subplots(
        len(models), len(_PANELS), figsize=size, squeeze=False, layout="constrained"
    )
    for panels, model in zip(grid, models, strict=True):
        for panel, (what, percentile) in zip(panels, _PANELS, strict=True):
            for system in model["systems"]:
                points = _points(system, what, percentile)
                width = 2.4 if system["system"] == OURS else 1.2
                panel.plot(
                    *points, marker="o", markersize=3, linewidth=width, label=system["title"]
                )
            panel.set(title=f"{model['model']}: {_NAMES[what]}, {percentile.upper()}")
            panel.set(xlabel="load, share of serial capacity", ylabel="s", yscale="log")
            panel.grid(alpha=0.3)
    lines, names = grid[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=len(names), fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _points(system: Any, what: str, percentile: str) -> tuple[list[float], list[float]]:
    loads, values = [], []
    for run in system["runs"]:
        kind, _, load = run["run"].partition(" ")
        figures = run["tiers"].get("all")
        if kind == "load" and figures and figures[what]:
            loads.append(float(load))
            values.append(figures[what][percentile])
    return loads, values


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
