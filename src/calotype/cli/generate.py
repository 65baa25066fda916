"""``calotype generate TEXT``: one request through the whole flow, its pictures saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.console import AsJson, Home
from calotype.cli.running import Output, check_output, run_job

if TYPE_CHECKING:
    from calotype.cli.client import Client

_SAMPLERS = "euler, dpmpp_2m, lcm ...; a wrong one names those that suit the model."

Loras = Annotated[
    list[str] | None, typer.Option(help="NAME or NAME:WEIGHT; may be there several times.")
]
Controls = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FILE or NAME=FILE:WEIGHT, a ControlNet and what guides it."),
]


def generate(
    *,
    text: Annotated[str, typer.Argument(help="The prompt.", show_default=False)],
    negative: Annotated[str | None, typer.Option(help="What it shall not show.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first picture; else chance.")] = None,
    steps: Annotated[int | None, typer.Option(help="Else the LoRA's or the model's own.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to the text.")] = None,
    sampler: Annotated[str | None, typer.Option(help=_SAMPLERS)] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    model: Annotated[str | None, typer.Option(help="A name from `calotype models list`.")] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="How many pictures.")] = 1,
    tier: Annotated[str | None, typer.Option(help="turbo, fast or relax.")] = None,
    lora: Loras = None,
    control: Controls = None,
    canny: Annotated[bool | None, typer.Option(help="Take its edges; else as trained.")] = None,
    source: Annotated[str | None, typer.Option(help="A picture to begin from.")] = None,
    mask: Annotated[str | None, typer.Option(help="File as large: white where it changes.")] = None,
    strength: Annotated[float | None, typer.Option(help="How far from the source, 0 to 1.")] = None,
    output: Output = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make pictures from a text, save them, and print what is signed into them.

    Uses the server that runs on this home folder (or CALOTYPE_URL's); without one it starts what
    it needs and ends it afterwards.
    """
    from calotype.cli.recipes import check_controls, controls_of, loras_of, sent

    check_output(output)
    check_controls(control or ())
    ask: dict[str, Any] = {
        "prompt": text,
        "negative_prompt": negative,
        "model": model,
        "n": n,
        "tier": tier,
        "strength": strength,
        "loras": loras_of(lora or ()),
    }
    ask |= {"seed": seed, "steps": steps, "guidance": guidance, "sampler": sampler}
    ask |= {"width": width, "height": height}

    def ask_of(client: Client) -> dict[str, Any]:
        return ask | {
            "source": sent(client, source) if source else None,
            "mask": sent(client, mask) if mask else None,
            "controls": controls_of(client, control or (), canny),
        }

    run_job(ask_of, output=output, as_json=as_json, home=home)
