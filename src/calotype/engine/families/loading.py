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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from calotype.core.errors import ModelBroken, TooMany
from calotype.core.families import FAMILIES, PIPELINES, SINGLE_FILE, UNUSED
from calotype.core.messages import LoadModel
from calotype.core.weights import is_index, parts_of, weights_entry
from calotype.engine.components import Components, Tensors
from calotype.engine.device import weights_dtype
from calotype.engine.families import checkpoints
from calotype.engine.families.base import Model
from calotype.engine.families.compiling import compile_parts
from calotype.engine.families.flux import Flux
from calotype.engine.families.parts import (
    fill,
    move_tables,
    replace_decoder,
    wanted,
    without_weights,
)
from calotype.engine.families.quantising import quantise
from calotype.engine.families.sd3 import SD3
from calotype.engine.families.sd15 import SD15
from calotype.engine.families.sdxl import SDXL
from calotype.engine.families.tokenizers import tokenizer
from calotype.engine.libraries import without_progress
from calotype.engine.memory import is_out_of_memory
from calotype.engine.weights import Progress, Reader

_MODELS = {model.family: model for model in (SD15, SDXL, SD3, Flux)}
MODELS: dict[str, type[Model]] = {  # by pipeline class
    pipeline: _MODELS[family.name] for pipeline, family in PIPELINES.items()
}
_LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
VAE = "vae"
_ORDER = ("unet", "transformer", VAE, "text_encoder", "text_encoder_2", "text_encoder_3")


@dataclass(frozen=True)
class _Part:
    """A module of a pipeline."""

    name: str  # of _ORDER
    kind: Any  # its class
    folder: Path
    files: tuple[Path, ...]  # its own weights; none: they are in the one file
    dtype: torch.dtype


def load_model(
    command: LoadModel,
    device: torch.device,
    progress: Progress | None = None,
    components: Components | None = None,
) -> Model:
    """Read a model's folder into memory; raise ModelBroken with the reason if that can't be done.

    Raises TooMany if there is no memory for it. Weights become what the command says, but the
    decoder always float32: SDXL's overflows in half precision. One with a mark takes the place of
    its own, if the command names one. What another model of ``components`` has already isn't read
    again. ``progress`` is called from other threads. May run in any thread, one load at a time.
    """
    folder = Path(command.path)
    try:
        index = json.loads((folder / "model_index.json").read_text())
        kind = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelBroken(f"{command.name}: no readable model_index.json ({error})") from error
    if kind not in MODELS:
        raise ModelBroken(f"{command.name}: {kind} is not supported", limit=[*MODELS])
    without_progress()
    shared = components or Components()
    try:
        parts = _parts(folder, index, weights_dtype(device, command.dtype))
        contents = _contents(command, parts)
        with torch.inference_mode(False), torch.no_grad(), Reader(device, progress) as reader:
            known = {name: found for name, it in contents.items() if (found := shared.find(it))}
            marked = _marked(command, reader) if VAE not in known else {}
            pipeline = _pipeline(folder, index, parts, reader, known)
            replace_decoder(pipeline.vae, marked)
            denoiser = parts[0].name
            if denoiser not in known:
                quantise(getattr(pipeline, denoiser), command.quantise)
            for part in parts:
                move_tables(getattr(pipeline, part.name), device)
    except ModelBroken as error:
        raise ModelBroken(f"{command.name}: {error.detail}", field=error.field) from error
    except Exception as error:  # damaged files fail in each library's own way
        if is_out_of_memory(error):  # which is nothing that is wrong with the model
            raise TooMany(f"{command.name}: no memory for its weights ({error})") from error
        raise ModelBroken(f"{command.name}: {type(error).__name__}: {error}") from error
    model = MODELS[kind](command.name, command.build, pipeline, device)
    compile_parts(model, command.compile)
    model.contents = tuple(contents.values())
    for name, content in contents.items():
        shared.tell(content, getattr(pipeline, name))
    return model


def _marked(command: LoadModel, reader: Reader) -> Tensors:
    """Begin to read the decoder with a mark, if there is one."""
    if not command.decoder:
        return {}
    return reader.read(Path(command.decoder), lambda name, dtype: torch.float32)


def _parts(folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> list[_Part]:
    """The modules that an index names, the denoiser first."""
    named = _named(index)
    is_single = (folder / SINGLE_FILE).is_file()
    kinds = {name: _kind(name, what) for name, what in named.items()}
    found = []
    for name in sorted(kinds, key=lambda it: _ORDER.index(it) if it in _ORDER else len(_ORDER)):
        if not issubclass(kinds[name], torch.nn.Module):
            continue
        files = _files(folder / name)
        if not files and not is_single:
            raise ModelBroken(f"no safetensors with weights in {name}", field=name)
        own_dtype = torch.float32 if name == VAE else dtype
        found.append(_Part(name, kinds[name], folder / name, files, own_dtype))
    if not found or found[0].name not in {family.denoiser for family in FAMILIES.values()}:
        raise ModelBroken("it names no denoiser", field="_class_name")
    return found


def _named(index: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """What an index says of the components that pictures depend on: library and class."""
    return {
        name: what
        for name, what in index.items()
        if isinstance(what, list) and what != [None, None] and name not in UNUSED
    }


def _contents(command: LoadModel, parts: Sequence[_Part]) -> dict[str, str]:
    """The content of each part, by name; empty where the command doesn't say.

    The registry names them in the order of ``_ORDER``, or one for all of them together.
    """
    named = command.components
    if len(named) == len(parts):
        contents = {part.name: it.id for part, it in zip(parts, named, strict=True)}
    elif len(named) == 1:
        contents = {part.name: f"{named[0].id} {part.name}" for part in parts}
    else:
        return {}
    if command.decoder:  # another content: who wants the model's own decoder must not get this one
        contents[VAE] = f"{contents[VAE]} {command.decoder}"
    return contents


def _pipeline(
    folder: Path,
    index: Mapping[str, Any],
    parts: Sequence[_Part],
    reader: Reader,
    known: Mapping[str, Tensors],
) -> Any:
    """diffusers' pipeline of a folder, with weights that are ``known`` by part, or read.

    Its modules and tokenizers are made while the bytes come in.
    """
    weights = {**known}
    missing = [part for part in parts if part.name not in known]
    for part in missing:
        if part.files:
            choose = wanted(part.kind, part.dtype)
            weights[part.name] = {
                key: it for file in part.files for key, it in reader.read(file, choose).items()
            }
    of_checkpoint = [part for part in missing if not part.files]
    checkpoint: Tensors = {}
    if of_checkpoint:
        choose = checkpoints.wanted(parts[0].dtype, [part.name for part in of_checkpoint])
        checkpoint = reader.read(folder / SINGLE_FILE, choose)
    modules = {part.name: without_weights(part.kind, part.folder) for part in parts}
    kinds = {name: _kind(name, what) for name, what in _named(index).items()}
    tokenizers = {
        name: tokenizer(kind, folder / name)
        for name, kind in kinds.items()
        if issubclass(kind, transformers.PreTrainedTokenizerBase)
    }
    for name, tensors in weights.items():
        fill(modules[name], tensors, name)
    left_out = [name for name, it in index.items() if isinstance(it, list)]
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(
        folder,
        local_files_only=True,
        **dict.fromkeys(name for name in left_out if name not in _named(index)),
        **modules,
        **tokenizers,
    )
    reader.wait()
    for part in of_checkpoint:
        checkpoints.fill_part(part.name, modules[part.name], checkpoint)
    return pipeline


def _files(folder: Path) -> tuple[Path, ...]:
    """Those that hold a component's weights; none if there are none."""
    try:
        entry = weights_entry({file.name for file in folder.iterdir() if file.is_file()})
        if entry is None:
            return ()
        if not is_index(entry):
            return (folder / entry,)
        named = parts_of(json.loads((folder / entry).read_text()), f"{folder.name}/{entry}")
    except (OSError, ValueError) as error:
        raise ModelBroken(f"{folder.name} can't be read: {error}", field=folder.name) from error
    return tuple(folder / name for name in named)


def _kind(name: str, what: Sequence[str]) -> Any:
    """A component's class, by its library and its name there."""
    library, kind = what
    found = getattr(_LIBRARIES.get(library), kind, None)
    if found is None:
        raise ModelBroken(f"{name} is a {library}.{kind}, which is not supported", field=name)
    return found
