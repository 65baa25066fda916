"""``calotype models``: what this installation can draw with."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table, say_error
from calotype.core.nouns import AdapterInfo, AdapterKind

if TYPE_CHECKING:
    from calotype.pool.adapters import AdapterRegistry
    from calotype.pool.registry import ModelRegistry
    from calotype.settings import Settings

app = typer.Typer(help="Models: list.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """Models: list (more to come; the callback keeps ``list`` a command of its own)."""


@app.command("list")
def list_models(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the models, and what can be added to them, without loading any."""
    from calotype.settings import Settings

    settings = Settings(home=home)
    registry, adapters = scanned(settings), scanned_adapters(settings)
    found, broken = registry.list(), {**registry.broken(), **adapters.broken()}
    loras, controls = adapters.list(AdapterKind.LORA), adapters.list(AdapterKind.CONTROL)
    if as_json:
        told = {
            "models": [asdict(model) for model in found],
            "loras": [asdict(each) for each in loras],
            "controls": [asdict(each) for each in controls],
        }
        print_json({**told, "broken": broken})
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
    if loras or controls:
        titles = ("adapter", "title", "kind", "size", "for", "licence")
        print_table(titles, [_adapter_row(each) for each in (*loras, *controls)])
    for name, reason in broken.items():
        say_error(f"{name} can't be used: {reason}")


def scanned(settings: Settings) -> ModelRegistry:
    """Read the models' folders, the embedded one first, as the server does."""
    from calotype.pool.registry import ModelRegistry, embedded_folder

    registry = ModelRegistry([embedded_folder()], settings.models_folder)
    registry.scan()
    return registry


def scanned_adapters(settings: Settings) -> AdapterRegistry:
    """Read the adapters' folders, as the server does."""
    from calotype.pool.adapters import AdapterRegistry, embedded_adapters

    registry = AdapterRegistry([embedded_adapters(), settings.home])
    registry.scan()
    return registry


def _adapter_row(adapter: AdapterInfo) -> tuple[str, ...]:
    return (
        adapter.name,
        adapter.title,
        "LoRA" if adapter.kind is AdapterKind.LORA else "ControlNet",
        f"{adapter.bytes / 1e6:.1f} MB",
        ", ".join(adapter.bases) or "it doesn't say",
        adapter.licence,
    )
