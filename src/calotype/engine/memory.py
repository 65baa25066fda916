"""Device memory: what is alive at one time, measured, and what an engine needs, predicted.

The prediction is a ledger: weights, LoRAs and ControlNets that are kept, texts that were encoded,
rows with theirs and their pictures, a model that is being loaded, the largest pass, what adapters
add to it, and one decode, which may run beside it. The largest pass and the decode are measured
once for each size of picture, with its curve, and put right when a pass found no room; all else is
sizes of tensors. On the CPU, for tensors' bytes, it is within
10 % of what was alive (``tests/rooms/test_engine_memory.py``); between passes what is kept is
exactly what is alive (``benchmarks/warm_rounds.py``).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from calotype.engine.lora.bank import lora_key
from calotype.engine.rows import Row

_HISTORY = 2  # latents' worth that a sampler keeps of past steps; most keep less


class LiveBytes(TorchDispatchMode):  # type: ignore[misc]
    """Counts the bytes of tensors that operations under it make, while they live; 0 at the start.

    A view adds nothing. What a kernel takes and gives back by itself isn't seen. It may be entered
    in several threads at one time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: int = 0
        self.peak: int = 0
        self._seen: dict[int, weakref.ref[Any]] = {}
        self._counting = threading.RLock()  # a storage may be freed while another is counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation; what it was given was there before."""
        for given in tree_leaves((args, kwargs)):
            self._see(given, is_new=False)
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            self._see(one, is_new=True)
        return made

    def _see(self, leaf: Any, *, is_new: bool) -> None:
        if not isinstance(leaf, torch.Tensor):
            return
        storage = leaf.untyped_storage()
        with self._counting:
            if storage._cdata in self._seen:
                return
            count = storage.nbytes() if is_new else 0
            self._seen[storage._cdata] = weakref.ref(storage, self._forget(storage._cdata, count))
            self.now += count
            self.peak = max(self.peak, self.now)

    def _forget(self, key: int, count: int) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            with self._counting:
                del self._seen[key]
                self.now -= count

        return forget


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that ``run`` needs at its peak, beside what was there before."""
    if device.type == "cuda":
        before: int = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with LiveBytes() as live:
        run()
    return int(live.peak)


@dataclass(frozen=True)
class Ledger:
    """Bytes of device memory, by what needs them."""

    weights: int  # of base models, with what was fitted to them; what several share counts once
    loras: int
    controls: int
    checks: int  # classifiers that look at finished pictures
    texts: int  # encoded, for rows to come
    rows: int
    loading: int  # of a model that is on its way
    largest_pass: int  # without adapters
    adapters: int  # what LoRAs and ControlNets at work add to it
    decode: int

    @property
    def kept(self) -> int:
        """Between passes."""
        beside = self.loras + self.controls + self.checks + self.texts
        return self.weights + beside + self.rows + self.loading

    @property
    def total(self) -> int:
        """The peak to reckon with."""
        return self.kept + self.largest_pass + self.adapters + self.decode


def adapter_bytes(rows: Collection[Row], forwards_max: int) -> int:
    """What these rows' adapters add to a pass of so many forwards, at most, those of most first.

    LoRAs: the pairs that a layer lays side by side. ControlNets: what they say, and the same
    scattered to the pass's forwards. A ControlNet's own run is taken for no larger than its base's.
    """
    most, said, keys, left = 0, 0, list[str](), forwards_max
    by_model = {id(row.model): row.model for row in rows if row.command.loras}
    for row in sorted(rows, key=lambda row: -len(row.command.loras) - len(row.steered)):
        count = min(left, len(row.conditions))
        left -= count
        keys += [lora_key(lora) for lora in row.command.loras] * count
        shape = row.latents.shape[1:]
        each = [steering.control.said_bytes(shape) for _, steering in row.steered]
        said, most = said + count * sum(each), max(most, *each, 0)
    loras = max((model.loras.pass_bytes(keys) for model in by_model.values()), default=0)
    return loras + said + forwards_max * most


def row_tensors(rows: Collection[Row]) -> Iterator[torch.Tensor]:
    """What rows hold now: latents, texts, pictures, samplers' histories."""
    for row in rows:
        yield from _tensors_in(vars(row), depth=4)


def growth_bytes(rows: Collection[Row]) -> int:
    """What rows will come to hold beside that: histories, until the first step is made."""
    latents: int = sum(row.latents.nbytes for row in rows if row.steps_done == 0)
    return _HISTORY * latents


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what went wrong, in the words of each allocator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _tensors_in(held: Any, depth: int) -> Iterable[torch.Tensor]:
    """Tensors in plain attributes and collections, but not those of modules (they are weights)."""
    if isinstance(held, torch.Tensor):
        yield held
    elif depth and not isinstance(held, torch.nn.Module):
        inner: Iterable[Any] = ()
        if isinstance(held, dict):
            inner = held.values()
        elif isinstance(held, list | tuple):
            inner = held
        elif type(held).__module__.startswith(("calotype.engine", "diffusers.schedulers")):
            inner = vars(held).values()
        for one in inner:
            yield from _tensors_in(one, depth - 1)
