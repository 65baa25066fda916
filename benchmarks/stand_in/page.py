"""What is shown of the experiment: tables for docs/safety.md, and some of its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from benchmarks.stand_in.adaptive import ASKS_MAX
from benchmarks.stand_in.asks import THING
from benchmarks.stand_in.experiment import ADAPTIVE, HARMLESS, Drawn

COLUMNS, SIDE, GAP, HEAD = 10, 96, 6, 26
PAPER, INK = "#faf8f4", "#2b2a28"


def tables(found: Mapping[str, Any]) -> str:
    """Markdown: attack success by layer, then what is harmless, and the judge."""
    lines = [
        "| attack | passed the prompt check | if drawn, shows it | before | after | both |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["attacks"].items():
        short = [_short(row[kind]) for kind in ("passed", "shows")]
        whole = [share(row[kind]) for kind in ("before", "after", "both")]
        lines.append(f"| {' | '.join((name, *short, *whole))} |")
    search = found["adaptive"]
    lines.append(f"| {ADAPTIVE}, {ASKS_MAX} asks | - | - | - | - | {share(search['both'])} |")
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {name} | {share(row)} |" for name, row in _others(found).items()]
    return "\n".join(lines)


def _others(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    harmless, judge = found["harmless"], found["judge"]
    return {
        "harmless prompts, of other things: refused": harmless["refused"],
        f"their pictures without a {THING}: blocked": harmless["blocked"],
        f"their pictures with a {THING}, unasked": harmless["unasked"],
        f"the judge: renders with a {THING} that it sees": judge["renders"]["seen"],
        "without one, where it imagines one": judge["renders"]["imagined"],
        f"the judge: pictures looked at, with a {THING}, that it sees": judge["looked at"]["seen"],
        "without one, where it imagines one, of those": judge["looked at"]["imagined"],
    }


def share(row: Mapping[str, Any]) -> str:
    """A count with its interval."""
    if not row["of"]:
        return "-"
    low, high = (f"{100 * row[end]:.1f} %" for end in ("low", "high"))
    return f"{row['count']} of {row['of']:,} ({_percent(row)}; {low} to {high})"


def _short(row: Mapping[str, Any]) -> str:
    return f"{row['count']} of {row['of']:,} ({_percent(row)})" if row["of"] else "-"


def _percent(row: Mapping[str, Any]) -> str:
    return f"{100 * row['count'] / row['of']:.1f} %"


def grid(shown: Mapping[str, Sequence[Drawn]]) -> Image.Image:
    """Rows of pictures, each under what became of them; the first of each, nobody chose them."""
    attacks = [it for name, each in shown.items() if name != HARMLESS for it in each]
    other = shown[HARMLESS]
    rows = {
        f"Attacks that drew a {THING}: the picture check blocks it": [
            it for it in attacks if it.shows and not it.is_allowed
        ],
        f"Attacks that drew a {THING}: the picture check lets it through": [
            it for it in attacks if it.shows and it.is_allowed
        ],
        "Attacks that drew something else: let through": [
            it for it in attacks if not it.shows and it.is_allowed
        ],
        "Harmless prompts: let through": [it for it in other if it.is_allowed],
        "Harmless prompts: blocked by mistake": [
            it for it in other if not it.is_allowed and not it.shows
        ],
    }
    rows = {name: each for name, each in rows.items() if each}
    row = HEAD + SIDE + GAP
    page = Image.new("RGB", (GAP + COLUMNS * (SIDE + GAP), GAP + len(rows) * row), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for down, (name, pictures) in enumerate(rows.items()):
        top = GAP + down * row
        pen.text((GAP, top + 3), f"{name} ({len(pictures):,})", INK, font)
        for across, each in enumerate(spread(pictures)):
            small = Image.fromarray(each.pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            page.paste(small, (GAP + across * (SIDE + GAP), top + HEAD))
    return page


def spread(pictures: Sequence[Drawn]) -> list[Drawn]:
    """At most a row of them, evenly from first to last, so that each attack has some."""
    step = max(1.0, len(pictures) / COLUMNS)
    count = min(COLUMNS, len(pictures))
    return [pictures[int(at * step)] for at in range(count)]
