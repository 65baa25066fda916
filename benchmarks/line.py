"""How many decisions a second the line makes: ``python -m benchmarks.line [--jobs N] [--json]``.

A *decision* is one job started: on its engine's report that a job is over, the line settles the
charge, finds whose turn it is and where, and charges it. That is measured whole, at a line of a
million waiting jobs, with a thousand engines and as many tenants; the depth is kept by queueing a
new job for each that starts (timed by itself). A *turn* is the queue's part of it alone: whose turn
it is, the charge, the settling. One process, one thread; seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections.abc import Iterable, Iterator
from typing import Any

from calotype.core.decisions import Decision, StartAttempt
from calotype.core.events import EngineUp, JobQueued, JobSettled
from calotype.core.nouns import Tier
from calotype.policy.fair import FairQueue, ticks
from calotype.policy.lanes import Entry
from calotype.policy.line import Line
from calotype.policy.rules import Rules

_TIERS = tuple(Tier)


def jobs(seed: int, tenants: int, models: int) -> Iterator[JobQueued]:
    """Jobs without end: tiers, tenants, models and costs drawn, the same for the same seed."""
    noise = random.Random(seed)  # noqa: S311 - a benchmark's traffic
    at = 0
    while True:
        tenant = noise.randrange(tenants)
        yield JobQueued(
            f"j{at}",
            f"t{tenant}",
            _TIERS[tenant % 3],
            f"m{(tenant + noise.randrange(3)) % models}",  # a tenant uses three
            rows=1,
            cost_s=5.0 + noise.random() * 5,
        )
        at += 1


def measure(depth: int, engines: int, tenants: int, models: int, rounds: int) -> dict[str, Any]:
    """Fill a line to the depth, start on every engine, then settle and start for some rounds."""
    supply = jobs(7, tenants, models)
    line, costs = Line(rules=Rules()), {}
    queued_s = -time.process_time()
    for _ in range(depth):
        job = next(supply)
        line.on(job, 0.0)
        costs[job.job_id] = job.cost_s
    queued_s += time.process_time()
    warm = min(models, 4)
    running: list[str] = []
    for at in range(engines):
        names = tuple(f"m{(at + index) % models}" for index in range(warm))
        running += _started(line.on(EngineUp(f"e{at}", names, 1), 0.0))
    decide_s, started = _turn_over(line, supply, costs, running, rounds)
    return {
        "waiting": line.waiting,
        "engines": engines,
        "tenants": tenants,
        "models": models,
        "models_warm_on_each": warm,
        "decisions": started,
        "decisions_per_s": round(started / decide_s),
        "queued_per_s": round(depth / queued_s),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def measure_queue(depth: int, tenants: int, turns: int) -> dict[str, Any]:
    """``FairQueue`` alone: so many turns at that depth, each job settled at once as predicted."""
    supply, queue = jobs(7, tenants, 1), FairQueue()
    for seq in range(depth):
        job = next(supply)
        queue.add(Entry(job, seq, ticks(job.cost_s)))
    took_s = -time.process_time()
    for _ in range(turns):
        found = queue.first(("m0",))
        assert found is not None
        entry, why = found
        queue.start(entry, why)
        queue.settle(entry)
        queue.correct(entry, entry.cost)
    took_s += time.process_time()
    return {"waiting": depth, "tenants": tenants, "turns_per_s": round(turns / took_s)}


def _turn_over(
    line: Line,
    supply: Iterator[JobQueued],
    costs: dict[str, float],
    running: list[str],
    rounds: int,
) -> tuple[float, int]:
    """Seconds spent in decisions, and how many there were; jobs take what was predicted."""
    decide_s, started = 0.0, 0
    for _ in range(rounds):
        over = [JobSettled(job, costs.pop(job)) for job in running]
        decisions = []
        begin = time.process_time()
        for event in over:
            decisions += line.on(event, 1.0)
        decide_s += time.process_time() - begin
        running = [it.job_id for it in decisions if isinstance(it, StartAttempt)]
        started += len(running)
        for _ in running:
            job = next(supply)
            line.on(job, 1.0)
            costs[job.job_id] = job.cost_s
    return decide_s, started


def _started(decisions: Iterable[Decision]) -> list[str]:
    return [it.job_id for it in decisions if isinstance(it, StartAttempt)]


def main() -> None:
    """Measure with one model and with twenty, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="waiting in the line")
    parser.add_argument("--engines", type=int, default=1_000)
    parser.add_argument("--tenants", type=int, default=1_000)
    parser.add_argument("--models", type=int, nargs="+", default=[1, 20], help="a run for each")
    parser.add_argument("--rounds", type=int, default=200, help="jobs that end on each engine")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    for models in asked.models:
        found = measure(asked.jobs, asked.engines, asked.tenants, models, asked.rounds)
        _print(found, as_json=asked.json)
    queue = measure_queue(asked.jobs, asked.tenants, asked.jobs // 10)
    _print(queue, as_json=asked.json)


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    text = ", ".join(f"{name} {value:,}" for name, value in found.items())
    print(json.dumps(found) if as_json else text, flush=True)


if __name__ == "__main__":
    main()
