"""What a keeper is given to start an engine, and what it knows of the process that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calotype.core import limits
from calotype.core.nouns import ModelInfo


@dataclass(frozen=True)
class Pace:
    """How long the pool waits for what; the defaults are the platform's limits."""

    start_s_max: float = limits.ENGINE_START_S_MAX
    lease_s: float = limits.LEASE_S
    heartbeat_s: float = limits.HEARTBEAT_S
    stop_s_max: float = limits.ENGINE_STOP_S_MAX
    backoff_s_min: float = limits.ENGINE_BACKOFF_S_MIN
    backoff_s_max: float = limits.ENGINE_BACKOFF_S_MAX
    healthy_s: float = limits.ENGINE_HEALTHY_S


@dataclass(frozen=True)
class Launch:
    """How to start an engine, and what it shall load."""

    command: Sequence[str]  # without ``--fd N``
    env: Mapping[str, str]  # added to our environment
    log: Path | None  # where its output goes; None: where ours goes
    models: tuple[ModelInfo, ...]


@dataclass
class Life:
    """What is known of one process; of the next nothing is known. Times are the loop's."""

    heard_at: float = 0.0  # last message, or the start
    has_spoken: bool = False
    ready_at: float | None = None
    is_reader_slow: bool = False  # a report waits for the pool's reader: silence is our doing
    device: str | None = None
    torch: str | None = None
    models_warm: list[str] = field(default_factory=list)
    models_failed: dict[str, str] = field(default_factory=dict)  # name -> reason
    rows: int = 0  # by the last heartbeat
    steps: int = 0  # by the last heartbeat
