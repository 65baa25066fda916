"""A million seeded schedules: ``python -m benchmarks.schedules --count 1000000``.

Each is a small history of arrivals, losses, late and doubled messages, failures and restarts over
the production line and the store's table of states (``calotype.sim.schedules``). A seed that fails
is printed, and ``--seed N --show`` plays it again, event by event. Exits with 1 if one failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time

from rich.console import Console
from rich.progress import track

from calotype.sim.books import BrokenPromise
from calotype.sim.schedules import Schedule

_CHUNK = 500  # schedules that a process plays before it reports
_FAILURES_TOLD = 20


def play(seeds: range) -> tuple[int, int, list[str]]:
    """Schedules and turns played, and what was broken."""
    turns, broken = 0, []
    for seed in seeds:
        try:
            turns += Schedule(seed).run()
        except BrokenPromise as error:
            broken.append(str(error))
    return len(seeds), turns, broken


def play_all(first: int, count: int, processes: int) -> dict[str, object]:
    """Play ``count`` seeds from ``first``, and report."""
    begin, done, turns = time.perf_counter(), 0, 0
    broken: list[str] = []
    chunks = [
        range(at, min(at + _CHUNK, first + count)) for at in range(first, first + count, _CHUNK)
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        played = pool.imap(play, chunks)
        for one in track(played, "schedules", len(chunks), console=Console(stderr=True)):
            done, turns, broken = done + one[0], turns + one[1], broken + one[2]
    took_s = time.perf_counter() - begin
    return {
        "first_seed": first,
        "schedules": done,
        "turns": turns,
        "broken": len(broken),
        "failures": broken[:_FAILURES_TOLD],
        "took_s": round(took_s, 1),
        "per_s": round(done / took_s),
    }


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", action="store_true", help="play --seed alone, event by event")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.show:
        sys.exit(_show(asked.seed))
    found = play_all(asked.seed, asked.count, asked.processes)
    if asked.json:
        print(json.dumps(found))
    else:
        said = (f"{found[name]:,} {name}" for name in ("schedules", "turns", "broken"))
        print(f"{', '.join(said)}, in {found['took_s']} s")
        for failure in found["failures"]:  # type: ignore[attr-defined]
            print(failure)
    sys.exit(bool(found["broken"]))


def _show(seed: int) -> int:
    trace: list[str] = []
    try:
        Schedule(seed, trace).run()
        end, code = "every promise held", 0
    except BrokenPromise as error:
        end, code = str(error), 1
    print("\n".join([*trace, end]))
    return code


if __name__ == "__main__":
    main()
