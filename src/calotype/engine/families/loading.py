"""Reads a base model into memory, whatever its family."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import diffusers
import torch
import transformers

from calotype.core.errors import ModelBroken
from calotype.core.families import FAMILIES
from calotype.core.messages import LoadModel
from calotype.engine.device import weights_dtype
from calotype.engine.families.base import Model
from calotype.engine.families.flux import Flux
from calotype.engine.families.sd3 import SD3
from calotype.engine.families.sd15 import SD15
from calotype.engine.families.sdxl import SDXL

MODELS: dict[str, type[Model]] = {  # by pipeline class
    FAMILIES[model.family].pipeline: model for model in (SD15, SDXL, SD3, Flux)
}


def load_model(command: LoadModel, device: torch.device) -> Model:
    """Read a model's folder into memory; raise ModelBroken with the reason if that can't be done.

    Weights become what ``weights_dtype`` says, but the decoder always float32: SDXL's overflows in
    half precision.
    """
    folder = Path(command.path)
    try:
        index = json.loads((folder / "model_index.json").read_text())
        kind = index["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelBroken(f"{command.name}: no readable model_index.json ({error})") from error
    if kind not in MODELS:
        raise ModelBroken(f"{command.name}: {kind} is not supported", limit=[*MODELS])
    _be_quiet()
    left_out = {name: None for name, what in index.items() if what == [None, None]}
    try:
        pipeline = getattr(diffusers, kind).from_pretrained(
            folder,
            dtype=weights_dtype(device),
            local_files_only=True,
            use_safetensors=True,
            **left_out,
        )
        pipeline.to(device)
        pipeline.vae.to(torch.float32)
    except Exception as error:  # damaged files fail in each library's own way
        raise ModelBroken(f"{command.name}: {type(error).__name__}: {error}") from error
    return MODELS[kind](command.name, command.build, pipeline, device)


def _be_quiet() -> None:
    """No progress bars and no advice on the console: the engine speaks in messages."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"diffusers|transformers")
