"""``calotype generate TEXT``: one request through the whole flow, its pictures saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli.console import FAILED, AsJson, Home, print_json, say, say_error


def generate(
    *,
    text: Annotated[str, typer.Argument(help="The prompt.", show_default=False)],
    negative: Annotated[str | None, typer.Option(help="What it shall not show.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first picture; else chance.")] = None,
    steps: Annotated[int | None, typer.Option(help="Else the model's own.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to the text.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, dpmpp_2m, euler or euler_a.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    model: Annotated[str | None, typer.Option(help="A name from `calotype models list`.")] = None,
    n: Annotated[int, typer.Option("-n", help="How many pictures.")] = 1,
    tier: Annotated[str | None, typer.Option(help="turbo, fast or relax.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="File to write, .png or .webp; else calotype-<seed>.png here."
        ),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make pictures from a text, save them, and print what is signed into them.

    Uses the server that runs on this home folder (or CALOTYPE_URL's); without one it starts what
    it needs and ends it afterwards.
    """
    _check_output(output)
    from calotype.cli.client import Client
    from calotype.cli.making import make_pictures, numbered, save_pictures
    from calotype.cli.manifests import read_manifest, short
    from calotype.cli.servers import some_server
    from calotype.settings import Settings

    ask: dict[str, Any] = {
        "prompt": text,
        "negative_prompt": negative,
        "model": model,
        "n": n,
        "tier": tier,
    }
    ask |= {"seed": seed, "steps": steps, "guidance": guidance, "sampler": sampler}
    ask |= {"width": width, "height": height}
    try:
        with some_server(Settings(home=home)) as server, Client(server) as client:
            job = make_pictures(client, ask)
            paths = save_pictures(client, job, numbered(output, n) if output else None)
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


def _check_output(output: Path | None) -> None:
    if output is None:
        return
    if output.suffix not in (".png", ".webp"):
        raise typer.BadParameter(f"{output} has to end in .png or .webp", param_hint="-o")
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="-o")
