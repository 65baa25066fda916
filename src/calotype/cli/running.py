"""Runs one job for a command: with the server that is there or one of its own, to saved files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.console import FAILED, print_json, say, say_error

if TYPE_CHECKING:
    from calotype.cli.client import Client

Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", help="A .png, .webp, .avif or .jpg; else calotype-<seed>.png here."
    ),
]


def run_job(
    ask_of: Callable[[Client], dict[str, Any]],
    *,
    output: Path | None,
    as_json: bool,
    home: Path | None,
) -> None:
    """Ask, wait, save the pictures, and print what is signed into them; Ctrl-C cancels it all."""
    from calotype.cli.client import Client as Caller
    from calotype.cli.making import make_pictures, numbered, save_pictures
    from calotype.cli.manifests import read_manifest, short
    from calotype.cli.servers import some_server
    from calotype.settings import Settings

    try:
        with some_server(Settings(home=home)) as server, Caller(server) as client:
            job = make_pictures(client, ask_of(client))
            paths = save_pictures(client, job, numbered(output, job["n"]) if output else None)
    except KeyboardInterrupt:
        say_error("cancelled")
        raise typer.Exit(FAILED) from None
    manifests = [read_manifest(path) for path in paths]
    if as_json:
        print_json({"job": job, "files": [str(path) for path in paths], "manifests": manifests})
    else:
        for path, manifest in zip(paths, manifests, strict=True):
            print(path, flush=True)
            say(short(manifest))


def check_output(output: Path | None) -> None:
    """Refuse a file that can't be written, before anything is made."""
    from calotype.cli.making import FORMS

    if output is None:
        return
    if output.suffix not in FORMS:
        endings = ", ".join(FORMS)
        raise typer.BadParameter(f"{output} has to end in one of {endings}", param_hint="-o")
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="-o")
