"""Finds the weights in a component's folder, and reads the small files beside them.

Both the registry, which counts and hashes weights, and the engine, which loads them, look here: so
they mean the same files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.weights import (
    SUFFIX,
    WHY_NO_PICKLE,
    is_index,
    is_pickle,
    parts_of,
    weights_entry,
)

ReadJson = Callable[[str], Mapping[str, Any]]  # of a file by its name in the folder


def weights_of(folder: Path, *, may_lack: bool = False) -> list[Path]:
    """The files of a component's folder that hold its weights. Raises as ``weights_in``."""
    names = weights_in(
        names_in(folder), lambda name: read_json(folder / name), folder.name, may_lack=may_lack
    )
    return [folder / name for name in names]


def weights_and_index_of(folder: Path) -> list[Path]:
    """The same, and the index that names them where they are parts."""
    entry = weights_entry(names_in(folder))
    index = [folder / entry] if entry is not None and is_index(entry) else []
    return [*index, *weights_of(folder)]


def weights_in(
    names: Collection[str], read: ReadJson, where: str, *, may_lack: bool = False
) -> tuple[str, ...]:
    """Of a component's files those that hold its weights; none if it has none.

    Raises ModelBroken if an index names what isn't there, or there are only pickles; where it may
    lack weights of its own, nobody would read those.
    """
    entry = weights_entry(names)
    if entry is None:
        pickles = sorted(filter(is_pickle, names))
        if pickles and not may_lack:
            raise ModelBroken(
                f"{where} has its weights in {pickles[0]}, and {WHY_NO_PICKLE}",
                field=where,
                limit=SUFFIX,
            )
        return ()
    if not is_index(entry):
        return (entry,)
    parts = parts_of(read(entry), f"{where}/{entry}")
    if missing := [part for part in parts if part not in names]:
        raise ModelBroken(f"{where} lacks {missing[0]}, which {entry} names", field=where)
    return parts


def names_in(folder: Path) -> list[str]:
    """Names of the files right in a folder, in order; none that are hidden.

    Raises ModelBroken if it can't be read, or holds too many.
    """
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file():
                    names.append(entry.name)
                if len(names) > limits.MODEL_FILES_MAX:
                    raise ModelBroken(
                        f"{folder.name} has more than {limits.MODEL_FILES_MAX} files",
                        field=folder.name,
                        limit=limits.MODEL_FILES_MAX,
                    )
    except OSError as error:
        raise ModelBroken(
            f"{folder.name} can't be read: {error.strerror}", field=folder.name
        ) from error
    return sorted(names)


def read_json(file: Path) -> dict[str, Any]:
    """A small JSON object; raise ModelBroken naming the file and what is wrong with it."""
    where = f"{file.parent.name}/{file.name}"
    try:
        if file.stat().st_size > limits.MODEL_JSON_BYTES_MAX:
            raise ModelBroken(
                f"{where} is too large", field=where, limit=limits.MODEL_JSON_BYTES_MAX
            )
        body = json.loads(file.read_bytes())
    except OSError as error:
        raise ModelBroken(f"{where} can't be read: {error.strerror}", field=where) from error
    except (ValueError, RecursionError) as error:
        raise ModelBroken(f"{where} isn't JSON: {error}", field=where) from error
    if not isinstance(body, dict):
        raise ModelBroken(f"{where} isn't a JSON object", field=where)
    return body
