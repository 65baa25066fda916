"""``python -m benchmarks.soak --kills 200``: SIGKILL of the server at random moments under load.

Clients of several tenants and tiers ask for pictures all the while, with an Idempotency-Key, and
retry until they are answered. The server, or now and then its engine, is killed at a random moment:
half of the kills come while it starts, half in the seconds after its engine is warm. In the end all
jobs are waited for, and database, logs and pictures are held against what was promised: no job is
lost, none is delivered twice, every log is a legal path of the state table.

The same seed gives the same load and the same draws; what the moments hit depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from benchmarks.soak.audit import audit
from benchmarks.soak.clients import TIERS, Client
from benchmarks.soak.server import Server, still_alive
from calotype.cli.console import print_json, print_table

PROMISES = ("lost", "delivered_twice", "illegal_paths", "wrong_files", "faults", "left_behind")
_ENGINE_SHARE = 0.2  # of kills, that the engine is killed in the server's place
_READY_S_MAX = 3.0  # after an engine is warm, that a kill comes
_DRAIN_S_MAX = 900.0  # for the last jobs to be over


def soak(kills: int, seed: int, home: Path, tenants: int = 3) -> dict[str, Any]:
    """Kill so often, then wait for every job; return the report, as JSON."""
    noise = random.Random(f"{seed}:kills")  # noqa: S311 - the same draws for the same seed
    server, begin = Server(home), time.monotonic()
    try:
        server.start()
        first_s = server.wait_ready()
        clients = _clients(server, tenants, seed)
        for client in clients:
            client.thread.start()
        moments, left = _kill_all(server, kills, noise, first_s)
        for client in clients:
            client.stop()
        server.wait_ready()
        _drain(clients)
        server.stop()
        server.start()  # its sweep deletes the files that killed servers left
        server.wait_ready()
        server.stop()
    finally:
        server.end()
    asks = [ask for client in clients for ask in client.asks]
    found = audit(home, asks)
    ready_s = [one["ready_s"] for one in moments if one["ready_s"] is not None]
    return {
        "kills": kills,
        "seed": seed,
        "server_kills": sum(one["what"] == "server" for one in moments),
        "engine_kills": sum(one["what"] == "engine" for one in moments),
        "took_s": round(time.monotonic() - begin, 1),
        "start_s_median": round(statistics.median([first_s, *ready_s]), 2),
        "requests": sum(ask.tries for ask in asks),
        "keys": len(asks),
        **found,
        "faults": [fault for client in clients for fault in client.faults],
        "left_behind": left,
        "moments": moments,
    }


def _clients(server: Server, tenants: int, seed: int) -> list[Client]:
    """One for each tenant and tier."""
    found = []
    for at in range(tenants):
        tenant = f"tenant-{at}"
        command = [sys.executable, "-m", "calotype.cli", "keys", "create", "--tenant", tenant]
        made = subprocess.run(
            [*command, "--home", str(server.home)], capture_output=True, text=True, check=True
        )
        secret = made.stdout.strip()
        found += [
            Client(server.url, tenant, secret, tier, f"{seed}:{tenant}:{tier}") for tier in TIERS
        ]
    return found


def _kill_all(
    server: Server, kills: int, noise: random.Random, start_s: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Each kill: what, and when it came after a start or after a warm engine."""
    moments: list[dict[str, Any]] = []
    left: list[str] = []
    columns = ("killed", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for _ in progress.track(range(kills), total=kills):
            is_early, share, is_engine = (
                noise.random() < 0.5,
                noise.random(),
                noise.random() < _ENGINE_SHARE,
            )
            ready_s = None
            if not is_early:
                ready_s = server.wait_ready()
                start_s = max(start_s * 0.8, ready_s) if moments else start_s
            after_s = share * (start_s if is_early else _READY_S_MAX)
            time.sleep(after_s)
            what = "engine" if is_engine and server.kill_engine() else "server"
            if what == "server":
                children = server.kill()
                server.start()
                left += [f"process {pid} outlived its server" for pid in still_alive(children)]
            moments.append(
                {
                    "what": what,
                    "after": "start" if is_early else "warm",
                    "after_s": round(after_s, 3),
                    "ready_s": ready_s and round(ready_s, 2),
                }
            )
    return moments, left


def _drain(clients: list[Client]) -> None:
    deadline = time.monotonic() + _DRAIN_S_MAX
    for client in clients:
        client.thread.join(max(0.0, deadline - time.monotonic()))
        if client.thread.is_alive():
            client.faults.append(f"jobs weren't over after {_DRAIN_S_MAX:g} s")


def _print(report: dict[str, Any]) -> None:
    states = ", ".join(f"{count} {state}" for state, count in report["states"].items())
    rows = [
        ("kills", f"{report['server_kills']} of the server, {report['engine_kills']} of an engine"),
        ("took", f"{report['took_s']:,} s; a start {report['start_s_median']} s in the median"),
        ("requests", f"{report['requests']:,} with {report['keys']:,} keys"),
        ("jobs", f"{report['jobs']:,}: {states}"),
        ("attempts", f"{report['attempts']:,}, {report['attempts_lost']:,} of them lost"),
        *((promise.replace("_", " "), str(len(report[promise]))) for promise in PROMISES),
    ]
    print_table(("", ""), rows, title=f"Soak, seed {report['seed']}")
    for promise in PROMISES:
        for said in report[promise][:10]:
            print(f"{promise}: {said}")
    for problem in report["failures"][:10]:  # no broken promise: its owner was told
        print(f"failed: {json.loads(problem)['detail']}")


def main() -> None:
    """Soak and print; exit with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tenants", type=int, default=3, help="each asks in every tier")
    parser.add_argument("--home", type=Path, help="keep the installation there; else it is deleted")
    parser.add_argument("--out", type=Path, help="write the report there, as JSON")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="calotype-soak-") as folder:
        report = soak(asked.kills, asked.seed, asked.home or Path(folder), asked.tenants)
    if asked.out:
        asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if asked.json:
        print_json(report)
    else:
        _print(report)
    sys.exit(any(report[promise] for promise in PROMISES))


if __name__ == "__main__":
    main()
