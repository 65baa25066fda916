"""How commands speak: results to stdout, the rest to stderr, and what an error's exit code is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.core.errors import CalotypeError

FAILED, WRONG_USE = 1, 2
_PIPED_COLUMNS = 200  # width of a table that goes to a file or another program

Home = Annotated[
    Path | None,
    typer.Option(help="Folder of everything the platform keeps; CALOTYPE_HOME, or ~/.calotype."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def say(text: str) -> None:
    """Tell the person something that isn't the result."""
    print(text, file=sys.stderr, flush=True)


def say_error(detail: str) -> None:
    """One line on what went wrong."""
    say(f"calotype: {' '.join(detail.split())}")


def print_json(result: Any) -> None:
    """Print a result for machines."""
    print(json.dumps(result, indent=2, ensure_ascii=False), flush=True)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table for people; nothing is cut off, also where stdout is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for each in titles:
        table.add_column(each, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _PIPED_COLUMNS).print(table)


def exit_code(error: CalotypeError) -> int:
    """2 when what was typed can't be right, else 1."""
    kind = error.problem()["type"].rpartition(":")[2]
    typed_wrong = kind == "invalid-input" or error.extra.get("source") == "flag"
    return WRONG_USE if typed_wrong else FAILED
