"""``calotype strikes``: what refusals add up to, who is suspended, and to lift that.

With or without a running server: it asks the store with each job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table
from calotype.cli.home import with_store

if TYPE_CHECKING:
    from calotype.jobs.store import JobStore

app = typer.Typer(help="Strikes and suspended accounts: list, lift.", no_args_is_help=True)


@app.command("list")
def list_strikes(*, as_json: AsJson = False, home: Home = None) -> None:
    """List strikes by user and category, and the suspensions that hold now."""

    async def look(store: JobStore) -> dict[str, Any]:
        strikes = store.people.strikes
        counts = [{**it, "last": it["last"].isoformat()} for it in await strikes.counts()]
        held = [
            {
                "tenant": it.tenant,
                "user": it.user,
                "rule": it.rule,
                "at": it.at.isoformat(),
                "until": it.until.isoformat() if it.until else None,
            }
            for it in await strikes.suspensions()
        ]
        return {"strikes": counts, "suspensions": held}

    found = with_store(home, look)
    if as_json:
        print_json(found)
        return
    print_table(
        ("tenant", "user", "category", "strikes", "last"),
        [[str(value) for value in it.values()] for it in found["strikes"]],
    )
    print_table(
        ("suspended", "user", "rule", "since", "until"),
        [
            (
                *(it["tenant"], it["user"] or "all of them", it["rule"], it["at"]),
                it["until"] or "it is lifted",
            )
            for it in found["suspensions"]
        ],
    )


@app.command()
def lift(
    *,
    tenant: Annotated[str, typer.Argument(help="As `calotype strikes list` shows it.")],
    user: Annotated[
        str | None, typer.Option(help="Of the tenant; else all of it and all its users.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it is written down.")],
    home: Home = None,
) -> None:
    """End suspensions and forget strikes, from the next job on."""
    count = with_store(
        home,
        lambda store: store.people.strikes.lift(tenant, user, by="operator", reason=reason),
    )
    print(f"{count} suspensions of {tenant} are lifted, and its strikes forgotten.")
