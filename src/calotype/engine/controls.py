"""ControlNets: read from their folders, and run on the forwards of their own rows only.

They run in batches of proven sizes, as the denoiser does: a row's bits don't depend on who else
asks for the same ControlNet.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
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
    stem = "diffusion_pytorch_model"
    for file in (folder / f"{stem}.safetensors", folder / f"{stem}.fp16.safetensors"):
        if file.is_file():
            return [file]
    index = folder / f"{stem}.safetensors.index.json"
    if not index.is_file():
        raise ModelBroken(f"{name}: no {stem}.safetensors in {folder.name}")
    parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    return [folder / Path(part).name for part in parts]


class Controls:
    """The ControlNets an engine keeps: the least recently used go first, by their bytes.

    Rows that together want more than the budget are served in the order they came: those that run
    keep theirs, and one that waits can only lose what it holds to one that came before it. So the
    oldest always gets on, and nothing is read in turns for ever.
    """

    def __init__(self, bytes_max: int = limits.CONTROLS_BYTES_MAX) -> None:
        self._kept: dict[str, Control] = {}  # in the order of their use
        self._bytes_max = bytes_max
        self._claims: dict[str, tuple[str, ...]] = {}  # of rows, in the order they came
        self._running: set[str] = set()  # rows
        self._sizes: Recent[str, int] = Recent(limits.SIZES_PROVEN_MAX)  # of all that were read

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        return sum(control.net.bytes for control in self._kept.values())

    def key(self, wanted: RowControl, model: Model) -> str:
        """Names one ControlNet beside one base."""
        return f"control:{model.name}@{model.build}:{wanted.name}@{wanted.build}"

    def claim(self, row: str, wanted: Sequence[RowControl], model: Model) -> list[RowControl]:
        """Let a row have these until it is released: which of them have yet to be read, each once.

        Raises InvalidInput if it is known that they can't be kept together.
        """
        by_key = {self.key(one, model): one for one in wanted}
        if by_key:
            self._claims.setdefault(row, tuple(by_key))
        total = sum(self._sizes.find(key) or 0 for key in by_key)
        if total > self._bytes_max:
            raise InvalidInput(
                f"these controls take {total:,} bytes, more than there is for all",
                field="controls",
                limit=self._bytes_max,
            )
        return [one for key, one in by_key.items() if key not in self._kept]

    def put(self, key: str, control: Control) -> bool:
        """Keep one that was read; others may go. False if there is no room for it now."""
        self._sizes.put(key, control.net.bytes)
        leaving, over = [], self.bytes + control.net.bytes - self._bytes_max
        held = self._held_against(key)
        for other, kept in self._kept.items():
            if over > 0 and other not in held:
                leaving.append(other)
                over -= kept.net.bytes
        if over > 0 and held:
            return False
        for other in leaving:
            del self._kept[other]
        self._kept[key] = control  # the only one, if it is larger than the budget: refused next
        return True

    def _held_against(self, key: str) -> set[str]:
        """What mustn't go for this one: rows that run have it, or one that came before."""
        held: set[str] = set()
        is_before = True
        for row, keys in self._claims.items():
            is_before = is_before and key not in keys
            if is_before or row in self._running:
                held.update(keys)
        return held & self._kept.keys()

    def of(self, row: str, wanted: Sequence[RowControl], model: Model) -> tuple[Control, ...]:
        """Those of a row that runs from now on, in its order; all were read."""
        keys = [self.key(one, model) for one in wanted]
        for key in keys:
            self._kept[key] = self._kept.pop(key)
        self._running.add(row)
        return tuple(self._kept[key] for key in keys)

    def release(self, row: str) -> None:
        """A row has ended, or waits no longer; unknown rows are ignored."""
        self._claims.pop(row, None)
        self._running.discard(row)
