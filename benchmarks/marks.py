"""Tables in pages that a benchmark makes: between two marks, all else is left as it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def fill(page: Path, mark: str, made: str) -> None:
    """Put the text between ``<!-- mark -->`` and ``<!-- /mark -->``; raise SystemExit without."""
    first, last = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, begin, rest = page.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SystemExit(f"{page} has no {first.strip()} ... {last}")
    page.write_text(f"{before}{begin}{made}{end}{after}", encoding="utf-8")


def row(cells: Iterable[str]) -> str:
    """Of a Markdown table."""
    return f"| {' | '.join(cells)} |"
