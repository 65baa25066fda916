"""Seeded schedules: thousands hold their promises, a broken line is found, a seed plays again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from calotype.core.states import JobState
from calotype.policy import engines, place
from calotype.policy.fair import FairQueue
from calotype.policy.line import Line
from calotype.sim.books import BrokenPromise
from calotype.sim.schedules import Schedule

SEEDS = 3_000


def play(seeds: range) -> None:
    for seed in seeds:
        Schedule(seed).run()


def test_thousands_of_schedules_keep_their_promises() -> None:
    ends = set()
    for seed in range(SEEDS):
        schedule = Schedule(seed)
        schedule.run()
        ends |= {job.state for job in schedule._books.jobs.values()}
    assert ends == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


def test_a_seed_is_a_schedule() -> None:
    def played(seed: int) -> list[str]:
        trace: list[str] = []
        Schedule(seed, trace).run()
        return trace

    assert played(11) == played(11)
    assert played(11) != played(12)


BROKEN: dict[str, tuple[type[Any], str, Callable[..., Any], str]] = {
    "jobs of a lost engine are forgotten": (
        Line,
        "_lose_engine",
        lambda self, engine, reason="": self._fleet.gone(engine) and [],
        "(is running for ever|KeyError)",
    ),
    "engines take more rows than they have": (
        engines.Engine,
        "fits",
        lambda self, rows: True,
        "no room",
    ),
    "rows are never free again": (
        place.Fleet,
        "free",
        lambda self, name, job, rows: None,
        "(idles while jobs of|KeyError)",
    ),
    "an engine that goes is given work": (
        place.Fleet,
        "pause",
        lambda self, name, *, is_paused: True,
        "the engine isn't there",
    ),
    "a cancelled job still runs": (Line, "_cancel", lambda self, job: None, ""),
    "nobody is promoted": (FairQueue, "promote", lambda self, now: [], "never passes"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_line_that_breaks_a_promise_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, name, broken, says = BROKEN[fault]
    monkeypatch.setattr(kind, name, broken)
    with pytest.raises(BrokenPromise, match=rf"^seed \d+.*{says}"):
        play(range(SEEDS))


def test_the_benchmark_counts_and_shows_a_seed() -> None:
    def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.schedules", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    counted = benchmark("--count", "40", "--processes", "1")
    assert (counted.returncode, counted.stdout[:13]) == (0, "40 schedules,")
    shown = benchmark("--seed", "3", "--show")
    assert shown.stdout.endswith("every promise held\n")
    assert "StartAttempt" in shown.stdout
