"""A model of SDXL's width with few layers and random weights, made from a seed.

The embedded model is narrow, so what surrounds a step weighs much there. This UNet has SDXL's first
widths (320, 640) and attention heads of 64, one layer a block, and draws 64 x 64 pixels: a guided
step takes some 100 ms on two cores. Text encoders, tokenizers and decoder are the embedded model's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from calotype.core.nouns import ModelInfo
from calotype.engine.libraries import before_libraries, without_progress
from calotype.pool.registry import ModelRegistry, embedded_folder

NAME = "wide"
_SEED = 1
_WIDTHS = (320, 640)
_HEAD_WIDTH = 64
_LATENT_SIZE = 8


def wide_model(cache: Path) -> ModelInfo:
    """The model as the registry reads it, made in the cache folder if it isn't there."""
    folder = cache / NAME
    if not folder.is_dir():  # in a process of its own, which takes torch with it when it ends
        command = [sys.executable, "-m", "benchmarks.wide_model", str(folder)]
        subprocess.run(command, check=True)
    registry = ModelRegistry([folder], cache / "none")
    registry.scan()
    return registry.get(NAME)


def make(folder: Path) -> None:
    """Write it, in float32: some 400 MB."""
    before_libraries()
    import torch
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    without_progress()
    embedded = embedded_folder()
    config = UNet2DConditionModel.load_config(embedded / "unet")
    torch.manual_seed(_SEED)
    unet = UNet2DConditionModel.from_config(
        config,
        sample_size=_LATENT_SIZE,
        block_out_channels=_WIDTHS,
        attention_head_dim=tuple(width // _HEAD_WIDTH for width in _WIDTHS),
        norm_num_groups=32,
    )
    pipeline = StableDiffusionXLPipeline.from_pretrained(embedded, unet=unet, add_watermarker=False)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    pipeline.save_pretrained(part)
    part.rename(folder)  # all or nothing: a run that is cut off leaves no half of a model


if __name__ == "__main__":
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    make(Path(sys.argv[1]))
