"""``calotype models``: what this installation can draw with."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table, say_error

if TYPE_CHECKING:
    from calotype.pool.registry import ModelRegistry
    from calotype.settings import Settings

app = typer.Typer(help="Models: list.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """Models: list (more to come; the callback keeps ``list`` a command of its own)."""


@app.command("list")
def list_models(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the models, from their folders and without loading them."""
    from calotype.settings import Settings

    registry = scanned(Settings(home=home))
    found, broken = registry.list(), registry.broken()
    if as_json:
        print_json({"models": [asdict(model) for model in found], "broken": broken})
        return
    print_table(
        ("name", "title", "family", "size", "pixels", "steps", "sampler", "licence"),
        [
            (
                model.name,
                model.title,
                model.family,
                f"{model.parameter_bytes / 1e6:.1f} MB",
                f"{model.width} x {model.height}",
                str(model.steps),
                model.sampler.value,
                model.licence,
            )
            for model in found
        ],
    )
    for name, reason in broken.items():
        say_error(f"{name} can't be used: {reason}")


def scanned(settings: Settings) -> ModelRegistry:
    """Read the models' folders, the embedded one first, as the server does."""
    from calotype.pool.registry import ModelRegistry, embedded_folder

    registry = ModelRegistry([embedded_folder()], settings.models_folder)
    registry.scan()
    return registry
