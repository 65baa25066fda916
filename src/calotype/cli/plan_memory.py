"""``calotype plan memory``: what a recipe takes on a device, line by line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.catalogues import catalogue_of
from calotype.cli.console import FAILED, AsJson, Home, print_json, print_table, say
from calotype.core.errors import InvalidInput

if TYPE_CHECKING:
    from calotype.core.events import ModelKnown

Model = Annotated[
    list[str] | None,
    typer.Option(help="A model of `calotype models list`, or sdxl, sd3, flux. More than once."),
]
Part = Annotated[
    list[str] | None,
    typer.Option(help="Or a part of one, in GB: base=10, encoders=4, vae=2. More than once."),
]
Device = Annotated[str, typer.Option(help="A100-80GB, A10G, H100, ..., or its size: 24GB.")]
Lora = Annotated[list[str] | None, typer.Option(help="A LoRA that has to be there; for --lora-gb.")]
Control = Annotated[list[str] | None, typer.Option(help="A ControlNet; for --control-gb.")]
LoraGb = Annotated[float | None, typer.Option(help="Kept for LoRAs.")]
ControlGb = Annotated[float | None, typer.Option(help="Kept for ControlNets.")]
LatentsGb = Annotated[float | None, typer.Option(help="For latents, a full pass and a decode.")]
SafetyGb = Annotated[float | None, typer.Option(help="Kept for what judges pictures.")]
OverheadGb = Annotated[float | None, typer.Option(help="Kept for the runtime and fragments.")]


def memory(
    *,
    model: Model = None,
    part: Part = None,
    device: Device = "A100-80GB",
    lora: Lora = None,
    control: Control = None,
    lora_gb: LoraGb = None,
    control_gb: ControlGb = None,
    latents_gb: LatentsGb = None,
    safety_gb: SafetyGb = None,
    overhead_gb: OverheadGb = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print what models and adapters take on a device, and whether they fit; 1 if they don't."""
    from calotype.sim import memory as sizes

    room = sizes.amount("latents-gb", sizes.LATENTS_GB if latents_gb is None else latents_gb)
    models = [_named(name, room, home) for name in model or ()]
    if part:
        models.append(_of_parts(part, room))
    if not models:
        raise InvalidInput("give at least one --model or --part", field="model")
    reserves = {
        "LoRA": _adapters("lora", lora or [], lora_gb, home),
        "ControlNet": _adapters("control", control or [], control_gb, home),
    }
    for name, given, option in (
        ("safety", safety_gb, "safety-gb"),
        ("overhead", overhead_gb, "overhead-gb"),
    ):
        reserves[name] = sizes.amount(option, sizes.RESERVES_GB[name] if given is None else given)
    report = {"device": device, **sizes.plan(models, reserves, sizes.device_bytes(device))}
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report["fits"]:
        raise typer.Exit(FAILED)


def _named(name: str, room: int, home: Path | None) -> ModelKnown:
    from calotype.core.events import ModelKnown
    from calotype.sim.fleet import MODELS, FleetPlan

    try:
        parts = catalogue_of(home).models.get(name).parts
    except InvalidInput:
        if name not in MODELS:
            raise
        parts = FleetPlan(()).needs(name).components
    return ModelKnown(name, parts, 0.0, room_bytes=room)


def _of_parts(parts: list[str], room: int) -> ModelKnown:
    from calotype.core.events import ModelKnown
    from calotype.core.nouns import Component
    from calotype.sim.memory import amount

    components = []
    for text in parts:
        name, _, size = text.partition("=")
        try:
            size_bytes = amount(f"part {name}", float(size))
        except ValueError:
            raise InvalidInput(f"--part {text!r} is no name=GB", field="part") from None
        components.append(Component(f"{name}, as given", name, size_bytes))
    return ModelKnown("as given", tuple(components), 0.0, room_bytes=room)


def _adapters(kind: str, names: list[str], given_gb: float | None, home: Path | None) -> int:
    """What is kept for adapters of a kind: as given, but no less than those that are named."""
    from calotype.core.nouns import AdapterKind
    from calotype.sim.memory import RESERVES_GB, amount

    line = {"lora": "LoRA", "control": "ControlNet"}[kind]
    named = 0
    if names:
        registry = catalogue_of(home).adapters
        named = sum(registry.get(AdapterKind(kind), name, field=kind).bytes for name in names)
    kept = amount(f"{kind}-gb", RESERVES_GB[line] if given_gb is None else given_gb)
    if given_gb is not None and named > kept:
        said = f"the named ones take {named / 1e9:.2f} GB, more than --{kind}-gb {given_gb:g}"
        raise InvalidInput(said, field=f"{kind}-gb", limit={"min": named / 1e9})
    return max(kept, named)


def _print(report: dict[str, Any]) -> None:
    budget = report["budget_bytes"]
    rows = [
        (name, f"{count / 1e9:.2f}", f"{count / budget:.0%}" if budget else "")
        for name, count in report["lines"].items()
    ]
    used, free = report["used_bytes"], report["free_bytes"]
    rows.append(("in all", f"{used / 1e9:.2f}", f"{used / budget:.0%}" if budget else ""))
    title = f"{report['device']}: {used / 1e9:.2f} of {budget / 1e9:g} GB"
    print_table(("line", "GB", "of the device"), rows, title=title)
    for name, of in report["models"].items():
        if of["adds_bytes"] < of["bytes"]:
            print(f"{name} adds {of['adds_bytes'] / 1e9:.2f} GB: it shares the rest")
    if free < 0:
        say(f"it doesn't fit: {-free / 1e9:.2f} GB too much")
