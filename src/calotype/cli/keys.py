"""``calotype keys``: make, list and revoke API keys, with or without a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table
from calotype.cli.home import with_store

if TYPE_CHECKING:
    from calotype.core.nouns import Key
    from calotype.jobs.store import JobStore

app = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)


@app.command()
def create(
    *,
    tenant: Annotated[
        str | None, typer.Option(help="Who pays, and sees only their own; else the first tenant.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Who of the tenant: its users share evenly; else the key is one itself."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "made by hand",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: jobs (at first), operator, review, cases; repeat it."),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make a key; its secret is printed this once and kept nowhere."""

    from calotype.flow.platform import FIRST_TENANT, SCOPES, SCOPES_KNOWN

    if unknown := [each for each in scope or () if each not in SCOPES_KNOWN]:
        said = f"{', '.join(SCOPES_KNOWN)}, not {unknown[0]}"
        raise typer.BadParameter(said, param_hint="--scope")
    scopes = tuple(dict.fromkeys(scope)) if scope else SCOPES

    async def make(store: JobStore) -> tuple[Key, str]:
        who = FIRST_TENANT if tenant is None else tenant
        return await store.create_key(tenant=who, user=user, name=name, scopes=scopes)

    key, secret = with_store(home, make)
    if as_json:
        print_json({**_body(key), "key": secret})
    else:
        print(secret)


@app.command("list")
def list_keys(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the keys, without their secrets."""
    keys = with_store(home, lambda store: store.list_keys())
    if as_json:
        print_json({"keys": [_body(key) for key in keys]})
        return
    bodies = [_body(key) for key in keys]
    print_table(
        ("id", "tenant", "user", "name", "created", "revoked"),
        [
            (
                each["id"],
                each["tenant"],
                each["user"],
                each["name"],
                each["created_at"],
                each["revoked_at"] or "",
            )
            for each in bodies
        ],
    )


@app.command()
def revoke(
    *,
    key_id: Annotated[str, typer.Argument(help="As `calotype keys list` shows it.")],
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Revoke a key; requests with it are refused from now on."""
    key = with_store(home, lambda store: store.revoke_key(key_id))
    if as_json:
        print_json(_body(key))
    else:
        print(f"{key.id} is revoked")


def _body(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "user": key.user,
        "name": key.name,
        "scopes": list(key.scopes),
        "created_at": key.created_at.isoformat(timespec="seconds"),
        "revoked_at": key.revoked_at.isoformat(timespec="seconds") if key.revoked_at else None,
    }
