"""How ``calotype bench engine`` measures: the same runs for one system after the other.

Serial diffusers comes first: its images/s with everything asked at once is the capacity that all
loads are shares of. A system that draws other pictures than serial diffusers does is left out.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calotype.cli.bench_drive import Client, Outcome, System
from calotype.cli.bench_loras import make_loras
from calotype.cli.bench_report import OURS, SATURATED, SERIAL, TURBO_OVER_RELAX, load_name, summary
from calotype.cli.bench_workload import SAMPLERS, Mix, Request, turbo_over_relax, workload
from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.messages import RowLora
from calotype.core.nouns import ModelInfo, Tier

Tell = Callable[[str, int, int], None]  # what runs, pictures ended, pictures in all

_PEER = (sys.executable, "-m", "calotype.engine.plain_server", "--workers")
_THREADS = 40  # of the async pattern: as many as its web framework's pool has
SYSTEMS = (
    System(SERIAL, "serial diffusers", (*_PEER, "1")),
    System(
        OURS,
        "Calotype engine",
        (sys.executable, "-m", "calotype.engine"),
        rows_max=limits.ENGINE_ROWS_MAX,
        rows_spare=limits.ENGINE_ROWS_SPARE,
    ),
    System("async", "diffusers, a thread each", (*_PEER, str(_THREADS))),
)

WARM_REQUESTS, WARM_STEPS = 2 * len(SAMPLERS), 4
DIFFERENCE_MAX = 1.0  # mean over a picture, of 255: what rounding can't explain
SATURATED_MAX = 60  # requests at once: more take longer, and tell the same images/s
RELAX_LOAD = 1.2  # of the system's own saturated images/s, while turbo is sparse
RELAX_BACKLOG = 16  # relax requests that wait when the first turbo request comes
TURBO_SPACING = 4.0  # between turbo requests, in times of one alone


@dataclass(frozen=True)
class Plan:
    """What is asked of each system."""

    requests: int  # of a run
    seconds: float  # that a run's arrivals take at most
    loads: tuple[float, ...]  # shares of the serial capacity
    turbo: int  # sparse requests while relax saturates; 0: no such run
    seed: int
    mix: Mix
    loras: int  # different ones; half of the requests have one

    @property
    def runs(self) -> int:
        """Runs of one system: warming up, saturated, the loads, and the two of turbo."""
        return 2 + len(self.loads) + (2 if self.turbo else 0)


async def compare(
    systems: Sequence[System], model: ModelInfo, plan: Plan, logs: Path, tell: Tell
) -> dict[str, Any]:
    """Measure the systems on one model, the first of them the serial one; return JSON.

    Raises InternalError when the serial system or the engine fails; another that does is left out.
    """
    assert systems[0].name == SERIAL, "the loads are shares of its capacity"
    measured: list[dict[str, Any]] = []
    pictures: list[bytes] = []
    capacity = 0.0
    with tempfile.TemporaryDirectory(prefix="calotype-bench-") as folder:
        loras = make_loras(Path(model.path), Path(folder), plan.loras, plan.seed)
        for system in systems:
            meter = _Meter(system, plan, loras, tell)
            try:
                found = await meter.measure(model, logs / f"{system.name}.log", capacity, pictures)
            except InternalError as error:
                if system.name in {SERIAL, OURS}:
                    raise
                found = {"left_out": error.detail, "runs": []}
            if system.name == SERIAL:
                capacity = found["runs"][0]["images_s"]
            measured.append({"system": system.name, "title": system.title, **found})
    return {"model": model.name, "capacity_images_s": capacity, "systems": measured}


class _Meter:
    """One system's runs, in order."""

    def __init__(
        self, system: System, plan: Plan, loras: Mapping[str, RowLora], tell: Tell
    ) -> None:
        self._system, self._plan, self._loras, self._tell = system, plan, loras, tell

    async def measure(
        self, model: ModelInfo, log: Path, capacity: float, pictures: list[bytes]
    ) -> dict[str, Any]:
        """Start the system, do all runs, end it.

        ``pictures`` are what its warming up has to draw; the first system adds them. Without a
        ``capacity`` (images/s) the system's own is taken.
        """
        self._tell(f"{self._system.title}: starting", 0, 1)
        load_average = os.getloadavg()[0]  # before we add to it: shows what else is going on
        client = await Client.start(self._system, model, self._loras, log)
        try:
            differences = await self._warm(client, pictures)
            runs = [await self._saturated(client)]
            own = runs[0]["images_s"]
            for load in self._plan.loads:
                runs.append(await self._loaded(client, load, load * (capacity or own)))  # noqa: PERF401
            alone = None
            if self._plan.turbo:
                alone, crowded = await self._turbo(client, own)
                runs.append(crowded)
        finally:
            await client.end()
        return {
            "load_average_before": load_average,
            "pictures_differ_by": differences,
            "runs": runs,
            "turbo_alone": alone,
        }

    async def _warm(self, client: Client, pictures: list[bytes]) -> list[float]:
        """Draw a few pictures one by one, see that they are the right ones, then all at once."""
        requests = [
            replace(one, steps=WARM_STEPS) for one in self._requests(WARM_REQUESTS, 0.0, offset=1)
        ]
        outcomes = await self._one_by_one(client, requests, "warming up")
        for one in outcomes:
            if one.failure:
                raise InternalError(f"a picture failed while warming up: {one.failure}")
        drawn = [one.picture for one in outcomes]
        if not pictures:
            pictures += drawn
        differences = [_difference(*both) for both in zip(drawn, pictures, strict=True)]
        if max(differences) > DIFFERENCE_MAX:
            at = differences.index(max(differences))
            raise InternalError(
                f"it draws another picture than serial diffusers for {requests[at]}: they differ "
                f"by {differences[at]:.1f} of 255"
            )
        await self._run(client, requests, "warming up")
        return [round(value, 4) for value in differences]

    async def _saturated(self, client: Client) -> dict[str, Any]:
        requests = self._requests(min(self._plan.requests, SATURATED_MAX), 0.0)
        return summary(SATURATED, await self._run(client, requests, SATURATED))

    async def _loaded(self, client: Client, load: float, rate: float) -> dict[str, Any]:
        requests = self._requests(self._plan.requests, rate)
        due = [one for one in requests if one.at_s <= self._plan.seconds] or requests[:1]
        name = load_name(load)
        return summary(name, await self._run(client, due, name))

    async def _turbo(self, client: Client, own: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Turbo requests alone, then the same among relax: which must be the client's last run."""
        turbo = self._requests(self._plan.turbo, 0.0, offset=2, tiers=(Tier.TURBO,))
        alone = await self._one_by_one(client, turbo, "turbo alone")
        latencies_s = [one.latency_s for one in alone if one.latency_s is not None]
        if not latencies_s:
            raise InternalError(f"every turbo request failed: {alone[0].failure}")
        spacing_s = TURBO_SPACING * sum(latencies_s) / len(latencies_s)
        rate = RELAX_LOAD * own
        count = RELAX_BACKLOG + math.ceil(rate * spacing_s * (len(turbo) + 1))
        relax = self._requests(count, rate, offset=3, tiers=(Tier.RELAX,))
        crowd = turbo_over_relax(turbo, spacing_s, relax, RELAX_BACKLOG)
        crowded = await self._run(client, crowd, TURBO_OVER_RELAX, until=Tier.TURBO)
        return summary("turbo alone", alone), summary(TURBO_OVER_RELAX, crowded)

    def _requests(
        self, count: int, rate: float, offset: int = 0, tiers: Sequence[Tier] | None = None
    ) -> list[Request]:
        some = {"tiers": tiers} if tiers else {}
        seed, mix = self._plan.seed + offset, self._plan.mix
        return workload(count, rate, seed, mix=mix, loras=list(self._loras), **some)

    async def _run(
        self, client: Client, requests: Sequence[Request], what: str, *, until: Tier | None = None
    ) -> list[Outcome]:
        awaited = sum(until in {None, one.tier} for one in requests)
        ended = 0

        def count(outcome: Outcome) -> None:
            nonlocal ended
            ended += until in {None, outcome.request.tier}
            self._tell(f"{self._system.title}: {what}", ended, awaited)

        self._tell(f"{self._system.title}: {what}", 0, awaited)
        return await client.run(requests, count, until=until)

    async def _one_by_one(
        self, client: Client, requests: Sequence[Request], what: str
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for ended, request in enumerate(requests):
            self._tell(f"{self._system.title}: {what}", ended, len(requests))
            begun_s = outcomes[-1].ended_s if outcomes else 0.0
            [outcome] = await client.run([replace(request, at_s=0.0)])
            outcomes.append(replace(outcome, ended_s=begun_s + outcome.ended_s))
        return outcomes


def _difference(one: bytes, other: bytes) -> float:
    """Mean difference of two pictures' values, 0..255."""
    import numpy as np

    if len(one) != len(other):
        raise InternalError("it draws a picture of another size than serial diffusers")
    both = [np.frombuffer(raw, np.uint8).astype(np.int16) for raw in (one, other)]
    return float(np.abs(both[0] - both[1]).mean())
