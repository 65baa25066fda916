"""Reads a base model into memory, whatever its family.

A model is a folder in diffusers' layout. Where ``model.safetensors`` lies beside its
``model_index.json``, as checkpoints are passed around, the folder's components are configurations
and tokenizers, and the weights come from that one file; only a component whose own folder holds
weights (FLUX's text encoders, say, or another autoencoder) is read from there. Nothing is fetched.

Attention goes through PyTorch's scaled-dot-product, which picks the device's best kernel: it is the
default of all layers of all families, and FLUX's, the only ones that read an environment variable,
are told so. A test counts the calls.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders.single_file_utils import SingleFileComponentError

from calotype.core.errors import ModelBroken
from calotype.core.families import FAMILIES, PIPELINES, SINGLE_FILE, UNUSED
from calotype.core.messages import LoadModel
from calotype.engine.device import weights_dtype
from calotype.engine.families.base import Model
from calotype.engine.families.compiling import compile_parts
from calotype.engine.families.flux import Flux
from calotype.engine.families.quantising import quantise
from calotype.engine.families.sd3 import SD3
from calotype.engine.families.sd15 import SD15
from calotype.engine.families.sdxl import SDXL

_MODELS = {model.family: model for model in (SD15, SDXL, SD3, Flux)}
MODELS: dict[str, type[Model]] = {  # by pipeline class
    pipeline: _MODELS[family.name] for pipeline, family in PIPELINES.items()
}

_LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def load_model(command: LoadModel, device: torch.device) -> Model:
    """Read a model's folder into memory; raise ModelBroken with the reason if that can't be done.

    Weights become what the command says, but the decoder always float32: SDXL's overflows in half
    precision.
    """
    folder = Path(command.path)
    try:
        index = json.loads((folder / "model_index.json").read_text())
        kind = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelBroken(f"{command.name}: no readable model_index.json ({error})") from error
    if kind not in MODELS:
        raise ModelBroken(f"{command.name}: {kind} is not supported", limit=[*MODELS])
    dtype = weights_dtype(device, command.dtype)
    _be_quiet()
    try:
        pipeline = _pipeline(folder, index, dtype)
        pipeline.to(device)
        pipeline.vae.to(torch.float32)
        denoiser = getattr(pipeline, FAMILIES[MODELS[kind].family].denoiser)
        denoiser.set_attention_backend("native")
        quantise(denoiser, command.quantise)
    except ModelBroken as error:
        raise ModelBroken(f"{command.name}: {error.detail}", field=error.field) from error
    except Exception as error:  # damaged files fail in each library's own way
        raise ModelBroken(f"{command.name}: {type(error).__name__}: {error}") from error
    model = MODELS[kind](command.name, command.build, pipeline, device)
    compile_parts(model, command.compile)
    return model


def _pipeline(folder: Path, index: dict[str, Any], dtype: torch.dtype) -> Any:
    """diffusers' pipeline of a folder, its weights as they say or in this dtype."""
    pipeline = getattr(diffusers, index["_class_name"])
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
    parts: dict[str, Any] = {name: None for name, what in index.items() if what == [None, None]}
    parts |= {name: None for name in UNUSED if name in index}
    if not (folder / SINGLE_FILE).is_file():
        return pipeline.from_pretrained(folder, use_safetensors=True, **options, **parts)
    for name, what in index.items():
        if name not in parts and any(folder.glob(f"{name}/*.safetensors")):
            library, component = what
            kind = getattr(_LIBRARIES[library], component)
            parts[name] = kind.from_pretrained(folder / name, use_safetensors=True, **options)
    try:
        return pipeline.from_single_file(
            str(folder / SINGLE_FILE), config=str(folder), **options, **parts
        )
    except SingleFileComponentError as error:  # its other lines are advice to programmers
        raise ModelBroken(f"{SINGLE_FILE}: {str(error.message).splitlines()[0]}") from error


def _be_quiet() -> None:
    """No progress bars and no advice on the console: the engine speaks in messages."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"diffusers|transformers")
