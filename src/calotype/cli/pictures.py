"""``calotype pictures``: take a delivered picture away, for good or until it was looked at.

``calotype links``: end the addresses that a tenant was given. Both with or without a running
server, which notices within seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from calotype.cli.console import AsJson, Home, print_json
from calotype.cli.home import with_store

if TYPE_CHECKING:
    from calotype.flow.removal import Removals
    from calotype.jobs.store import JobStore

T = TypeVar("T")
Image = Annotated[str, typer.Argument(help="The picture's id.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; it is recorded, and part of a receipt.")]

app = typer.Typer(help="Delivered pictures: delete, withdraw, release.", no_args_is_help=True)
links = typer.Typer(help="Signed addresses of pictures: revoke a tenant's.", no_args_is_help=True)


@app.command()
def delete(
    *, image: Image, reason: Reason = "", as_json: AsJson = False, home: Home = None
) -> None:
    """Delete a picture for good; prints the signed receipt."""
    receipt = _with_removals(
        home, lambda removals: removals.delete(image, by="operator", reason=reason)
    )
    if as_json:
        print_json(receipt)
    else:
        told = receipt["receipt"]
        print(f"{image} was deleted at {told['deleted_at']}, with {len(told['files'])} files.")


@app.command()
def withdraw(*, image: Image, reason: Reason, home: Home = None) -> None:
    """Take a picture out of delivery and keep it apart."""
    _with_removals(home, lambda removals: removals.withdraw(image, by="operator", reason=reason))
    print(f"{image} is withdrawn; `calotype pictures release {image}` brings it back.")


@app.command()
def release(*, image: Image, home: Home = None) -> None:
    """Give a withdrawn picture out again."""
    _with_removals(home, lambda removals: removals.release(image))
    print(f"{image} is delivered again.")


@links.command()
def revoke(
    *,
    tenant: Annotated[str, typer.Argument(help="As `calotype keys list` shows it.")],
    home: Home = None,
) -> None:
    """End every address that a tenant was given so far; its jobs then have new ones."""
    count = with_store(home, lambda store: store.files.revoke_links(tenant))
    print(f"The addresses of {tenant} are revoked (for the {count}. time).")


def _with_removals(home: Path | None, work: Callable[[Removals], Awaitable[T]]) -> T:
    from calotype.flow.gallery import removals, stores
    from calotype.flow.identity import identity_of
    from calotype.safety.configuration import pools
    from calotype.settings import Settings

    settings = Settings(home=home)

    async def run(store: JobStore) -> T:
        pictures, _, apart = stores(settings, pools(settings.safety_path))
        identity = identity_of(settings)
        return await work(
            removals(
                settings,
                store,
                identity,
                pictures=pictures,
                apart=apart,
                forget=None,
            )
        )

    return with_store(home, run)
