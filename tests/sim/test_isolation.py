"""One tenant's ten thousand jobs: what another of its tier notices of them, also in trouble."""

from __future__ import annotations

from typing import Any

import pytest

from calotype.core.decisions import Decision, StartAttempt
from calotype.core.events import EngineUp, JobQueued, JobSettled
from calotype.core.nouns import Tier
from calotype.policy.line import Line
from calotype.sim.fleet import Engines, FleetPlan, Outage
from calotype.sim.jobs import Asked, Costs
from calotype.sim.record import quantile
from calotype.sim.world import World

JOB_S = 10.0
FLOOD = 10_000
LOST = Outage("west", at_s=4_000.0, for_s=900.0)  # half of the devices


def asked(tenant: str, at_s: float) -> Asked:
    return Asked(at_s=at_s, tenant=tenant, tier=Tier.FAST, model="m", device_s=JOB_S)


def p99_of_ann(
    monkeypatch: pytest.MonkeyPatch, *, flood: int, outages: tuple[Outage, ...], policy: str
) -> float:
    """Seconds from asking to the picture; she asks every half minute for five hours."""
    jobs = [asked("ann", 30.0 * at) for at in range(600)]
    jobs += [asked("bob", 60.0) for _ in range(flood)]
    west, east = (Engines("A100", 2, region=region, warm=("m",)) for region in ("west", "east"))
    plan = FleetPlan((west, east), outages=outages)
    world = World(plan, sorted(jobs, key=lambda job: job.at_s), Costs(), 0, policy)
    latencies: list[float] = []
    ended = world.record.ended

    def note(job: Asked, started_s: float, device_s: float, now: float) -> None:
        if job.tenant == "ann":
            latencies.append(now - job.at_s)
        ended(job, started_s, device_s, now)

    monkeypatch.setattr(world.record, "ended", note)
    figures = world.run().figures()
    assert figures["jobs"] == len(jobs)
    assert len(latencies) == 600
    return quantile(sorted(latencies), 0.99)


@pytest.mark.parametrize("outages", [(), (LOST,)], ids=["all is well", "half the devices lost"])
def test_ten_thousand_jobs_move_anothers_p99_by_one_job_at_most(
    monkeypatch: pytest.MonkeyPatch, outages: tuple[Outage, ...]
) -> None:
    def p99(flood: int, policy: str = "ours") -> float:
        return p99_of_ann(monkeypatch, flood=flood, outages=outages, policy=policy)

    alone = p99(0)
    assert p99(FLOOD) <= alone + JOB_S + 0.1
    assert p99(FLOOD, "fifo") > alone + 100 * JOB_S, "the test would show it"


def queued(tenant: str, at: int, **more: Any) -> JobQueued:
    return JobQueued(f"{tenant}{at}", tenant, Tier.FAST, "m", 1, JOB_S, **more)


def starts_of(decisions: list[Decision]) -> list[StartAttempt]:
    starts = [it for it in decisions if isinstance(it, StartAttempt)]
    assert len(starts) == len(decisions)
    return starts


def started_by(line: Line, engines: str, now: float) -> list[StartAttempt]:
    ups = (EngineUp(name, ("m",), 1) for name in engines)
    return [start for up in ups for start in starts_of(line.on(up, now))]


def test_after_a_restart_she_waits_for_what_ran_before_and_no_more() -> None:
    line = Line()
    for at in range(FLOOD):
        line.on(queued("bob", at), 0.0)
    started = started_by(line, "abcd", 0.0)
    for at in range(100):
        (first, *started) = started
        started += starts_of(line.on(JobSettled(first.job_id, JOB_S), JOB_S * at))
    line.on(queued("ann", 0), 1_000.0)
    again = Line(line.standing())
    for at in range(100, FLOOD):  # oldest first; those that ran wait once more
        again.on(queued("bob", at, attempt=int(at < 104), waited_s=1_000.0), 1_001.0)
    again.on(queued("ann", 0, waited_s=1.0), 1_001.0)
    starts = started_by(again, "abcd", 1_002.0)
    starts += starts_of(again.on(JobSettled(starts[0].job_id, JOB_S), 1_012.0))
    assert [start.job_id for start in starts] == ["bob100", "bob101", "bob102", "bob103", "ann0"]
