"""What lies at a path: a base model, a LoRA, a ControlNet, an autoencoder or a classifier.

Told from names, configurations and headers; and which of the files make it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core.errors import ModelBroken
from calotype.core.families import PIPELINES, SINGLE_FILE
from calotype.core.headers import Header
from calotype.core.weights import SUFFIX, WHY_NO_PICKLE, is_pickle
from calotype.files.headers import read_header
from calotype.files.weights import names_in, read_json
from calotype.pool.checkpoints import family_of
from calotype.pool.files import CARD
from calotype.pool.folders import INDEX, model_files
from calotype.pool.kinds import ModelKind
from calotype.pool.parts import CONFIG, TASKS, part_files

LORA_FILE = "lora.safetensors"
CONTROLS = {  # diffusers' classes, and the families of their bases
    "ControlNetModel": ("sd15", "sdxl"),
    "SD3ControlNetModel": ("sd3",),
    "FluxControlNetModel": ("flux",),
}
_AUTOENCODER = "Autoencoder"
_LICENCES = ("license", "licence", "copying", "notice")
_WANTED = (
    f"a folder in diffusers' layout ({INDEX}), a {CONFIG} of a ControlNet, an autoencoder or a"
    f" classifier, or a {SUFFIX} file of a LoRA or a checkpoint"
)


@dataclass(frozen=True)
class Found:
    """What was found at a path."""

    kind: ModelKind
    files: Mapping[str, Path]  # what makes it up: where each goes, and where it lies
    family: str = ""  # of a checkpoint in one file, which needs a configuration beside it


def recognise(path: Path) -> Found:
    """Look at a folder or a file; raises ModelBroken saying what was expected, or what is wrong."""
    if is_pickle(path.name):
        raise ModelBroken(f"{path.name}: {WHY_NO_PICKLE}", field=path.name, limit=SUFFIX)
    try:
        is_folder = path.stat() and path.is_dir()
    except OSError as error:
        raise ModelBroken(f"{path} can't be read: {error.strerror}", field="path") from error
    return _folder(path) if is_folder else _file(path)


def has_lora(header: Header) -> bool:
    """Whether a file's tensors are named as a LoRA's are."""
    return any("lora" in name.lower() for name in header.tensors)


def kind_of_config(config: Mapping[str, Any]) -> ModelKind | None:
    """What a folder is whose ``config.json`` says this."""
    named = config.get("_class_name")
    if isinstance(named, str) and named in CONTROLS:
        return ModelKind.CONTROL
    if isinstance(named, str) and named.startswith(_AUTOENCODER):
        return ModelKind.VAE
    made = config.get("architectures")
    names = [it for it in made if isinstance(it, str)] if isinstance(made, list) else []
    if any(name.endswith(tuple(TASKS)) for name in names):
        return ModelKind.CLASSIFIER
    return None


def beside(names: list[str]) -> list[str]:
    """Of a folder's files those that say what may be done with the others: card and licence."""
    return [it for it in names if it == CARD or it.lower().startswith(_LICENCES)]


def _folder(folder: Path) -> Found:
    names = names_in(folder)
    kept = {name: folder / name for name in beside(names)}
    if INDEX in names:
        files = model_files(folder)
        inside = {file.relative_to(folder).as_posix(): file for file in files}
        return Found(ModelKind.BASE, kept | inside)
    if CONFIG in names:
        config = read_json(folder / CONFIG)
        kind = kind_of_config(config)
        if kind is None:
            said = config.get("_class_name") or config.get("architectures")
            raise ModelBroken(
                f"{CONFIG} is of {str(said)[:100]}, which is of no use here",
                field=CONFIG,
                limit=[*CONTROLS, f"{_AUTOENCODER}*", *(f"*{ending}" for ending in TASKS)],
            )
        return Found(kind, kept | {file.name: file for file in part_files(kind, folder)})
    files_found = [name for name in names if name.endswith(SUFFIX)]
    if len(files_found) == 1:
        found = _file(folder / files_found[0])
        return Found(found.kind, {**kept, **found.files}, found.family)
    if files_found:
        raise ModelBroken(
            f"{folder.name} has {len(files_found)} {SUFFIX} files: name the one you mean",
            field="path",
            limit=files_found,
        )
    pickles = [name for name in names if is_pickle(name)]
    why = f"; it has {pickles[0]}, and {WHY_NO_PICKLE}" if pickles else ""
    raise ModelBroken(f"{folder.name} is nothing known{why}", field="path", limit=_WANTED)


def _file(file: Path) -> Found:
    if file.suffix != SUFFIX:
        raise ModelBroken(f"{file.name} is nothing known", field="path", limit=_WANTED)
    header = read_header(file)
    if has_lora(header):
        return Found(ModelKind.LORA, {LORA_FILE: file})
    family = family_of(header)
    if family is None:
        raise ModelBroken(
            f"{file.name} holds no LoRA and no checkpoint of a family that is known",
            field="path",
            limit=sorted({it.name for it in PIPELINES.values()}),
        )
    return Found(ModelKind.BASE, {SINGLE_FILE: file}, family.name)
