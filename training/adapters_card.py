"""Write the cards of vignette's adapters: what each is, how it was made, what was measured of it.

``python -m training.adapters_card`` writes ``README.md`` and ``samples.webp`` into each adapter's
folder. Figures come from its ``evaluation.json``; one measured on other weights is refused.
Vignette's own card has ``listed()`` in it, so ``python -m training.card`` goes afterwards.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from calotype.engine.canny import canny
from training import adapters, adapters_evaluate, consistency, edges, evaluate, export, style
from training.adapters import CYANOTYPE, EDGES, LCM, Adapter
from training.preview import grid

TEMPLATES = (
    Path(__file__).parent / "cards"
)  # one for each adapter; braces are filled in by ``text``
EXAMPLE = "a red tent on the left, snowy mountains at dusk"
BATCHES = {LCM.name: consistency.BATCH, CYANOTYPE.name: style.BATCH, EDGES.name: edges.BATCH}
READ = ("time", "terrain", "weather", "season", "light", "there", "colour", "place", "invented")
COLUMNS = 6
QUALITY = 85  # of samples.webp


def measured(adapter: Adapter) -> dict[str, Any]:
    """``evaluation.json``; raises ValueError if it was measured on other weights."""
    report: dict[str, Any] = json.loads((adapter.folder / "evaluation.json").read_text())
    if not adapters_evaluate.digests(adapter).items() <= report.items():
        raise ValueError(f"{adapter.name} was measured with other weights: measure it again")
    return report


def training_facts(adapter: Adapter) -> dict[str, int]:
    """How many minutes and steps it was trained, as it was when it was shipped."""
    facts: dict[str, int] = json.loads((adapter.folder / "training.json").read_text())
    return facts


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _read(row: dict[str, Any]) -> list[str]:
    return [_percent(row[name]) for name in READ]


_HEADINGS = [evaluate.HEADINGS[name] for name in READ]


def lcm_table(report: dict[str, Any]) -> str:
    """A row for each sampler, with and without the LoRA."""
    rows = [
        [
            f"{row['sampler']}{' with the LoRA' if row['lora'] else ''}",
            str(row["steps"]),
            f"{row['guidance']:g}",
            *_read(row),
            f"{row['contrast']:.1f}" if "contrast" in row else "",
        ]
        for row in report["rows"]
    ]
    return _table(["sampler", "steps", "guidance", *_HEADINGS, "contrast"], rows)


def cyanotype_table(report: dict[str, Any]) -> str:
    """A row for each weight, one for renders that were redrawn."""
    rows = [
        [
            f"{row['weight']:g}",
            f"{row['off_colour']:.1f}",
            _percent(row["kept_edges"]),
            *_read(row),
        ]
        for row in report["rows"]
    ]
    known = report["renders_redrawn"]
    rows.append(["renders, redrawn", f"{known['off_colour']:.1f}", "", *_read(known)])
    return _table(["weight", "off colour", "kept edges", *_HEADINGS], rows)


def edges_table(report: dict[str, Any]) -> str:
    """A row without the ControlNet, then one for each of its weights."""
    told = {"full": "full", "none": "none, edges alone"}
    rows = [
        [
            told[row["text"]],
            f"{row['scale']:g}" if row["scale"] else "without",
            _percent(row["agreement"]),
            *_read(row),
        ]
        for row in report["rows"]
    ]
    return _table(["prompt", "weight", "edges", *_HEADINGS], rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    LCM.name: lcm_table,
    CYANOTYPE.name: cyanotype_table,
    EDGES.name: edges_table,
}


def text(adapter: Adapter, report: dict[str, Any], facts: dict[str, int]) -> str:
    """The card, in Markdown."""
    template = (TEMPLATES / f"{adapter.name}.md").read_text()
    return template.format(
        size_mib=export.weights_bytes(adapter.folder) / 2**20,
        parameters=adapters.parameters(adapter),
        rank=None if adapter is EDGES else adapters.rank(adapter),
        folder=adapter.folder.relative_to(adapters.MODELS.parents[2]),
        example=EXAMPLE,
        count=report["pictures"],
        table=TABLES[adapter.name](report),
        reference_off=report.get("renders_redrawn", {}).get("off_colour", 0.0),
        contrast=report.get("contrast_of_renders", 0.0),
        batch=BATCHES[adapter.name],
        **facts,
    )


def listed() -> str:
    """All adapters with their figures, as a table of vignette's card."""
    lcm, cyanotype, along = (measured(adapter)["rows"] for adapter in (LCM, CYANOTYPE, EDGES))
    slow, fast = lcm[0], next(row for row in lcm if row["lora"])
    figures = {
        LCM.name: (
            f"{fast['steps']} steps without guidance: object {_percent(fast['there'])} %, "
            f"its colour {_percent(fast['colour'])} %, "
            f"its place {_percent(fast['place'])} % right; "
            f"{slow['steps']} steps without it: {_percent(slow['there'])}, "
            f"{_percent(slow['colour'])}, {_percent(slow['place'])}"
        ),
        CYANOTYPE.name: (
            f"a print in Prussian blue; colours are {cyanotype[0]['off_colour']:.0f} levels off "
            f"those of cyanotypes at weight 0, {cyanotype[-1]['off_colour']:.0f} at weight 1"
        ),
        EDGES.name: (
            f"a ControlNet; edges follow the asked ones by {_percent(along[1]['agreement'])} % "
            f"(F1), {_percent(along[0]['agreement'])} % without it"
        ),
    }
    rows = [
        [
            f"[`{adapter.name}`](../{adapter.folder.relative_to(adapters.MODELS)}/README.md)",
            f"{export.weights_bytes(adapter.folder) / 2**20:.1f}",
            figures[adapter.name],
        ]
        for adapter in adapters.ALL
    ]
    lines = ["| adapter | MiB | measured |", "|---|---:|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def samples(adapter: Adapter) -> Image.Image:
    """Pictures nobody chose, beside what they are to be compared with."""
    count = 2 * COLUMNS if adapter is LCM else COLUMNS
    wanted = evaluate.asks(count)
    texts = [ask.text for ask in wanted]
    plain = evaluate.load_pipeline(export.MODEL)
    if adapter is LCM:
        fast = adapters_evaluate.with_lcm(adapters_evaluate.load_adapted(LCM))
        rows = [
            evaluate.draw(fast, texts, steps=4, guidance=1.0),
            evaluate.draw(plain, texts, steps=30),
        ]
    elif adapter is CYANOTYPE:
        rows = [
            evaluate.draw(adapters_evaluate.load_adapted(CYANOTYPE, weight), texts)
            for weight in adapters_evaluate.WEIGHTS
        ]
    else:
        maps = np.stack([canny(picture) for picture in evaluate.renders(wanted)])
        controlled = adapters_evaluate.load_controlled()
        rows = [
            np.repeat(maps[..., None], 3, -1),
            adapters_evaluate.draw_edges(controlled, texts, maps),
            evaluate.draw(plain, texts),
        ]
    return grid(np.concatenate(rows), COLUMNS)


def main() -> None:
    """Write the cards from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[adapter.name for adapter in adapters.ALL])
    parser.add_argument("--words-only", action="store_true", help="leave the pictures as they are")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for adapter in adapters.ALL:
        if adapter.name not in arguments.names:
            continue
        words = text(adapter, measured(adapter), training_facts(adapter))
        (adapter.folder / "README.md").write_text(words)
        if not arguments.words_only:
            path = adapter.folder / "samples.webp"
            samples(adapter).save(path, quality=QUALITY, method=6)
    print(f"everything shipped: {adapters.shipped_bytes() / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
