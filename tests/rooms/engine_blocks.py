"""Models whose weights are large beside what their passes need, to fill a device with blocks."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from calotype.core.messages import LoadModel
from calotype.core.nouns import Component
from calotype.engine.loop import Engine
from tests.rooms.engine_models import CPU, make_model


def heavy_model(folder: Path, words: int) -> LoadModel:
    """A tiny SD 1.5 whose text encoder knows so many words, of 128 bytes each."""
    make_model("sd15", folder)
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    torch.manual_seed(words)
    encoder = CLIPTextModel(CLIPTextConfig(**config | {"vocab_size": words}))
    encoder.save_pretrained(folder / "text_encoder")
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    return LoadModel(
        folder.name, str(folder), folder.name, components=(Component(folder.name, "model", size),)
    )


def working_bytes(load: LoadModel) -> int:
    """What its largest pass and a decode need."""
    engine = Engine(lambda said, blob=b"": None, CPU)
    engine.load(load)
    ledger = engine.accounts.ledger()
    return ledger.largest_pass + ledger.decode
