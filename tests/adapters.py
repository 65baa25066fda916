"""Adapters for tests: folders with all that the registry looks at, and no real weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any


def weights(*names: str) -> bytes:
    """A safetensors file with these tensors, one float each."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]}
        for at, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4 * len(names))


def make_lora(home: Path, name: str, **card: Any) -> Path:
    folder = home / "loras" / name
    folder.mkdir(parents=True)
    (folder / "lora.safetensors").write_bytes(weights("unet.to_q.lora_A.weight", name))
    (folder / "calotype.json").write_text(json.dumps(card))
    return folder


def make_control(home: Path, name: str, **card: Any) -> Path:
    folder = home / "controlnets" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights(name))
    (folder / "calotype.json").write_text(json.dumps(card))
    return folder
