"""The LoRAs that lie ready beside a base model, within a budget of bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from calotype.core import limits
from calotype.core.errors import AdapterBroken, Conflict, InvalidInput
from calotype.core.messages import RowLora
from calotype.engine.adapters import Want
from calotype.engine.forwards import Adapters
from calotype.engine.lora.layers import layers_of
from calotype.engine.lora.merging import Merge
from calotype.engine.lora.reading import Lora, read_lora
from calotype.engine.lora.work import Current, Work
from calotype.engine.lora.wrappers import Wrapped, wrapped
from calotype.engine.shelf import Shelf


def lora_key(lora: RowLora) -> str:
    """Names a LoRA in a bank."""
    return f"{lora.name}@{lora.build}"


class LoraBank:
    """LoRAs of one base model. For the loop's thread, but what ``wants`` give to read.

    Layers are wrapped when the first LoRA needs them, and given back when the last has gone.
    """

    def __init__(self, denoiser: torch.nn.Module, bytes_max: int = limits.LORAS_BYTES_MAX) -> None:
        self._denoiser = denoiser
        self.shelf = Shelf("loras", bytes_max, self._take_out)
        # diffusers looks through all modules for these: a millisecond, each time.
        self._device, self._dtype = denoiser.device, denoiser.dtype
        self.layers = layers_of(denoiser)
        self._loras: dict[str, Lora] = {}
        self._wrapped: dict[str, Wrapped] = {}  # by layer
        self._current = Current()
        self._merge: Merge | None = None
        self.is_merged_only = False  # the denoiser is compiled: as its layers are, for good

    def __contains__(self, key: str) -> bool:
        return key in self._loras

    def __len__(self) -> int:
        return len(self._loras)

    @property
    def bytes(self) -> int:
        """Of all that is installed."""
        return self.shelf.bytes

    def tensors(self) -> Iterator[torch.Tensor]:
        """Of all that is installed."""
        for lora in self._loras.values():
            for pair in lora.pairs.values():
                yield from (pair.down, pair.up)

    def originals(self) -> Iterator[torch.Tensor]:
        """Of the base model's weights, those that something is merged into; on the host."""
        if self._merge is not None:
            yield from self._merge.originals()

    def pass_bytes(self, keys: Sequence[str]) -> int:
        """What its pairs take, side by side for these entries, in the layer that needs most."""
        return max((layer.pass_bytes(keys) for layer in self._wrapped.values()), default=0)

    def beside(self, loras: Sequence[RowLora]) -> tuple[RowLora, ...]:
        """Those that a row needs beside the weights as they are; none of a set that is merged.

        Raises InvalidInput for too many, for one named twice, for weights that can't be, and on a
        compiled denoiser, whose other rows would get other bits; Conflict if another set is merged.
        """
        _check(loras)
        if self._merge is not None:
            if _recipe(loras) != _recipe(self.merged):
                names = ", ".join(lora.name for lora in self.merged)
                raise Conflict(f"this engine has {names} merged, and makes only rows with that")
            return ()
        wanted = tuple(lora for lora in loras if lora.weight)
        if wanted and self.is_merged_only:
            raise InvalidInput("a compiled model takes LoRAs only merged into it", field="loras")
        return wanted

    def claim(self, row: str, loras: Sequence[RowLora]) -> list[Want]:
        """Let a row have these until it is ``released``: what has yet to be read of them.

        Raises InvalidInput if it is known that they can't be kept together.
        """
        by_key = {lora_key(lora): lora for lora in loras}
        # Another load of the same model has a bank of its own: its wants aren't these.
        return [
            Want(f"lora:{id(self)}:{key}", partial(self.read, by_key[key]), self.install)
            for key in self.shelf.claim(row, [*by_key])
        ]

    def run(self, row: str) -> None:
        """A row has all that it claimed, and needs them from now on."""
        self.shelf.run(row)

    def release(self, row: str) -> None:
        """A row has ended, or waits no longer; unknown rows are ignored."""
        self.shelf.release(row)

    def read(self, lora: RowLora) -> Lora:
        """Read and check its file, on the host; for any thread. Raises AdapterBroken."""
        try:
            with torch.inference_mode():
                return read_lora(Path(lora.path), lora_key(lora), self.layers, self._dtype)
        except AdapterBroken as error:
            detail = f"the LoRA {lora.name!r}: {error.detail}"
            raise AdapterBroken(detail, field="loras", limit=error.limit) from error

    def install(self, lora: Lora) -> bool:
        """Make it resident; what was used longest ago may go. False if there is no room for it now.

        Raises InvalidInput for one larger than the whole budget, and what ``Shelf.put`` does.
        """
        if lora.key in self._loras:
            return True
        if not self.shelf.put(lora.key, lora.bytes):
            return False
        held = Lora(lora.key, {name: pair.to(self._device) for name, pair in lora.pairs.items()})
        for name, pair in held.pairs.items():
            self._wrap(name).bank[lora.key] = pair
        self._loras[lora.key] = held
        return True

    def evict(self, key: str) -> None:
        """Forget a LoRA; layers that no other needs are themselves again."""
        self.shelf.forget(key)

    def _take_out(self, key: str) -> None:
        for name in self._loras.pop(key).pairs:
            layer = self._wrapped[name]
            del layer.bank[key]
            if not layer.bank:
                self._put(name, layer.base)
                del self._wrapped[name]

    @contextmanager
    def using(self, adapters: Sequence[Adapters]) -> Iterator[None]:
        """While it lasts, a pass of the denoiser has these, one for each forward."""
        work = None
        if any(one.loras for one in adapters):
            work = Work([one.loras for one in adapters], self._device)
            for key in dict.fromkeys(entry.key for entry in work.entries):
                self.shelf.touch(key)
        self._current.work = work if work and work.entries else None
        try:
            yield
        finally:
            self._current.work = None

    @property
    def merged(self) -> tuple[RowLora, ...]:
        """The set that is merged into the base model's weights."""
        return self._merge.loras if self._merge else ()

    def merge(self, loras: Sequence[RowLora]) -> None:
        """Add a set to the weights themselves, in place of the one merged before.

        Raises AdapterBroken and leaves the base model's own weights if a file can't be used. No
        LoRA may be installed then, and no row may run.
        """
        _check(loras)
        while self._loras:
            self.evict(next(iter(self._loras)))
        if self._merge is not None:
            self._merge.undo()
            self._merge = None
        if loras:
            read = [(self.read(lora), lora.weight) for lora in loras]
            layers = {name: self._denoiser.get_submodule(name) for name in self.layers.accepted}
            self._merge = Merge(tuple(loras), read, layers)

    def build_of(self, build: str) -> str:
        """Names the weights as they are: a base model's build, and what is merged into it."""
        if not self.merged:
            return build
        recipe = repr(sorted(_recipe(self.merged))).encode()
        return f"{build}+{hashlib.sha256(recipe).hexdigest()[:16]}"

    def _wrap(self, name: str) -> Wrapped:
        if name not in self._wrapped:
            layer = wrapped(self._denoiser.get_submodule(name), self._current)
            self._wrapped[name] = layer
            self._put(name, layer)
        return self._wrapped[name]

    def _put(self, name: str, layer: torch.nn.Module) -> None:
        parent, _, last = name.rpartition(".")
        setattr(self._denoiser.get_submodule(parent), last, layer)


def _check(loras: Sequence[RowLora]) -> None:
    if len(loras) > limits.LORAS_PER_JOB_MAX:
        raise InvalidInput(
            f"{len(loras)} LoRAs in one picture", field="loras", limit=limits.LORAS_PER_JOB_MAX
        )
    if len({lora_key(lora) for lora in loras}) < len(loras):
        raise InvalidInput("a LoRA is named twice", field="loras")
    for lora in loras:
        if not limits.LORA_WEIGHT_MIN <= lora.weight <= limits.LORA_WEIGHT_MAX:
            raise InvalidInput(
                f"{lora.name} has weight {lora.weight}",
                field="loras",
                limit=[limits.LORA_WEIGHT_MIN, limits.LORA_WEIGHT_MAX],
            )


def _recipe(loras: Iterable[RowLora]) -> frozenset[tuple[str, float]]:
    return frozenset((lora_key(lora), lora.weight) for lora in loras if lora.weight)
