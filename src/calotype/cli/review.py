"""``calotype review``: pictures that a check wasn't sure of or that are appealed, for people.

Speaks to the running server, with a reviewer's key (``calotype keys create --scope review``) from
CALOTYPE_KEY: a decision is written down under it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table, say
from calotype.cli.home import with_store

if TYPE_CHECKING:
    from calotype.cli.client import Client

Id = Annotated[str, typer.Argument(help="The review's id.", show_default=False)]

app = typer.Typer(
    help="Pictures that people decide on: list, show, decide, trail.", no_args_is_help=True
)


@app.command("list")
def list_reviews(
    *,
    every: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """List pictures that people have to decide on, the oldest first."""
    with _client(home) as client:
        found = client.get("/v1/reviews", state="all" if every else "open")["reviews"]
    if as_json:
        print_json({"reviews": found})
        return
    titles = ("id", "state", "category", "severe", "check", "score", "tenant", "opened")
    print_table(
        titles,
        [
            (
                *(it["id"], it["state"], it["category"] or "-", "yes" if it["is_severe"] else "no"),
                *(it["check"], _score(it), it["tenant"], it["opened_at"]),
            )
            for it in found
        ],
    )


@app.command()
def show(
    *,
    review: Id,
    picture: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .png to save the picture to; that is written down."),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Show one: what was asked, what the check found, what others said; the picture if wanted."""
    from calotype.files.private import write_private_bytes

    with _client(home) as client:
        found = client.get(f"/v1/reviews/{review}")
        if picture is not None:
            data = client.download(f"/v1/reviews/{review}/picture?size=whole")
            write_private_bytes(picture, data)
            say(f"{picture}: delete it when you have looked")
    if as_json:
        print_json(found)
        return
    print_table(("", ""), [(name, _cell(value)) for name, value in found.items()])


@app.command()
def decide(
    *,
    review: Id,
    decision: Annotated[str, typer.Argument(help="allow or block.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; it is written down.")],
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Say what becomes of a picture; of a severe one two people have to say the same."""
    if decision not in ("allow", "block"):
        raise typer.BadParameter("allow or block", param_hint="DECISION")
    with _client(home) as client:
        body = {"decision": decision, "reason": reason}
        after = client.post(f"/v1/reviews/{review}/decision", body)
    if as_json:
        print_json(after)
    elif after["state"] in ("held", "appealed"):
        print(f"{review} waits for another person to say the same.")
    else:
        print(f"{review} is {after['state']}.")


@app.command()
def trail(*, home: Home = None) -> None:
    """Check the audit trail: that nothing in it was changed or taken out. Needs no server."""
    count = with_store(home, lambda store: store.people.audit.verify())
    print(f"{count} entries, each in its place.")


@contextmanager
def _client(home: Path | None) -> Iterator[Client]:
    from calotype.cli.client import Client as Caller
    from calotype.cli.servers import some_server
    from calotype.settings import Settings

    with some_server(Settings(home=home)) as server, Caller(server) as client:
        yield client


def _score(review: dict[str, Any]) -> str:
    return "-" if review["score"] is None else f"{review['score']:.3f}"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(each) for each in value) or "-"
    return "-" if value is None else str(value)
