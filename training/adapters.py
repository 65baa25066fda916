"""Ship vignette's adapters: two LoRAs and a ControlNet, each in a folder of its own.

``python -m training.adapters`` copies what the trainers last published in ``training/runs`` to
``src/calotype/models/loras`` and ``controlnets``, in fp16, with the ``calotype.json`` that tells
the platform how each wants to be run and the ``training.json`` that tells how long it was trained.
Cards are ``training.adapters_card``'s business.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from training import consistency, export, loop
from training.diffusion import RUNS
from training.edges import CONTROLNET

MODELS = export.MODEL.parent
BYTES_MAX = 25_000_000  # everything that is shipped: vignette, adapters, cards, pictures


@dataclass(frozen=True)
class Adapter:
    """One adapter: where it comes from, where it goes, what the platform is told of it."""

    name: str
    run: str  # its folder in training/runs
    folder: Path
    calotype: dict[str, Any]


COMMON = {"licence": "Apache-2.0", "bases": [export.MODEL.name]}
CYANOTYPE = Adapter(
    "vignette-cyanotype",
    "style",
    MODELS / "loras" / "vignette-cyanotype",
    {"title": "Cyanotype", **COMMON},
)
LCM = Adapter(
    "vignette-lcm",
    "lcm",
    MODELS / "loras" / "vignette-lcm",
    {"title": "Four steps (LCM)", **COMMON, "steps": 4, "guidance": 1.0, "sampler": "lcm"},
)
EDGES = Adapter(
    "vignette-edges",
    "edges",
    MODELS / "controlnets" / "vignette-edges",
    {"title": "Edges", **COMMON, "control": "canny"},
)
ALL = (CYANOTYPE, LCM, EDGES)
TOLD = {  # in the header of a LoRA's file
    CYANOTYPE.name: {"about": "cyanotype style for vignette"},
    LCM.name: {"about": f"LCM-LoRA for vignette, guidance {consistency.GUIDANCE:g} baked in"},
}


def shipped_bytes(folder: Path = MODELS) -> int:
    """The size of all files that are shipped."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def parameters(adapter: Adapter) -> int:
    """How many numbers its weights are."""
    count = 0
    for path in adapter.folder.glob("*.safetensors"):
        count += sum(weight.numel() for weight in load_file(path).values())
    return count


def _rank_of(path: Path) -> int:
    with safe_open(path, "pt") as file:
        first = next(name for name in file.keys() if ".lora_A." in name)  # noqa: SIM118 - no dict
        return int(file.get_slice(first).get_shape()[0])


def rank(adapter: Adapter) -> int:
    """The rank of a shipped LoRA."""
    return _rank_of(adapter.folder / "lora.safetensors")


def ship(adapter: Adapter, runs: Path = RUNS) -> None:
    """Copy what was last published, if it was; raises ValueError where all is then too large."""
    source = runs / adapter.run
    if not any((source / name).exists() for name in (CONTROLNET, "lora.safetensors")):
        print(f"{adapter.name}: nothing published yet")
        return
    adapter.folder.mkdir(parents=True, exist_ok=True)
    if (source / CONTROLNET).exists():
        network = ControlNetModel.from_pretrained(source / CONTROLNET)
        network.to(torch.float16).save_pretrained(adapter.folder)
        config = adapter.folder / "config.json"
        told = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
        config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
    else:
        weights = load_file(source / "lora.safetensors")
        kept = {"format": "pt"} | TOLD[adapter.name]
        save_file(weights, adapter.folder / "lora.safetensors", kept)
    for path in adapter.folder.glob("*.safetensors"):
        path.chmod(0o644)
    saved = loop.load(source / "checkpoint.pt")
    if saved is not None:
        facts = {"minutes": round(saved["spent_s"] / 60), "steps": saved["step"]}
        (adapter.folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    (adapter.folder / "calotype.json").write_text(json.dumps(adapter.calotype, indent=2) + "\n")
    if shipped_bytes() > BYTES_MAX:
        raise ValueError(f"all models take {shipped_bytes()} bytes, {BYTES_MAX} are allowed")
    print(f"{adapter.folder}: {export.weights_bytes(adapter.folder) / 2**20:.2f} MiB of weights")


def main() -> None:
    """Ship all that is published."""
    for adapter in ALL:
        ship(adapter)
    print(f"everything shipped: {shipped_bytes() / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
