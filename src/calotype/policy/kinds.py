"""Kinds of jobs. Jobs of one kind can start in the same places; most kinds are a model's name.

Where a job's LoRAs and ControlNets take more than is kept free for such, its kind says how much has
to be free beside its model. That is rounded up, so that a model has few kinds however many LoRAs
there are.
"""

from __future__ import annotations

from typing import NamedTuple

from calotype.policy.engines import Engine, Size


class Kind(NamedTuple):
    """What decides where a job can start, beside what is warm and free there."""

    model: str
    avoid: tuple[str, ...] = ()  # engines where it failed, as long as there is another
    beyond: tuple[Size, ...] = ()  # devices that can't hold the model with the job's adapters
    # Bytes that have to be free beside the model on a device for them, where any have to.
    room: tuple[tuple[Size, int], ...] = ()

    @property
    def name(self) -> str:
        """Its own; of a kind that may start wherever its model is, the model's name."""
        parts = [self.model]
        if self.avoid:
            parts.append(f"not on {', '.join(self.avoid)}")
        parts += [f"too large for {size}" for size in self.beyond]
        parts += [f"with {count:,} bytes on {size}" for size, count in self.room]
        return "; ".join(parts)

    @property
    def is_plain(self) -> bool:
        """Whether its jobs may start wherever their model is."""
        return not (self.avoid or self.beyond or self.room)

    def may_use(self, engine: Engine) -> bool:
        """Whether its jobs may start on this engine, or have their model loaded there."""
        return engine.name not in self.avoid and engine.size not in self.beyond

    def has_room(self, engine: Engine) -> bool:
        """Whether there is room for its jobs' adapters, beside the models that are there now."""
        needed = self.room_on(engine)
        return not needed or needed <= engine.spare_bytes

    def room_on(self, engine: Engine) -> int:
        """Bytes that have to be free there beside the model."""
        return next((count for size, count in self.room if size == engine.size), 0)
