"""Engines in virtual time: what runs on each, how fast, and what they have loaded.

How rows share an engine is ``policy.sharing``'s, as time estimates have it too; here is what else
the simulator knows of one: whether it is up, its LoRAs, its hours.
"""

from __future__ import annotations

from calotype.policy.arena import Arena
from calotype.policy.sharing import Run, Sharing
from calotype.sim.fleet import GB, Kind

__all__ = ["Run", "SimEngine"]


class SimEngine(Sharing):
    """One engine, through its lives."""

    __slots__ = (
        "arena",
        "is_hired",
        "is_leaving",
        "is_spot",
        "is_up",
        "kind",
        "life",
        "loras",
        "models",
        "name",
        "noticed_at",
        "region",
        "sent",
        "up_s",
        "up_since",
    )

    def __init__(self, name: str, region: str, kind: Kind, *, is_spot: bool = False) -> None:
        super().__init__(kind)
        self.name, self.region, self.kind, self.is_spot = name, region, kind, is_spot
        self.is_up = False
        self.is_hired = False  # paid for: from asking for it until it is given up or lost
        self.is_leaving = False  # drained, and then given up
        self.noticed_at: float | None = None  # when it was told that it will be taken away
        self.sent = 0  # jobs that the line has there
        self.life = 0  # how often it came up
        self.loras: dict[str, None] = {}  # loaded, the one used last at the end
        self.models: dict[str, None] = {}  # base models that are warm
        self.up_s, self.up_since = 0.0, 0.0  # paid for, booting included
        self.arena = Arena(round(kind.models_gb * GB))  # where the models' parts lie

    def hire(self, now: float) -> None:
        """It is paid for from now on."""
        self.is_hired, self.up_since = True, now

    def up(self, now: float) -> None:
        """It starts, with nothing on it."""
        if not self.is_hired:
            self.hire(now)
        self.is_up, self.noticed_at, self.sent = True, None, 0
        self.life += 1
        self.loras.clear()
        self.arena.hold({})
        self.clear(now)

    def down(self, now: float) -> None:
        """It is lost or given up, with all that runs on it."""
        if self._rows:
            self.busy_s += now - self._seen_s
        self.up_s += now - self.up_since
        self.is_up = self.is_hired = False
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
