"""Engines in virtual time: what runs on each, how fast, and what they have loaded.

How rows share an engine is ``policy.sharing``'s, as time estimates have it too; here is what else
the simulator knows of one: whether it is up, its LoRAs, its hours.
"""

from __future__ import annotations

from collections.abc import Mapping

from calotype.policy.arena import Arena
from calotype.policy.sharing import Run, Sharing
from calotype.sim.fleet import GB, Kind

__all__ = ["Run", "SimEngine"]


class SimEngine(Sharing):
    """One engine, through its lives."""

    __slots__ = (
        "arena",
        "is_spot",
        "is_up",
        "kind",
        "life",
        "loras",
        "models",
        "name",
        "region",
        "up_s",
        "up_since",
    )

    def __init__(self, name: str, region: str, kind: Kind, *, is_spot: bool = False) -> None:
        super().__init__(kind)
        self.name, self.region, self.kind, self.is_spot = name, region, kind, is_spot
        self.is_up = False
        self.life = 0  # how often it came up
        self.loras: dict[str, None] = {}  # loaded, the one used last at the end
        self.models: dict[str, None] = {}  # base models that are warm
        self.up_s, self.up_since = 0.0, 0.0
        self.arena = Arena(round(kind.models_gb * GB))  # where the models' parts lie

    def up(self, now: float) -> None:
        """It starts, with nothing on it."""
        self.is_up, self.up_since = True, now
        self.life += 1
        self.loras.clear()
        self.arena.hold({})
        self.clear(now)

    def lay(self, parts: Mapping[str, int]) -> bool:
        """It holds just these parts of models now. False if one found no block: all are laid anew.

        What laying anew takes isn't simulated: it waits for a quiet moment.
        """
        if self.arena.hold(parts):
            return True
        self.arena.hold({})
        self.arena.hold(parts)
        return False

    def down(self, now: float) -> None:
        """It is lost, with all that runs on it."""
        if self._rows:
            self.busy_s += now - self._seen_s
        self.up_s += now - self.up_since
        self.is_up = False
        self.version += 1
        self.clear(now)

    def needs_loras(self, names: tuple[str, ...]) -> int:
        """How many of them it has to load; it has them afterwards."""
        missing = 0
        for name in names:
            missing += self.loras.pop(name, self) is self
            self.loras[name] = None
        while len(self.loras) > self.kind.loras:
            del self.loras[next(iter(self.loras))]
        return missing

    def loaded(self, load_s: float) -> None:
        """It spent so long loading; that counts as busy if it had nothing else to do."""
        if not self._rows:
            self.busy_s += load_s
