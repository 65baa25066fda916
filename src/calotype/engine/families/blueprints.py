"""Modules of a configuration that was built before: copied, since building takes longer.

SDXL is 2,700 modules, whose constructors are most of what is left of a load from the page cache. A
blueprint is a module as its constructors left it, pickled within this process, with a place for
each of its weights. It holds no tensor but tables, as bytes. What comes from disk is never
unpickled.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from calotype.engine.recent import Recent

_KEPT_MAX = 16  # configurations: some 1.5 MB for SDXL's UNet, the largest


@dataclass(frozen=True)
class _Place:
    """Where a weight goes."""

    shape: torch.Size
    dtype: torch.dtype
    is_parameter: bool

    def empty(self) -> torch.Tensor:
        tensor = torch.empty(self.shape, dtype=self.dtype, device="meta")
        return torch.nn.Parameter(tensor, requires_grad=False) if self.is_parameter else tensor


@dataclass(frozen=True)
class _Blueprint:
    pickled: bytes
    places: tuple[_Place, ...]

    def copy(self) -> Any:
        return _Unpickler(self.pickled, [it.empty() for it in self.places]).load()


class Blueprints:
    """Of the configurations used last; may be asked from any thread."""

    def __init__(self, kept_max: int = _KEPT_MAX) -> None:
        self._kept: Recent[Any, _Blueprint | None] = Recent(kept_max)
        self._asking = threading.Lock()

    def get(self, key: Any, build: Callable[[], Any]) -> Any:
        """A module of the caller's own, without weights: a copy of what was built for this key."""
        with self._asking:
            known = self._kept.find(key)
        if known is not None:
            return known.copy()
        module = build()
        with self._asking:
            self._kept.put(key, _blueprint(module))
        return module


class _Pickler(pickle.Pickler):
    """Puts numbers where weights are; ``weights`` are all that a file may have."""

    def __init__(self, file: io.BytesIO, weights: Sequence[torch.Tensor]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._places = {id(it): number for number, it in enumerate(weights)}

    def persistent_id(self, obj: Any) -> int | None:
        return self._places.get(id(obj))


class _Unpickler(pickle.Unpickler):
    """Puts tensors where the numbers are."""

    def __init__(self, pickled: bytes, weights: Sequence[torch.Tensor]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._weights = weights

    def persistent_load(self, pid: int) -> torch.Tensor:
        return self._weights[pid]


def _blueprint(module: Any) -> _Blueprint | None:
    """None for a module that can't be pickled: it is built each time."""
    state = module.state_dict(keep_vars=True).values()
    weights = [*{id(it): it for it in state}.values()]  # one may be in several places
    file = io.BytesIO()
    try:
        _Pickler(file, weights).dump(module)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    places = (_Place(it.shape, it.dtype, isinstance(it, torch.nn.Parameter)) for it in weights)
    return _Blueprint(file.getvalue(), tuple(places))
