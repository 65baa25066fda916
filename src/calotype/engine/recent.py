"""A bounded memory of what is dear to make; it knows nothing of what that is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most ``size_max`` things by key; the least recently used goes first."""

    def __init__(self, size_max: int) -> None:
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._size_max = size_max

    def __len__(self) -> int:
        return len(self._kept)

    def values(self) -> list[V]:
        """All that is kept."""
        return [*self._kept.values()]

    def items(self) -> list[tuple[K, V]]:
        """All that is kept, by key."""
        return [*self._kept.items()]

    def drop(self, is_over: Callable[[K], bool]) -> None:
        """Forget what is kept under such keys."""
        for key in [key for key in self._kept if is_over(key)]:
            del self._kept[key]

    def pop_oldest(self) -> V:
        """Forget the one used longest ago; there must be one."""
        return self._kept.popitem(last=False)[1]

    def find(self, key: K) -> V | None:
        """What is kept under the key, used now; None if nothing is."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: K, value: V) -> None:
        """Keep it; the one used longest ago goes if there are too many."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self._size_max:
            self._kept.popitem(last=False)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """What is kept under the key, or made now and kept; if making raises, nothing is."""
        if key not in self._kept:
            self.put(key, make())
        self._kept.move_to_end(key)
        return self._kept[key]
