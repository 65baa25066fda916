"""Writes a comparison's files: all figures as JSON, the tables as Markdown, a plot."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from calotype.cli.bench_report import AIMS, Table, tables


def write(result: dict[str, Any], folder: Path, name: str, plotting: Path | None) -> list[Path]:
    """Write ``name``.json, .md and, with a Python that has matplotlib, .svg; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, page, plot = (folder / f"{name}.{kind}" for kind in ("json", "md", "svg"))
    figures.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page.write_text(markdown(result, plot.name if plotting else None), encoding="utf-8")
    if plotting is None:
        return [figures, page]
    subprocess.run([plotting, "-m", "benchmarks.plot", str(figures), str(plot)], check=True)
    return [figures, page, plot]


def markdown(result: dict[str, Any], plot: str | None) -> str:
    """The page: the machine, the aims, then every table; times are seconds."""
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    picture = [f"![Latency by load]({plot})\n"] if plot else []
    parts = ["# Engines under load\n", f"Measured on: {machine}.\n", *picture]
    parts += [
        _section(table) for table in sorted(tables(result), key=lambda table: table[0] != AIMS)
    ]
    return "\n".join(parts)


def _section(table: Table) -> str:
    title, titles, rows = table
    lines = [f"## {title}\n", _line(titles), _line(["---"] * len(titles))]
    return "\n".join([*lines, *(_line(row) for row in rows), ""])


def _line(cells: Any) -> str:
    return (
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
    )
