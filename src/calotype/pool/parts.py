"""Models beside base models and adapters: autoencoders, and classifiers for the safety room.

An autoencoder is a folder as diffusers has it, a classifier one as transformers has it
(``*ForImageClassification``, ``*ForSequenceClassification``). Nothing is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.headers import Tensor
from calotype.files.headers import read_header
from calotype.files.weights import read_json, weights_and_index_of, weights_of
from calotype.pool.cards import read_card
from calotype.pool.files import FileHashes, build_of, counting_in
from calotype.pool.fitting import Base, latent_channels
from calotype.pool.kinds import ModelKind

CONFIG = "config.json"
TASKS = {  # by the end of a class's name
    "ForImageClassification": "image-classification",
    "ForSequenceClassification": "text-classification",
}


@dataclass(frozen=True)
class PartInfo:
    """An autoencoder or a classifier as the registry knows it."""

    kind: ModelKind  # VAE or CLASSIFIER
    name: str
    path: str  # its folder
    build: str  # content hash of its files: first 16 hex digits
    title: str
    licence: str
    bytes: int  # of its tensors
    dtype: str  # of most of its bytes
    bases: tuple[str, ...] = ()  # models that an autoencoder can serve; empty: it isn't known
    task: str = ""  # of a classifier: one of TASKS
    labels: tuple[str, ...] = ()  # of a classifier, in the order of its outputs


def read_part(
    kind: ModelKind, name: str, folder: Path, hashes: FileHashes, bases: Iterable[Base] = ()
) -> PartInfo:
    """The autoencoder or classifier in this folder; raises ModelBroken."""
    config = read_json(folder / CONFIG)
    tensors = tensors_in(folder)
    card = read_card(folder)
    found: dict[str, Any] = {}
    if kind is ModelKind.CLASSIFIER:
        found = {"task": task_of(config), "labels": _labels(config)}
    elif (channels := latent_channels(config, tensors)) is None:
        raise ModelBroken(f"{folder.name} has no decoder for latents", field=folder.name)
    else:
        found = {"bases": tuple(it.name for it in bases if it.latent_channels == channels)}
    if card.bases:
        found["bases"] = tuple(card.bases)
    return PartInfo(
        kind=kind,
        name=name,
        path=str(folder),
        build=build_of(folder, part_files(kind, folder), hashes),
        title=card.title or name,
        licence=card.licence,
        bytes=sum(tensor.bytes for tensor in tensors.values()),
        dtype=dtype_of(tensors.values()),
        **found,
    )


def part_files(kind: ModelKind, folder: Path) -> list[Path]:
    """The files that a ControlNet, an autoencoder or a classifier is made of."""
    if kind is ModelKind.CLASSIFIER:  # how it sees pictures or words lies beside it
        return counting_in(folder)
    return [folder / CONFIG, *weights_and_index_of(folder)]


def tensors_in(folder: Path) -> Mapping[str, Tensor]:
    """The tensors of a folder's weights, from headers; raises ModelBroken if there are none."""
    files = weights_of(folder)
    if not files:
        raise ModelBroken(f"{folder.name} has no safetensors with weights", field=folder.name)
    tensors = {key: it for file in files for key, it in read_header(file).tensors.items()}
    if not tensors:
        raise ModelBroken(f"{files[0].name} holds no tensors", field=files[0].name)
    return tensors


def dtype_of(tensors: Iterable[Tensor]) -> str:
    """What most bytes are, in the words of a card: "fp16", ...; else safetensors' own."""
    counted: Counter[str] = Counter()
    for tensor in tensors:
        counted[tensor.dtype] += tensor.bytes
    most = counted.most_common(1)[0][0] if counted else ""
    return {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}.get(most, most)


def task_of(config: Mapping[str, Any]) -> str:
    """What a classifier judges, by its class; raises ModelBroken if it isn't one."""
    named = config.get("architectures")
    kinds = [it for it in named if isinstance(it, str)] if isinstance(named, list) else []
    for ending, task in TASKS.items():
        if any(kind.endswith(ending) for kind in kinds):
            return task
    raise ModelBroken(
        f"{CONFIG}: architectures is {str(named)[:100]}, which is no classifier",
        field="architectures",
        limit=[f"*{ending}" for ending in TASKS],
    )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """A classifier's labels in the order of its outputs: 0, 1, 2 ..."""
    said, most = config.get("id2label"), limits.CLASSIFIER_LABELS_MAX
    if not isinstance(said, dict) or not 1 <= len(said) <= most:
        raise ModelBroken(f"{CONFIG}: id2label names no labels", field="id2label", limit=most)
    found = [said.get(str(at)) for at in range(len(said))]
    labels = tuple(label for label in found if isinstance(label, str))
    if len(labels) < len(said):
        raise ModelBroken(f"{CONFIG}: id2label doesn't count from 0 on", field="id2label")
    return labels
