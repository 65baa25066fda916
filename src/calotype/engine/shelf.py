"""Adapters of one kind that lie ready beside a base model, within a budget of bytes.

The least recently used go first. Rows that together want more than there is room for are served in
the order they came: those that run keep theirs, one that waits can only lose what it holds to one
that came before it, and while one finds no room none that came later begins. So the oldest always
gets on, and nothing is read in turns for ever. It knows keys and bytes, and nothing of what they
name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.engine.recent import Recent
from calotype.engine.room import Room


class Shelf:
    """What is kept, and which rows need what."""

    def __init__(
        self, field: str, bytes_max: int, drop: Callable[[str], object], room: Room | None = None
    ) -> None:
        """``field`` is the request's; ``drop`` is called with each key that has to go."""
        self.bytes_max, self.room = bytes_max, room or Room()
        self._field, self._drop = field, drop
        self._kept: dict[str, int] = {}  # bytes by key, the least recently used first
        self._sizes: Recent[str, int] = Recent(limits.SIZES_PROVEN_MAX)  # of all that were read
        self._claims: dict[str, tuple[str, ...]] = {}  # of rows, in the order they came
        self._running: set[str] = set()  # rows
        self._short = ""  # the row that found no room, the first of those if there are more

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        return sum(self._kept.values())

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter([*self._kept])

    def claim(self, row: str, keys: Sequence[str]) -> list[str]:
        """Let a row have these until it is released: which of them have yet to be read, each once.

        Asked again it keeps its place. Raises InvalidInput if it is known that they can't be kept
        together.
        """
        keys = tuple(dict.fromkeys(keys))
        if keys:
            self._claims.setdefault(row, keys)
        self._check(sum(self._sizes.find(key) or 0 for key in keys))
        return [key for key in keys if key not in self._kept]

    def must_wait(self, row: str) -> bool:
        """Whether a row that came before this one waits for room."""
        if not self._short or row not in self._claims or row in self._running:
            return False
        order = [*self._claims]
        return order.index(self._short) < order.index(row)

    def run(self, row: str) -> None:
        """It has all of them, uses them now, and mustn't lose one until it is released."""
        for key in self._claims.get(row, ()):
            self.touch(key)
            self._running.add(row)
        if row == self._short:
            self._short = ""

    def release(self, row: str) -> None:
        """A row has ended, or waits no longer; unknown rows are ignored."""
        self._claims.pop(row, None)
        self._running.discard(row)
        if row == self._short:
            self._short = ""

    def touch(self, key: str) -> None:
        """It is used now."""
        self._kept[key] = self._kept.pop(key)

    def put(self, key: str, count: int) -> bool:
        """Keep what was read, of so many bytes; others may go. False if there is no room now.

        Raises InvalidInput for more than there is for all, and Full if the device has no room for
        it and neither a row nor a model that leaves will give any back.
        """
        self._sizes.put(key, count)
        self._check(count)
        held = self._held_against(key)
        leaving, over = [], max(self.bytes + count - self.bytes_max, count - self.room.free())
        for other, size in self._kept.items():
            if over > 0 and other not in held:
                leaving.append(other)
                over -= size
        if over > 0 and self.bytes + count > self.bytes_max and held:
            return self._no_room(key)
        for other in leaving:
            self.forget(other)
        if over > 0 and not self.room.make(count):
            if held or self.room.will_grow():
                return self._no_room(key)
            raise self.room.refusal(key, count)
        self._kept[key] = count
        return True

    def forget(self, key: str) -> None:
        """Keep it no longer."""
        del self._kept[key]
        self._drop(key)

    def give_up(self, count: int) -> None:
        """Forget what no row claims, up to so many bytes."""
        claimed = {key for keys in self._claims.values() for key in keys}
        for key, size in [*self._kept.items()]:
            if count > 0 and key not in claimed:
                self.forget(key)
                count -= size

    def _no_room(self, key: str) -> bool:
        first = next((row for row, keys in self._claims.items() if key in keys), "")
        order = [*self._claims]
        if first and (not self._short or order.index(first) < order.index(self._short)):
            self._short = first
        return False

    def _check(self, count: int) -> None:
        if count > self.bytes_max:
            raise InvalidInput(
                f"these {self._field} take {count:,} bytes, more than there is for all",
                field=self._field,
                limit=self.bytes_max,
            )

    def _held_against(self, key: str) -> set[str]:
        """What mustn't go for this one: rows that run have it, or one that came before."""
        held: set[str] = set()
        is_before = True
        for row, keys in self._claims.items():
            is_before = is_before and key not in keys
            if is_before or row in self._running:
                held.update(keys)
        return held.intersection(self._kept)
