"""``calotype safety thresholds``: from which scores a text classifier should refuse."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table, say


def thresholds(
    check: Annotated[str, typer.Argument(help="A text classifier, as safety.toml names it.")],
    *,
    harmless: Annotated[
        Path | None,
        typer.Option(help="Harmless prompts, a line each; else ours that look bad."),
    ] = None,
    false_positives: Annotated[
        float, typer.Option(help="Share of them that a label may refuse, 0 to 1.")
    ] = 0.01,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Find the lowest thresholds by which a label refuses less than a share of harmless prompts.

    The share is shown to be under the target by the upper end of its 95 % interval (Wilson).
    """
    from calotype.flow.safeguards import setup_of
    from calotype.flow.thresholds import find
    from calotype.settings import Settings

    found = find(setup_of(Settings(home=home)), check, harmless, false_positives)
    if as_json:
        print_json(asdict(found))
        return
    rows = [
        [
            each.label,
            "none" if each.score is None else f"{each.score:.6f}",
            f"{each.refused}/{each.of}",
            f"{each.high:.2%}",
        ]
        for each in found.labels
    ]
    print_table(["label", "from", "refused", "at most (95 %)"], rows)
    for each in found.labels:
        if each.score is None:
            say(f"{each.label} can't be told from harmless prompts: some score as high as it goes")
    say(f"harmless prompts that any label refuses: {found.refused['count']}/{found.refused['of']}")
    if found.categories:
        print("[policies.NAME.texts]")
        for category, score in found.categories.items():
            print(f"{category} = {score:.6f}")
