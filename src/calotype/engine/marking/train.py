"""Both parts, one after the other, from wherever they were: to an extractor and a decoder.

What comes out lies in the run's folder: ``extractor.safetensors``, for readers without torch, and
``decoder.safetensors``, the decoder's weights by the names that they have in the autoencoder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file

from calotype.core.errors import ModelBroken
from calotype.engine.marking import pictures as sources
from calotype.engine.marking.hiding import Hiding, HidingPlan
from calotype.engine.marking.nets import STRIDES, Extractor
from calotype.engine.marking.rooting import Rooting, RootingPlan, examples_of

EXTRACTOR, DECODER = "extractor.safetensors", "decoder.safetensors"
_UNSEEN = 8  # one picture of so many is kept to measure with
_EXAMPLES, _EXAMPLES_BYTES = 512, 256 * 1024**2  # of which the decoder learns, at most
_MEASURED = 64  # pictures
_SAVED_EVERY_S = 60.0

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """What is to be trained, from what, and where it lies meanwhile."""

    vae: Path  # a diffusers folder of an AutoencoderKL or AutoencoderTiny
    pictures: Path
    folder: Path  # of the run: checkpoints, and what comes out
    key: tuple[int, ...]  # the bits, 0 or 1
    side_px: int
    hiding: HidingPlan
    rooting: RootingPlan
    device: torch.device


class _Plan(Protocol):
    @property
    def steps(self) -> int: ...


class _Part(Protocol):
    step: int

    @property
    def plan(self) -> _Plan: ...

    @property
    def is_over(self) -> bool: ...

    def learn(self) -> dict[str, float]: ...

    def save(self) -> None: ...


def train(order: Order, tell: Tell, is_stopped: Callable[[], bool] = lambda: False) -> bool:
    """Train and write what comes out; False if it was stopped before, with checkpoints written.

    ``tell`` is given each step as ``{"part", "step", "steps", ...}``, and in the end
    ``{"bits", "psnr"}`` of unseen pictures. Raises OperatorError for pictures or checkpoints that
    can't be used, ModelBroken for an autoencoder.
    """
    pictures = sources.read(order.pictures, order.side_px)
    seen = np.arange(len(pictures)) % _UNSEEN != 0
    learnt, unseen = pictures[seen], pictures[~seen]
    vae = load_vae(order.vae, order.device)
    first = Hiding(order.hiding, learnt, order.folder, order.device)
    if not _learn(first, "extractor", tell, is_stopped):
        return False
    most = min(_EXAMPLES, _EXAMPLES_BYTES // (3 * order.side_px**2))
    examples, extractor = examples_of(vae, learnt[:most]), first.best()
    second = Rooting(
        order.rooting,
        vae,
        extractor,
        key=order.key,
        examples=examples,
        folder=order.folder,
        learnt=first.step,
    )
    if not _learn(second, "decoder", tell, is_stopped):
        return False
    _write(order.folder, extractor, second.decoder)
    tell(second.measure(examples_of(vae, unseen[:_MEASURED])))
    return True


def load_vae(folder: Path, device: torch.device) -> Any:
    """The autoencoder in a folder, float32; raises ModelBroken."""
    try:
        kind = json.loads((folder / "config.json").read_text())["_class_name"]
        if kind not in ("AutoencoderKL", "AutoencoderTiny"):
            raise ModelBroken(f"{folder}: decoders of {kind} can't be marked", field="vae")
        vae = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelBroken(f"{folder} has no autoencoder: {error}", field="vae") from error
    vae.requires_grad_(False).eval()
    return vae.to(device, torch.float32, memory_format=torch.channels_last)


def _learn(part: _Part, name: str, tell: Tell, is_stopped: Callable[[], bool]) -> bool:
    saved_at = time.monotonic()
    while not part.is_over:
        if is_stopped():
            part.save()
            return False
        tell({"part": name, **part.learn(), "step": part.step, "steps": part.plan.steps})
        if part.is_over or time.monotonic() > saved_at + _SAVED_EVERY_S:
            part.save()
            saved_at = time.monotonic()
    return True


def _write(folder: Path, extractor: Extractor, decoder: torch.nn.Module) -> None:
    weights = decoder.state_dict().items()
    tensors = {f"decoder.{name}": it.contiguous().cpu() for name, it in weights}
    for name, content, about in (
        (EXTRACTOR, extractor.folded(), {"strides": json.dumps(STRIDES)}),
        (DECODER, tensors, {"format": "pt"}),
    ):
        beside = folder / f"{name}.part"
        save_file(content, beside, about)
        beside.replace(folder / name)
