"""The job store under load: ``python -m benchmarks.store [claims|appends] [--postgres] [--json]``.

*claims*: many workers, each with a store of its own as another process would have it, claim the
same jobs: how many claims a second, and that no job is claimed twice. Each tries one of the oldest
jobs that it believes to be waiting, so that most tries meet another's. *appends*: events of many
rows appended at once, each in a transaction of its own or in groups (``jobs.log``): what sharing a
commit brings, as a ratio. Commits wait for the disk in both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from calotype.core.errors import IllegalMove, LeaseLost
from calotype.core.nouns import Sampler, Spec, Tier
from calotype.core.states import JobState
from calotype.jobs import log, tables
from calotype.jobs.rows import spec_json, utc_now
from calotype.jobs.store import JobStore
from tests.postgres import running_postgres

SPEC = Spec("a tent", "", "vignette", 64, 64, 4, 3.5, Sampler.EULER, 7, 1)
PAGE = 64  # of the oldest jobs, from which a worker takes any
PROCESSES = 2
APPENDS_AT_ONCE = 64  # rows that step at the same time


def job_ids(count: int) -> list[str]:
    """Jobs by name, oldest first."""
    return [f"job_{number:06}" for number in range(count)]


async def fill(url: str, count: int) -> None:
    """Queue jobs in one transaction: how long that takes is not what is measured."""
    store = await JobStore.open(url)
    at, spec = utc_now(), spec_json(SPEC)
    row: dict[str, Any] = {
        "tenant": "ada",
        "user": "",
        "tier": "fast",
        "spec": spec,
        "state": "queued",
    }
    row |= {"created_at": at, "attempt": 0, "token": 0, "log_length": 1}
    first: dict[str, Any] = {
        "seq": 1,
        "kind": "queued",
        "at": at,
        "data": {"tier": "fast"},
    }
    async with store._database.writing() as conn:
        await conn.execute(insert(tables.jobs), [{**row, "id": each} for each in job_ids(count)])
        events = [{**first, "job_id": each} for each in job_ids(count)]
        await conn.execute(insert(tables.events), events)
    await store.close()


async def _claim(url: str, jobs: int, seed: int) -> tuple[int, int]:
    """One worker: claims until nothing waits; returns its claims and its lost tries."""
    noise = random.Random(seed)  # noqa: S311 - a benchmark's choice
    store = await JobStore.open(url)
    waiting, claimed, lost = job_ids(jobs), 0, 0
    while waiting:
        at = noise.randrange(min(PAGE, len(waiting)))
        try:
            await store.lease(waiting.pop(at), f"worker-{seed}")
            claimed += 1
        except (IllegalMove, LeaseLost):
            lost += 1
            if lost % PAGE == 0:  # it has fallen behind: what waits by now?
                waiting = await _queued(store)
    await store.close()
    return claimed, lost


async def _queued(store: JobStore) -> list[str]:
    jobs = tables.jobs
    query = select(jobs.c.id).where(jobs.c.state == JobState.QUEUED.value).order_by(jobs.c.number)
    async with store._database.reading() as conn:
        return list((await conn.execute(query)).scalars())


def _claim_in_process(url: str, jobs: int, seeds: range) -> list[tuple[int, int]]:
    async def run() -> list[tuple[int, int]]:
        return await asyncio.gather(*(_claim(url, jobs, seed) for seed in seeds))

    return asyncio.run(run())


def claims(url: str, workers: int, jobs: int) -> dict[str, Any]:
    """Let the workers race, then count what the store says."""
    asyncio.run(fill(url, jobs))
    shares = [range(at, workers, PROCESSES) for at in range(PROCESSES)]
    began = time.monotonic()
    with ProcessPoolExecutor(PROCESSES) as pool:
        running = [pool.submit(_claim_in_process, url, jobs, seeds) for seeds in shares]
        counts = [count for each in running for count in each.result()]
    took_s = time.monotonic() - began
    attempts, twice = asyncio.run(_attempts(url))
    return {
        "workers": workers,
        "jobs": jobs,
        "claimed": sum(claimed for claimed, _ in counts),
        "attempts_stored": attempts,
        "double_claims": twice,
        "lost_tries": sum(lost for _, lost in counts),
        "seconds": round(took_s, 2),
        "claims_per_s": round(jobs / took_s, 1),
    }


async def _attempts(url: str) -> tuple[int, int]:
    """Attempts in the store, and those beyond one for each job."""
    store = await JobStore.open(url)
    async with store._database.reading() as conn:
        rows = list((await conn.execute(select(tables.attempts.c.job_id))).scalars())
    await store.close()
    return len(rows), len(rows) - len(set(rows))


async def _append(url: str, count: int) -> float:
    """Append this many events, APPENDS_AT_ONCE at a time; return seconds."""
    store = await JobStore.open(url)
    job = await store.insert("ada", Tier.FAST, SPEC)
    lease = await store.lease(job.id, "cpu-0")

    async def row(image: int) -> None:
        for step in range(count // APPENDS_AT_ONCE):
            await store.append(lease, "step", {"image": image, "step": step, "steps": count})

    began = time.monotonic()
    await asyncio.gather(*(row(image) for image in range(APPENDS_AT_ONCE)))
    took_s = time.monotonic() - began
    await store.close()
    return took_s


def appends(url: str, count: int) -> dict[str, Any]:
    """Appends a second, alone and in groups."""
    rates = {}
    for name, group, gather_s in (("alone", 1, 0.0), ("grouped", log.GROUP_MAX, log.GATHER_S)):
        log.GROUP_MAX, log.GATHER_S = group, gather_s
        rates[name] = count / asyncio.run(_append(url, count))
    return {
        "appends": count,
        "at_once": APPENDS_AT_ONCE,
        "alone_per_s": round(rates["alone"], 1),
        "grouped_per_s": round(rates["grouped"], 1),
        "ratio": round(rates["grouped"] / rates["alone"], 1),
    }


@contextmanager
def database(*, is_postgres: bool) -> Iterator[str]:
    """The address of a new database whose commits wait for the disk."""
    if is_postgres:
        with running_postgres(is_durable=True) as server:
            yield server.new_database()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite+aiosqlite:///{Path(folder) / 'jobs.db'}"


def main() -> int:
    """Measure and print; exit code 1 if any job was claimed twice or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["claims", "appends"], nargs="?", default="claims")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--appends", type=int, default=2_048)
    parser.add_argument("--postgres", action="store_true", help="else SQLite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with database(is_postgres=options.postgres) as url:
        if options.what == "claims":
            found = claims(url, options.workers, options.jobs)
        else:
            found = appends(url, options.appends)
    found = {"database": "postgresql" if options.postgres else "sqlite"} | found
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:>16}  {value}" for name, value in found.items()))
    is_wrong = found.get("double_claims", 0) or found.get("claimed") not in (None, options.jobs)
    return 1 if is_wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
