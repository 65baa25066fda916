"""Assemble the trained parts into the folder that the platform ships.

``python -m training.export`` reads ``training/runs/parts/`` (one diffusers or transformers folder
for each part, written by the trainers) and writes ``src/calotype/models/vignette/``: a folder that
the unmodified ``StableDiffusionXLPipeline.from_pretrained`` loads and runs. The new folder is built
beside the old one and swapped in, so that a reader never meets half a model.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
)

from training import shapes

ROOT = Path(__file__).parent
PARTS = ROOT / "runs" / "parts"
MODEL = ROOT.parent / "src" / "calotype" / "models" / "vignette"
BYTES_MAX = 16 * 1024 * 1024  # all weights together: adapters must fit beside them in 25 MB
# Written by training.evaluate and training.card, not by the export.
KEPT = ("README.md", "samples.webp", "evaluation.json", "training.json", "calotype.json")


def tokenizer(parts: Path = PARTS) -> PreTrainedTokenizerBase:
    """The tokenizer both encoders use, written by ``python -m training.tokenizer``."""
    loaded: PreTrainedTokenizerBase = CLIPTokenizer.from_pretrained(parts / "tokenizer")
    return loaded


def _part(kind: Any, folder: Path, untrained: torch.nn.Module) -> Any:
    if folder.exists():
        return kind.from_pretrained(folder)
    print(f"no {folder.name} yet: random weights stand in")
    return untrained


def pipeline(parts: Path = PARTS) -> StableDiffusionXLPipeline:
    """The whole model in fp32 from its parts, random weights standing in for missing ones."""
    words = tokenizer(parts)
    text_encoder, text_encoder_2 = shapes.text_encoders(words)
    return StableDiffusionXLPipeline(
        vae=_part(AutoencoderTiny, parts / "vae", shapes.autoencoder()),
        text_encoder=_part(CLIPTextModel, parts / "text_encoder", text_encoder),
        text_encoder_2=_part(CLIPTextModelWithProjection, parts / "text_encoder_2", text_encoder_2),
        tokenizer=words,
        tokenizer_2=words,
        unet=_part(UNet2DConditionModel, parts / "unet", shapes.unet()),
        scheduler=shapes.scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _plainly_loaded(folder: Path) -> None:
    """Take from the saved configurations what would ask of the loader more than the weights do.

    transformers loads weights in the type its configuration names, and fp16 is slow on a CPU: the
    files hold fp16 for their size, and are computed with in fp32 unless the loader is told else.
    """
    for part in ("text_encoder", "text_encoder_2"):
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for path in folder.rglob("*.json"):
        config = json.loads(path.read_text())
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def weights_bytes(folder: Path) -> int:
    """The size of all safetensors files under ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def export(parts: Path = PARTS, folder: Path = MODEL) -> int:
    """Write the model to ``folder`` and return its weights' size in bytes."""
    beside = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    for leftover in (beside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline(parts).to(torch.float16).save_pretrained(beside)
    _plainly_loaded(beside)
    size = weights_bytes(beside)
    if size > BYTES_MAX:
        raise ValueError(f"the weights take {size} bytes, {BYTES_MAX} are allowed")
    for name in KEPT:
        if (folder / name).exists():
            shutil.copy2(folder / name, beside / name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return size


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, default=PARTS)
    parser.add_argument("--folder", type=Path, default=MODEL)
    arguments = parser.parse_args()
    size = export(arguments.parts, arguments.folder)
    print(f"{arguments.folder}: {size / 2**20:.2f} MiB of weights")


if __name__ == "__main__":
    main()
