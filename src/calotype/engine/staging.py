"""Copies of models in host memory, between disk and device, within a budget of their own.

A model that makes room may leave one (the line says which); it is loaded again from there. Copies
are of its parts, by content, as they were read and converted: one that several models have is there
once. With a part's tensors comes what was fitted to the model for previews.

From a GPU tensors are copied to pinned memory, on a stream of their own, and back at the next load;
that has been written with care and never run (``tests/gpu`` runs it where there is one). PyTorch
rounds pinned memory up to a power of two for each tensor, and that is what counts; what it keeps of
copies that went is given back before another one is made. On a CPU the device's memory is the
host's: there a tensor is its own copy. It only stays where it lies, and counts here and no longer
on the device's budget; the bytes of a mapped file are the page cache's, and stay mapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from calotype.core.messages import LoadModel
from calotype.engine.previews import Previewer
from calotype.engine.tensors import plain, storages

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Copy:
    """What is kept of one model."""

    command: LoadModel  # as which it was loaded
    parts: Mapping[str, Tensors]  # by content
    previewer: Previewer | None


class Staging:
    """Copies by model. One thread at a time keeps, finds or drops; others may look meanwhile."""

    def __init__(self, device: torch.device, budget: int = 0) -> None:
        """``budget`` in bytes."""
        self.budget, self._device = budget, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" and budget else None
        self._copies: dict[str, _Copy] = {}
        self.found = 0  # bytes that were found here, since it was set to 0

    def __contains__(self, model: str) -> bool:
        return model in self._copies

    def tensors(self) -> Iterator[torch.Tensor]:
        """Of all copies."""
        for copy in [*self._copies.values()]:
            for tensors in copy.parts.values():
                for tensor in tensors.values():
                    yield from plain(tensor)
            yield from copy.previewer.tensors() if copy.previewer else ()

    @property
    def is_pinned(self) -> bool:
        """Whether copies are pinned memory, beside the device's."""
        return self._stream is not None

    @property
    def bytes(self) -> int:
        """Of all copies; what models share counts once."""
        return self._taken(self.tensors())

    def keep(
        self,
        command: LoadModel,
        parts: Mapping[str, Tensors],
        previewer: Previewer | None = None,
    ) -> str:
        """Keep a copy of a model, by these parts; why not, or empty.

        Nothing is kept past the budget, and nothing makes room: that is the line's to decide.
        """
        new = [it for content, it in parts.items() if self._held(content) is None]
        tensors = [one for part in new for it in part.values() for one in plain(it)]
        count = self._taken([*tensors, *(previewer.tensors() if previewer else ())])
        if self.bytes + count > self.budget:
            return f"{count:,} bytes are needed, and {self.budget - self.bytes:,} are free"
        try:
            with torch.inference_mode(False), torch.no_grad():
                copies = {
                    content: self._held(content) or self._copied(it)
                    for content, it in parts.items()
                }
        except RuntimeError as error:  # no pinned memory, for one
            return f"{type(error).__name__}: {error}"[:500]
        self._copies[command.name] = _Copy(command, copies, previewer)
        return ""

    def find(self, content: str) -> Tensors | None:
        """A part's weights, on the device, if there is a copy of them."""
        if (held := self._held(content)) is None:
            return None
        parts = [it for tensor in held.values() for it in plain(tensor)]
        self.found += sum(storages(parts).values())
        return {name: it.to(self._device, non_blocking=True) for name, it in held.items()}

    def previewer(self, command: LoadModel) -> Previewer | None:
        """What previews of a model are made with, if it was loaded in the same way before."""
        copy = self._copies.get(command.name)
        return copy.previewer if copy is not None and copy.command == command else None

    def drop(self, model: str) -> None:
        """Keep no copy of a model, but for what others share; one that has none is ignored."""
        self._copies.pop(model, None)

    def _taken(self, tensors: Iterable[torch.Tensor]) -> int:
        """Bytes that tensors take as copies, those that share memory once."""
        counts = storages(tensors).values()
        return sum(map(_rounded, counts) if self.is_pinned else counts)

    def _held(self, content: str) -> Tensors | None:
        for copy in [*self._copies.values()]:
            if content in copy.parts:
                return dict(copy.parts[content])
        return None

    def _copied(self, tensors: Tensors) -> Tensors:
        if (stream := self._stream) is None:
            return dict(tensors)
        torch.accelerator.empty_host_cache()
        stream.wait_stream(torch.cuda.default_stream(self._device))  # which may have made them
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            copies = {name: _to_host(tensor) for name, tensor in tensors.items()}
        stream.synchronize()
        return copies


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if hasattr(tensor, "__tensor_flatten__"):  # a quantised one is made of several
        return tensor.to("cpu")
    copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)


def _rounded(count: int) -> int:
    """What pinned memory of so many bytes takes."""
    return 1 << (count - 1).bit_length() if count else 0
