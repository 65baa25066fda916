"""``calotype vary IMAGE`` and ``calotype upscale IMAGE``: what is made of a finished picture."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from calotype.cli.console import AsJson, Home
from calotype.cli.running import Output, check_output, run_job

Image = Annotated[
    str,
    typer.Argument(help="A picture's file, as it was saved, or its id.", show_default=False),
]
Text = Annotated[str | None, typer.Option(help="Another prompt than the picture's own.")]
Seed = Annotated[int | None, typer.Option(help="Of the first picture.")]
Strength = Annotated[float | None, typer.Option(help="How far from the picture, 0 to 1.")]


def vary(
    *,
    image: Image,
    strong: Annotated[bool, typer.Option("--strong", help="Further away from it.")] = False,
    text: Text = None,
    seed: Seed = None,
    strength: Strength = None,
    n: Annotated[int | None, typer.Option("-n", "--n", help="How many; else four.")] = None,
    output: Output = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make variations of a picture that was made here, with its own settings and new seeds."""
    from calotype.cli.recipes import image_id

    check_output(output)
    kind = "vary_strong" if strong else "vary_subtle"
    ask: dict[str, Any] = {"kind": kind, "parent": image_id(image), "prompt": text, "n": n}
    ask |= {"seed": seed, "strength": strength}
    run_job(lambda _: ask, output=output, as_json=as_json, home=home)


def upscale(
    *,
    image: Image,
    by: Annotated[int, typer.Option(help="2 or 4 times as large, each way.")] = 2,
    text: Text = None,
    seed: Seed = None,
    strength: Strength = None,
    output: Output = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Draw a picture that was made here again, larger and with more detail."""
    from calotype.cli.recipes import image_id

    check_output(output)
    if by not in (2, 4):
        raise typer.BadParameter(f"by 2 or by 4, not by {by}", param_hint="--by")
    ask: dict[str, Any] = {"kind": f"upscale_{by}x", "parent": image_id(image), "prompt": text}
    ask |= {"seed": seed, "strength": strength}
    run_job(lambda _: ask, output=output, as_json=as_json, home=home)
