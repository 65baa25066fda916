"""ControlNets: read from their folders, and run on the forwards of their own rows only.

They run in batches of proven sizes, as the denoiser does: a row's bits don't depend on who else
asks for the same ControlNet.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from calotype.core import limits
from calotype.core.errors import InvalidInput, ModelBroken
from calotype.core.messages import RowControl
from calotype.engine.buckets import Work, at_once, prove_buckets, random_forwards
from calotype.engine.control_nets import KINDS, ControlNet
from calotype.engine.families.base import Model
from calotype.engine.forwards import Forwards
from calotype.engine.recent import Recent
from calotype.engine.room import Room
from calotype.engine.shelf import Shelf
from calotype.engine.tensors import tensors_of
from calotype.files.weights import weights_of

_BUCKETS = (2, 4, 8)  # forwards in one batch
_BATCH_LATENTS_MAX = 2**14  # of one batch, a megapixel's: more brings nothing, but takes memory


class Control:
    """A loaded ControlNet, and the sizes of batches that keep its bits."""

    def __init__(self, name: str, net: ControlNet) -> None:
        self.name, self.net = name, net
        self._buckets: Recent[torch.Size, tuple[int, ...]] = Recent(limits.SIZES_PROVEN_MAX)
        self._said_bytes: Recent[torch.Size, int] = Recent(limits.SIZES_PROVEN_MAX)

    def said_bytes(self, shape: torch.Size) -> int:
        """What it says of one forward with latents of this shape; 0 where that isn't known yet."""
        return self._said_bytes.find(shape) or 0

    def hint(self, picture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """What it sees of a picture, uint8 (height, width, 3): (1, ...), float32."""
        return self.net.hint(picture, generator)

    def is_proven(self, forwards: Forwards) -> bool:
        """Whether the batches for forwards of these shapes are known."""
        return self._buckets.find(forwards.latents.shape[1:]) is not None

    def prove(self, forwards: Forwards, hint: torch.Tensor) -> Work[tuple[int, ...]]:
        """Find out the batches for forwards and a hint of these shapes."""
        shape = forwards.latents.shape[1:]
        most = max(_BUCKETS[0], _BATCH_LATENTS_MAX // (shape[-2] * shape[-1]))
        candidates = tuple(size for size in _BUCKETS if size <= most)
        sample = random_forwards(candidates[-1] + 1, _hinted(forwards.take(0), hint), ())

        def said(some: Forwards) -> torch.Tensor:
            all_of_it = torch.cat([it.flatten(1) for it in self.net.run(some)], dim=1)
            self._said_bytes.put(shape, all_of_it[0].nbytes)
            return all_of_it

        proven = yield from prove_buckets(said, sample, candidates)
        self._buckets.put(shape, proven)
        return proven

    def run(self, forwards: Forwards, hints: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
        """What it says of each forward; ``hints`` are as many, each (1, ...)."""
        known = self._buckets.find(forwards.latents.shape[1:])
        buckets = known or at_once(self.prove(forwards, hints[0]))
        seen = _hinted(forwards, torch.cat(list(hints)))
        said: list[list[torch.Tensor]] = []
        while (left := len(forwards) - len(said)) > 0:
            bucket = max((size for size in buckets if size <= left), default=buckets[0])
            chosen = range(len(said), len(said) + min(bucket, left))
            batch = self.net.run(seen.take(*chosen).padded(bucket))
            said += ([it[place : place + 1] for it in batch] for place in range(len(chosen)))
        return said


def _hinted(forwards: Forwards, hints: torch.Tensor) -> Forwards:
    return replace(forwards, text={**forwards.text, "hint": hints}, adapters=())


def load_control(wanted: RowControl, model: Model) -> Control:
    """Read a ControlNet's folder into memory, beside the base it is for; touches nothing else.

    May run in any thread: diffusers' own loading isn't used, since it changes torch's default dtype
    for all threads meanwhile. Raises InvalidInput if it was made for another base; ModelBroken if
    it is missing, damaged, too large, or of a kind that isn't supported.
    """
    folder, name = Path(wanted.path), wanted.name
    try:
        config = json.loads((folder / "config.json").read_text())
        kind = KINDS.get(config["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelBroken(f"{name}: no readable config.json ({error})") from error
    if kind is None:
        raise ModelBroken(f"{name}: {config['_class_name']} is not supported", limit=[*KINDS])
    if model.family not in kind.families:
        raise InvalidInput(
            f"the control {name!r} was made for another base: {' or '.join(kind.families)}",
            field="controls",
            limit=model.family,
        )
    whole = {**_defaults(kind.kind), **config}
    kind.check(name, whole, model)
    try:
        with torch.inference_mode(False), torch.device("meta"):
            net = kind.kind.from_config(config)
        weights = _weights(name, folder, model)
        net.load_state_dict(weights, strict=True, assign=True)
    except ModelBroken:
        raise
    except Exception as error:  # damaged files fail in each library's own way
        raise ModelBroken(f"{name}: {type(error).__name__}: {error}"[:500]) from error
    return Control(name, kind(net.eval().requires_grad_(False), model))


def _defaults(kind: Any) -> dict[str, Any]:
    """What a configuration leaves out."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {it.name: it.default for it in parameters if it.default is not it.empty}


def _weights(name: str, folder: Path, model: Model) -> dict[str, torch.Tensor]:
    """All tensors of a folder, as the base has its own; raise ModelBroken if one isn't finite."""
    files = _files(name, folder)
    if (size := sum(file.stat().st_size for file in files)) > limits.CONTROL_BYTES_MAX:
        raise ModelBroken(
            f"{name}: {size} bytes of weights are too many", limit=limits.CONTROL_BYTES_MAX
        )
    weights = {}
    for file in files:
        for key, tensor in load_file(file).items():
            if not torch.isfinite(tensor).all():
                raise ModelBroken(f"{name}: {key} isn't finite")
            weights[key] = tensor.to(model.device, model.denoiser.dtype)
    return weights


def _files(name: str, folder: Path) -> list[Path]:
    """A folder's safetensors: one file, or the parts that an index names."""
    files = weights_of(folder)
    if not files:
        raise ModelBroken(f"{name}: no safetensors with weights in {folder.name}")
    return files


class Controls:
    """The ControlNets an engine keeps for rows to come."""

    def __init__(
        self, room: Room | None = None, bytes_max: int = limits.CONTROLS_BYTES_MAX
    ) -> None:
        """``bytes_max`` bounds all of them, beside what ``room`` has left."""
        self._kept: dict[str, Control] = {}
        self.shelf = Shelf("controls", bytes_max, self._kept.pop, room)

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        return self.shelf.bytes

    def tensors(self) -> Iterator[torch.Tensor]:
        """Of all that is kept."""
        for control in self._kept.values():
            yield from tensors_of(control.net.net)

    def key(self, wanted: RowControl, model: Model) -> str:
        """Names one ControlNet beside one base."""
        return f"{_beside(model)}{wanted.name}@{wanted.build}"

    def claim(self, row: str, wanted: Sequence[RowControl], model: Model) -> list[RowControl]:
        """Let a row have these until it is released: which of them have yet to be read, each once.

        Raises InvalidInput if it is known that they can't be kept together.
        """
        by_key = {self.key(one, model): one for one in wanted}
        return [by_key[key] for key in self.shelf.claim(row, [*by_key])]

    def put(self, key: str, control: Control) -> bool:
        """Keep one that was read, as ``Shelf.put`` does; False if there is no room for it now."""
        is_kept = self.shelf.put(key, control.net.bytes)
        if is_kept:
            self._kept[key] = control
        return is_kept

    def of(self, row: str, wanted: Sequence[RowControl], model: Model) -> tuple[Control, ...]:
        """Those of a row that runs from now on, in its order; all were read."""
        self.shelf.run(row)
        return tuple(self._kept[self.key(one, model)] for one in wanted)

    def release(self, row: str) -> None:
        """A row has ended, or waits no longer; unknown rows are ignored."""
        self.shelf.release(row)

    def forget(self, model: Model) -> None:
        """The base is leaving: what was read beside it goes too."""
        for key in self.shelf:
            if key.startswith(_beside(model)):
                self.shelf.forget(key)


def _beside(model: Model) -> str:
    return f"control:{model.name}@{model.build}:"
