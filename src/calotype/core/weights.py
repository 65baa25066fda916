"""Which files of a component's folder hold its weights, by diffusers' and transformers' names.

The engine reads these, and the registry counts, hashes and copies no others. Plain files come
before those of half precision (``fp16`` in their names), one file before the parts that an index
names. Pickles are read nowhere: reading one can run its code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from calotype.core.errors import ModelBroken

SUFFIX = ".safetensors"
STEMS = ("diffusion_pytorch_model", "model")  # of diffusers' weights, of transformers'
VARIANTS = ("", "fp16")  # plain ones first
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
WHY_NO_PICKLE = "a pickle can run code when it is read: only safetensors are taken"


def weights_entry(names: Collection[str]) -> str | None:
    """Of a folder's files the one to begin with: the weights, or the index of their parts.

    None if there are none.
    """
    return next((name for name in _entries() if name in names), None)


def is_index(entry: str) -> bool:
    """Whether the weights are the parts that this file names."""
    return entry.endswith(".json")


def parts_of(index: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The files that an index names, each once, by name.

    Raises ModelBroken if it names none, or one outside its own folder.
    """
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ModelBroken(f"{where}: weight_map names no files", field="weight_map")
    for name in named.values():
        if not isinstance(name, str) or not is_inside(name) or not name.endswith(SUFFIX):
            raise ModelBroken(
                f"{where}: weight_map names {str(name)[:100]!r}, which is no safetensors file of"
                " its folder",
                field="weight_map",
            )
    return tuple(sorted(set(named.values())))


def is_inside(name: str) -> bool:
    """Whether a name is that of a file or folder right in the folder it is looked for in."""
    return name not in ("", ".", "..") and not any(it in name for it in ("/", "\\", "\0"))


def is_pickle(name: str) -> bool:
    """Whether a file's name says that it is one."""
    return name.lower().endswith(PICKLES)


def _entries() -> Iterator[str]:
    for variant in VARIANTS:
        dot = f".{variant}" if variant else ""
        for stem in STEMS:
            yield f"{stem}{dot}{SUFFIX}"
            yield f"{stem}{SUFFIX}.index{dot}.json"
