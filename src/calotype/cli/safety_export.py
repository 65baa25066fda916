"""``calotype safety export``: pictures that people have decided on, for a check to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table, say
from calotype.cli.home import with_store

if TYPE_CHECKING:
    from calotype.flow.review_export import Exported
    from calotype.jobs.store import JobStore


def export(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder, of labels'.")],
    reason: Annotated[str, typer.Option(help="What for; it is written down.")],
    harmless: Annotated[str, typer.Option(help="Label of what people let out.")] = "harmless",
    most: Annotated[
        int | None, typer.Option(min=1, help="Pictures, those decided last; 5,000 at most.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="A reviewer's key; else you are asked for it.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Save pictures that people decided on, by label, for `calotype safety train`."""
    from calotype.core.limits import EXPORT_PICTURES_MAX
    from calotype.flow.gallery import stores
    from calotype.flow.review_export import Export
    from calotype.flow.safeguards import setup_of
    from calotype.flow.sealed import sealed_parts
    from calotype.settings import Settings

    settings = Settings(home=home)
    setup = setup_of(settings)
    if key_file is None:
        secret = typer.prompt("Your key", hide_input=True, err=True)
    else:
        secret = key_file.read_text(encoding="utf-8")

    async def run(store: JobStore) -> Exported:
        key = await store.authenticate(secret.strip())
        sealed, _ = sealed_parts(settings)
        pictures, _, _ = stores(settings, setup.pools)
        return await Export(store, sealed, pictures, setup.conduct).to(
            output.absolute(),
            key,
            reason=reason,
            harmless=harmless,
            most=most or EXPORT_PICTURES_MAX,
        )

    done = with_store(home, run)
    if as_json:
        print_json({"id": done.id, "labels": done.labels, "left_out": done.left_out})
        return
    print_table(["label", "pictures"], [[name, str(n)] for name, n in done.labels.items()])
    for why, count in done.left_out.items():
        say(f"left out: {count} ({why})")
    say(f"train with --data {output}, and delete the folder afterwards")
