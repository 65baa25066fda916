"""Kinds of jobs. Jobs of one kind can start in the same places; most kinds are a model's name."""

from __future__ import annotations

from typing import NamedTuple

from calotype.policy.engines import Engine, Size


class Kind(NamedTuple):
    """What decides where a job can start, beside what is warm and free there."""

    model: str
    avoid: tuple[str, ...] = ()  # engines where it failed, as long as there is another
    beyond: tuple[Size, ...] = ()  # devices that can't hold the model with the job's adapters

    @property
    def name(self) -> str:
        """Its own; of a kind that may start wherever its model is, the model's name."""
        parts = [self.model]
        if self.avoid:
            parts.append(f"not on {', '.join(self.avoid)}")
        parts += [f"too large for {size}" for size in self.beyond]
        return "; ".join(parts)

    @property
    def is_plain(self) -> bool:
        """Whether its jobs may start wherever their model is."""
        return not (self.avoid or self.beyond)

    def may_use(self, engine: Engine) -> bool:
        """Whether its jobs may start on this engine, or have their model loaded there."""
        return engine.name not in self.avoid and engine.size not in self.beyond
