"""What a time estimate costs: ``python -m benchmarks.eta [--waiting N ...] [--json]``.

A *forecast* is the line copied and played forward, once for all who ask until the line changes. An
*answer* is what each of them then waits for: one job's place, times and reason. Both are measured
beside each other at several depths of the line; seconds are those of the processor, the quickest of
some rounds, since a busy machine only adds.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from benchmarks.line import jobs
from calotype.core.events import EngineUp, TimePassed
from calotype.policy.eta import Forecast, Present
from calotype.policy.line import Line
from calotype.policy.sharing import Steady

_ANSWERS = 200


def measure(waiting: int, engines: int, tenants: int, rounds: int) -> dict[str, Any]:
    """Fill a line to the depth on busy engines of one row, then forecast and answer."""
    supply, line = jobs(7, tenants, 3), Line()
    for at in range(engines):
        line.on(EngineUp(f"e{at}", tuple(f"m{model}" for model in range(3)), 1), 0.0)
    asked: list[str] = []
    while line.waiting < waiting:
        job = next(supply)
        line.on(job, 0.0)
        asked.append(job.job_id)
    present = Present(lambda job: job.cost_s, lambda engine: Steady())
    forecasts_s = []
    for _ in range(rounds):
        line.on(TimePassed(), 0.0)  # what was known of places is stale
        forecasts_s.append(_seconds(lambda: Forecast(line, present, 0.0)))
    forecast = Forecast(line, present, 0.0)
    some = asked[:: max(1, len(asked) // _ANSWERS)]
    answers_s = _seconds(lambda: [forecast.of(job) for job in some])
    return {
        "waiting": line.waiting,
        "engines": engines,
        "starts_played": forecast.starts,
        "forecast_ms": round(min(forecasts_s) * 1e3, 2),
        "answer_us": round(answers_s / len(some) * 1e6, 1),
    }


def _seconds(act: Any) -> float:
    begin = time.process_time()
    act()
    return time.process_time() - begin


def main() -> None:
    """Measure at each depth, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--waiting", type=int, nargs="+", default=[10, 1_000, 10_000, 100_000])
    parser.add_argument("--engines", type=int, nargs="+", default=[4, 1_000], help="a run for each")
    parser.add_argument("--tenants", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    for engines in asked.engines:
        for waiting in asked.waiting:
            found = measure(waiting, engines, asked.tenants, asked.rounds)
            text = ", ".join(f"{name} {value:,}" for name, value in found.items())
            print(json.dumps(found) if asked.json else text, flush=True)


if __name__ == "__main__":
    main()
