"""What lies on a device, in bytes, by named lines: arithmetic only.

A ledger has a budget. Of it *reserves* are kept free of models (slots for LoRAs, ControlNets, the
safety models, overhead); the *weights* of the models it holds count by component, each once however
many of them share it; *room* is what the largest pass and a decode of one of them need, the most
demanding counting, since an engine runs one pass at a time; and what is *lent* is with the adapters
of a job that runs, past what is kept free for such.

A ledger never changes: adding or removing a model makes another one. So whoever copies the engines
(``fork``) may share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from calotype.core.errors import NoRoom
from calotype.core.events import ModelKnown
from calotype.core.nouns import Component, Reserve

# What a kind of component is called in the ledger's lines; others go by their own name.
_LINES = {
    "denoiser": "base",
    "unet": "base",
    "transformer": "base",
    "text_encoder": "encoders",
    "text_encoder_2": "encoders",
    "text_encoder_3": "encoders",
}
ROOM = "latents"  # the line of the working room: latents and what a pass makes of them
LENT = "adapters"  # the line of what is lent


def bytes_of(known: ModelKnown) -> int:
    """Of a model's weights, a component that it names twice counted once."""
    return sum({part.id: part.bytes for part in known.components}.values())


def past_reserves(adapters: Iterable[Reserve], kept: Mapping[str, int]) -> int:
    """Bytes that a job's adapters take, by line, past what is ``kept`` free for such."""
    return sum(max(0, line.bytes - kept.get(line.name, 0)) for line in adapters)


class Ledger:
    """The models that a device holds, and what is free beside them."""

    __slots__ = (
        "_models",
        "_parts",
        "budget_bytes",
        "capacity_bytes",
        "free_bytes",
        "lent_bytes",
        "reserves",
        "weights_bytes",
    )

    def __init__(
        self,
        budget_bytes: int,
        reserves: tuple[Reserve, ...] = (),
        models: Iterable[ModelKnown] = (),
        lent_bytes: int = 0,
    ) -> None:
        """``free_bytes`` is negative if it doesn't all fit."""
        self.budget_bytes, self.reserves, self.lent_bytes = budget_bytes, reserves, lent_bytes
        # What models may take: the budget without the reserves.
        self.capacity_bytes = budget_bytes - sum(line.bytes for line in reserves)
        self._models = {known.model: known for known in models}
        self._parts: dict[str, Component] = {
            part.id: part for known in self._models.values() for part in known.components
        }
        self.weights_bytes = sum(part.bytes for part in self._parts.values())
        self.free_bytes = self.capacity_bytes - self.weights_bytes - self.room_bytes - lent_bytes

    def __contains__(self, model: object) -> bool:
        return model in self._models

    @property
    def models(self) -> tuple[str, ...]:
        """The models it holds, in the order they came."""
        return tuple(self._models)

    @property
    def room_bytes(self) -> int:
        """What the most demanding of its models needs to work."""
        return max((known.room_bytes for known in self._models.values()), default=0)

    def missing(self, known: ModelKnown) -> tuple[Component, ...]:
        """The components of a model that aren't here, each once."""
        wanted = {part.id: part for part in known.components}
        return tuple(part for name, part in wanted.items() if name not in self._parts)

    def needs_bytes(self, known: ModelKnown) -> int:
        """What the model would take beside what is here."""
        more_room = max(0, known.room_bytes - self.room_bytes)
        return sum(part.bytes for part in self.missing(known)) + more_room

    @property
    def spare_bytes(self) -> int:
        """What one job's adapters may take, past what is kept free for such.

        Jobs whose adapters don't fit together take turns on their engine: the largest counts.
        """
        return self.free_bytes + self.lent_bytes

    def fits(self, known: ModelKnown, adapters: int = 0) -> bool:
        """Whether there is room for it as things are, and for so much of a job's adapters."""
        beside = max(0, adapters - self.lent_bytes)
        return self.needs_bytes(known) + beside <= self.free_bytes

    def plus(self, known: ModelKnown) -> Ledger:
        """The same with one more model, or with what is now known of one."""
        models = {**self._models, known.model: known}
        return Ledger(self.budget_bytes, self.reserves, models.values(), self.lent_bytes)

    def minus(self, *models: str) -> Ledger:
        """The same without these; those that aren't here change nothing."""
        kept = [known for name, known in self._models.items() if name not in models]
        return Ledger(self.budget_bytes, self.reserves, kept, self.lent_bytes)

    def lending(self, count: int) -> Ledger:
        """The same with so many bytes lent."""
        return Ledger(self.budget_bytes, self.reserves, self._models.values(), count)

    def plan(
        self, known: ModelKnown, victims: Iterable[str], adapters: int = 0
    ) -> tuple[str, ...] | None:
        """Which victims make room for a model, and for so much of a job's adapters: none too many,
        and the first ones if they do.

        ``victims`` are models that are here, those least worth keeping first. None if there isn't
        room even without all of them.
        """
        left, chosen = self, list[str]()
        for name in victims:
            if left.fits(known, adapters):
                break
            left = left.minus(name)
            chosen.append(name)
        if not left.fits(known, adapters):
            return None
        for name in chosen[-2::-1]:  # one that came too early: a later one made room enough
            back = left.plus(self._models[name])
            if back.fits(known, adapters):
                left = back
                chosen.remove(name)
        return tuple(chosen)

    def lines(self) -> dict[str, int]:
        """Every line by its name, in bytes; together with ``free_bytes`` they are the budget."""
        lines: dict[str, int] = {}
        for part in self._parts.values():
            name = _LINES.get(part.kind, part.kind)
            lines[name] = lines.get(name, 0) + part.bytes
        if self._models:
            lines[ROOM] = lines.get(ROOM, 0) + self.room_bytes
        for line in self.reserves:
            lines[line.name] = lines.get(line.name, 0) + line.bytes
        if self.lent_bytes:
            lines[LENT] = lines.get(LENT, 0) + self.lent_bytes
        return lines

    def load_s(self, known: ModelKnown, staged: Ledger | None = None) -> float:
        """How long to load a model here: by its missing components' share of the bytes.

        From their copies in host memory where ``staged`` has them, else from disk.
        """
        whole = bytes_of(known)
        if not whole:
            return known.load_s
        staged_s = known.load_s if known.staged_load_s is None else known.staged_load_s
        seconds = 0.0
        for part in self.missing(known):
            is_staged = staged is not None and part.id in staged._parts
            seconds += part.bytes / whole * (staged_s if is_staged else known.load_s)
        return seconds


def with_adapters(
    budget_bytes: int,
    reserves: Iterable[Reserve],
    models: Iterable[ModelKnown],
    adapters: Iterable[Reserve],
) -> Ledger:
    """A device that holds these models and what a job's ``adapters`` take, by line.

    They lie in what is kept free for such, or need more than that.
    """
    kept = {line.name: line.bytes for line in reserves}
    most = {line.name: max(kept.get(line.name, 0), line.bytes) for line in adapters}
    lines = tuple(Reserve(name, count) for name, count in (kept | most).items())
    return Ledger(budget_bytes, lines, models)


def no_room(what: str, devices: Iterable[tuple[str, Ledger]]) -> NoRoom | None:
    """Why no device holds what it should, with the arithmetic of the largest; None if one does.

    ``devices`` are their names, each with a ledger of all that should lie there.
    """
    full = list(devices)
    if not full or any(ledger.free_bytes >= 0 for _, ledger in full):
        return None
    name, ledger = max(full, key=lambda one: one[1].budget_bytes)
    lines = ledger.lines()
    said = ", ".join(f"{line} {count:,}" for line, count in lines.items())
    return NoRoom(
        f"{what} fits on no engine: {sum(lines.values()):,} bytes are needed ({said}), "
        f"and {name}, which has most, has {ledger.budget_bytes:,}",
        field="model",
        limit={"max_bytes": ledger.budget_bytes, "bytes": lines},
    )


def staging(
    host: Ledger, evicted: Iterable[ModelKnown], worth_less_first: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...], Ledger]:
    """What of the evicted is kept in host memory, what makes room for it, and the host after it.

    ``worth_less_first`` orders all models by what they are worth keeping: a copy only makes room
    for one that is worth more. Copies need no room to work in.
    """
    order = {name: at for at, name in enumerate(worth_less_first)}
    kept, dropped, after = [], list[str](), host
    for known in sorted(evicted, key=lambda one: -order.get(one.model, -1)):
        copy = ModelKnown(known.model, known.components, known.load_s, known.staged_load_s)
        mine = order.get(known.model, -1)
        lesser = sorted(
            (name for name in after.models if order.get(name, -1) < mine and name not in kept),
            key=lambda name: order.get(name, -1),
        )
        room = after.plan(copy, lesser)
        if room is None:
            continue
        kept.append(known.model)
        dropped += room
        after = after.minus(*room).plus(copy)
    return tuple(kept), tuple(dropped), after
