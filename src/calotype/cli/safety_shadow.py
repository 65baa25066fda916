"""``calotype safety shadow``: how a check on trial does beside the one in force."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table, say


def shadow(
    check: Annotated[
        str, typer.Argument(help="As safety.toml names it; else all.", show_default=False)
    ] = "",
    *,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show how far checks on trial agree with those in force, on the pictures that were made.

    `calotype models canary NAME VERSION --share 1` puts a version of a check on trial, also while
    the server runs; `models promote NAME` and `models rollback NAME` end it.
    """
    from calotype.flow.trials import TrialRecord
    from calotype.safety.trials import report
    from calotype.settings import Settings

    found = report(TrialRecord(Settings(home=home).trials_folder).read(check))
    if as_json:
        print_json({"trials": found})
        return
    print_table(
        ("check", "current", "candidate", "pictures", "failed", "agree", "now", "then"),
        [
            [
                *(str(each[name]) for name in ("check", "current", "candidate", "pictures")),
                *(_share(each[name]) for name in ("failed", "agree")),
                *(_share(each[name]) for name in ("current blocks", "candidate blocks")),
            ]
            for each in found
        ],
    )
    for each in found:
        for one in each["disagreements"]:
            blocks = f"now {one['now'] or 'passes'}, then {one['then'] or 'passes'}"
            print(f"{each['check']}: {one['job']}/{one['image']}: {blocks}")
    if not found:
        say("no check was on trial, or it saw no picture yet")


def _share(one: dict[str, Any]) -> str:
    if not one["of"]:
        return "-"
    share = one["count"] / one["of"]
    return f"{one['count']}/{one['of']} {share:.1%} ({one['low']:.1%} to {one['high']:.1%})"
