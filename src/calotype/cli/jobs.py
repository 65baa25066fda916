"""``calotype jobs``: what happened to one, and those that ended their engines; server or not."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table

if TYPE_CHECKING:
    from calotype.core.nouns import Event
    from calotype.jobs.quarantine import Quarantined
    from calotype.jobs.store import JobStore

app = typer.Typer(help="A job's log; quarantined jobs: list, release.", no_args_is_help=True)

_POLL_S = 0.5  # between two looks at a log that grows


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


@app.command()
def log(
    *,
    job_id: Annotated[str, typer.Argument(help="Its id.")],
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the job is over, or Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Show what happened to a job, from its event log; with --json, an event a line."""
    import asyncio

    from calotype.cli.home import with_store

    async def tell(store: JobStore) -> None:
        after = 0
        while True:
            is_over = (await store.get(job_id)).state.is_final  # asked first: then the log is whole
            for event in await store.events(job_id, after=after):
                after = event.seq
                print(_line(event, as_json=as_json), flush=True)
            if is_over or not follow:
                return
            await asyncio.sleep(_POLL_S)

    with contextlib.suppress(KeyboardInterrupt):
        with_store(home, tell)


def _line(event: Event, *, as_json: bool) -> str:
    at = event.at.isoformat(timespec="milliseconds")
    if as_json:
        said = {"seq": event.seq, "at": at, "kind": event.kind, "data": event.data}
        return json.dumps(said, ensure_ascii=False)
    data = {**event.data, **({"preview": "..."} if "preview" in event.data else {})}  # a picture
    more = "".join(f" {name}={value}" for name, value in data.items())
    return f"{event.seq:>4}  {at}  {event.kind}{more}"


def _row(entry: Quarantined) -> tuple[str, str, str]:
    return entry.job_id, entry.at.isoformat(timespec="seconds"), entry.reason
