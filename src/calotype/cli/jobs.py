"""``calotype jobs``: those that ended their engines, with or without a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table

if TYPE_CHECKING:
    from calotype.jobs.quarantine import Quarantined

app = typer.Typer(help="Quarantined jobs: list, release.", no_args_is_help=True)


@app.command()
def quarantined(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the jobs that ended every engine they met; what they asked for is taken no more."""
    from calotype.cli.home import with_store

    rows = [_row(each) for each in with_store(home, lambda store: store.quarantine.every())]
    if as_json:
        print_json({"jobs": [dict(zip(("id", "at", "reason"), row, strict=True)) for row in rows]})
    else:
        print_table(("id", "since", "reason"), rows)


@app.command()
def release(
    *,
    job_id: Annotated[str, typer.Argument(help="As `calotype jobs quarantined` shows it.")],
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Let what a job asked for be asked for again, once the cause is mended."""
    from calotype.cli.home import with_store

    with_store(home, lambda store: store.quarantine.release(job_id))
    if as_json:
        print_json({"released": job_id})
    else:
        print(f"{job_id} is released: the same may be asked for again")


def _row(entry: Quarantined) -> tuple[str, str, str]:
    return entry.job_id, entry.at.isoformat(timespec="seconds"), entry.reason
