"""Reads a base model into memory, whatever its family.

A model is a folder in diffusers' layout. Where ``model.safetensors`` lies beside its
``model_index.json``, as checkpoints are passed around, the folder's components are configurations
and tokenizers, and the weights come from that one file; only a component whose own folder holds
weights (FLUX's text encoders, say, or another autoencoder) is read from there. A folder's weights
may be one file or the parts that an index names, and of half precision (``fp16`` in their names)
where there are no others. Nothing is fetched.

Attention goes through PyTorch's scaled-dot-product, which picks the device's best kernel: it is the
default of all layers of all families, and FLUX's, the only ones that read an environment variable,
are told so. A test counts the calls.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from calotype.engine.libraries import without_progress

_MODELS = {model.family: model for model in (SD15, SDXL, SD3, Flux)}
MODELS: dict[str, type[Model]] = {  # by pipeline class
    pipeline: _MODELS[family.name] for pipeline, family in PIPELINES.items()
}

_STEMS = ("diffusion_pytorch_model", "model")  # of diffusers' weights, of transformers'
_VARIANTS = ("", "fp16")  # plain ones first
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
    without_progress()
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
    named = {name: what for name, what in index.items() if isinstance(what, list)}
    left_out = {name for name, what in named.items() if what == [None, None] or name in UNUSED}
    kinds = {name: _kind(name, what) for name, what in named.items() if name not in left_out}
    is_single = (folder / SINGLE_FILE).is_file()
    parts: dict[str, Any] = dict.fromkeys(left_out)
    for name, kind in kinds.items():
        if not issubclass(kind, torch.nn.Module):
            continue
        held = _weights(folder / name)
        if held is None and not is_single:
            raise ModelBroken(f"no safetensors with weights in {name}", field=name)
        if held is not None:
            parts[name] = kind.from_pretrained(
                folder / name, use_safetensors=True, variant=held or None, **options
            )
    if not is_single:
        return pipeline.from_pretrained(folder, **options, **parts)
    made = _from_single_file(pipeline, folder, {**options, **parts})
    for name in kinds.keys() - parts.keys():
        _complete(name, getattr(made, name))
    return made


def _kind(name: str, what: Sequence[str]) -> Any:
    """A component's class, by its library and its name there."""
    library, kind = what
    found = getattr(_LIBRARIES.get(library), kind, None)
    if found is None:
        raise ModelBroken(f"{name} is a {library}.{kind}, which is not supported", field=name)
    return found


def _weights(folder: Path) -> str | None:
    """Which weights a component's folder holds: empty for plain ones; None if there are none."""
    for variant in _VARIANTS:
        dot = f".{variant}" if variant else ""
        for stem in _STEMS:
            one, index = f"{stem}{dot}.safetensors", f"{stem}.safetensors.index{dot}.json"
            if (folder / one).is_file() or (folder / index).is_file():
                return variant
    return None


def _from_single_file(pipeline: Any, folder: Path, options: dict[str, Any]) -> Any:
    try:
        return pipeline.from_single_file(str(folder / SINGLE_FILE), config=str(folder), **options)
    except SingleFileComponentError as error:  # its other lines are advice to programmers
        raise ModelBroken(f"{SINGLE_FILE}: {str(error.message).splitlines()[0]}") from error
    except NotImplementedError as error:  # a tensor without memory can't become another dtype
        raise ModelBroken(f"{SINGLE_FILE} lacks tensors of what the folder describes") from error
    except (KeyError, IndexError, ValueError, RuntimeError) as error:  # other tensors than wanted
        raise ModelBroken(
            f"{SINGLE_FILE} isn't what the folder describes: {type(error).__name__}: {error}"[:500]
        ) from error


def _complete(name: str, part: Any) -> None:
    """Finish what diffusers leaves undone of a part of a checkpoint.

    What is one tensor in the model lies there once, T5's table of words; T5 is left in training,
    its dropout at work; and what the checkpoint lacks has no memory yet.
    """
    if not isinstance(part, torch.nn.Module):
        return
    part.eval()
    if hasattr(part, "tie_weights"):
        part.tie_weights()
    lacking = [key for key, tensor in part.state_dict().items() if tensor.is_meta]
    if lacking:
        raise ModelBroken(f"{SINGLE_FILE} lacks {len(lacking)} of {name}: {lacking[0]} ...")
