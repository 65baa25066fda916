"""What a line asks of the queue it is given: ``FairQueue``, or what is measured beside it.

The simulator's baselines (first come first served and the like) are such queues too, so that all
are run by the same line, with the same places, retries and affinity.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from calotype.core.nouns import Tier
from calotype.policy.lanes import Entry
from calotype.policy.rules import Rules

Found = tuple[Entry, str]  # whose turn it is, and why: a word of decisions.WHY


class Queue(Protocol):
    """Decides whose turn it is. All times in seconds, all costs in ticks."""

    rules: Rules
    kinds: dict[str, int]  # jobs that wait, by kind

    def resize(self, engines: int, rows: int, spare: int) -> None:
        """So many engines are up, with room for so many rows, some spared for heavier tiers."""

    def add(self, entry: Entry) -> None:
        """Let a job wait."""

    def remove(self, entry: Entry) -> None:
        """Take a waiting job out, uncharged."""

    def first(self, kinds: Collection[str] | None = None, tier: Tier | None = None) -> Found | None:
        """The job whose turn it is, of these kinds and this tier (None: any), and why."""

    def start(self, entry: Entry, why: str = "turn") -> None:
        """Take a waiting job out and charge its predicted cost."""

    def settle(self, entry: Entry) -> None:
        """A started job is over; its charge stands until ``correct``."""

    def correct(self, entry: Entry, cost: int) -> None:
        """Replace what the started job was charged (0: it was lost)."""

    def promote(self, now: float) -> list[Entry]:
        """Jobs that have now waited too long."""

    def next_deadline(self) -> float | None:
        """When ``promote`` has something to say next."""

    def order(self) -> list[Entry]:
        """Every waiting job in the order they would start if each fitted."""

    def ahead_most(self, entry: Entry) -> int:
        """How many may go before this one, at most."""

    def due(self) -> Mapping[str, float]:
        """The share of device time, 0..1, that each kind is due while all these wait."""

    def standing(self, begun: Iterable[Entry]) -> dict[str, Any]:
        """What a restart needs to go on, as JSON, as if jobs that were ``begun`` had not been."""
