"""Time estimates: the policy run forward decides as the line will, and its ranges come true."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from calotype.core import limits
from calotype.core.decisions import LoadModel, StartAttempt
from calotype.core.events import (
    AttemptFailed,
    EnginePaused,
    EngineUp,
    JobCancelled,
    JobQueued,
    JobSettled,
    ModelWarmed,
    PolicyEvent,
    StartsBounded,
    TimePassed,
)
from calotype.core.nouns import Tier
from calotype.policy.eta import Coming, Forecast, Outlook, Present
from calotype.policy.line import Line
from calotype.policy.ranges import PRIOR, Case, Ranges
from calotype.policy.sharing import Steady
from tests.policy.fleet import queued
from tests.policy.warm import Unforeseeing, needs

TIERS = (Tier.TURBO, Tier.FAST, Tier.RELAX)
LOAD_S = 3.0


def up(
    name: str = "e0", models: tuple[str, ...] = ("m",), rows: int = 1, most: int = 0
) -> EngineUp:
    """``most`` models fit; 0: it loads none on demand."""
    return EngineUp(name, models, rows_max=rows, budget_bytes=10 * most)


def present(*coming: Coming) -> Present:
    return Present(lambda job: job.cost_s, lambda engine: Steady(), coming)


class World:
    """A line on engines of one row, where every job takes what was predicted."""

    def __init__(self) -> None:
        self.line, self.now = Line(keeper=Unforeseeing()), 0.0
        self.jobs: dict[str, JobQueued] = {}
        self.loads: list[tuple[float, int, LoadModel]] = []  # when they are done
        self.ends: list[tuple[float, int, str]] = []
        self.starts: list[tuple[str, str, float]] = []  # job, engine, when
        self._order = 0

    def tell(self, event: PolicyEvent) -> None:
        if isinstance(event, JobQueued):
            self.jobs[event.job_id] = event
        for decision in self.line.on(event, self.now):
            if isinstance(decision, StartAttempt):
                self.starts.append((decision.job_id, decision.engine, round(self.now, 6)))
                self._order += 1
                takes_s = self.jobs[decision.job_id].cost_s
                heapq.heappush(self.ends, (self.now + takes_s, self._order, decision.job_id))
            elif isinstance(decision, LoadModel):
                self._order += 1
                heapq.heappush(self.loads, (self.now + decision.load_s, self._order, decision))

    def step(self) -> None:
        """Go on to the next end, or the next deadline of the line."""
        deadline = self.line.next_deadline()
        due = min(heap[0][:2] for heap in (self.ends, self.loads) if heap)
        if deadline is not None and self.now < deadline < due[0]:
            self.now = deadline
            self.tell(TimePassed())
            return
        if self.loads and self.loads[0][:2] == due:
            self.now, _, load = heapq.heappop(self.loads)
            self.tell(ModelWarmed(load.engine, load.model))
            return
        self.now, _, job = heapq.heappop(self.ends)
        self.tell(JobSettled(job, self.jobs[job].cost_s))

    def left(self, job: JobQueued) -> float:
        ends = {job: at for at, _, job in self.ends}
        if job.job_id not in ends:
            return job.cost_s
        return ends[job.job_id] - self.now

    def forecast(self, starts_max: int = limits.FORECAST_STARTS_MAX) -> Forecast:
        of = Present(self.left, lambda engine: Steady())
        return Forecast(self.line, of, self.now, starts_max)


def busy(noise: random.Random, jobs: int, models: int, loads: bool) -> World:
    """A world with a past: everyone was charged something, some were promoted, some failed."""
    world = World()
    for at in range(models):
        world.tell(needs(f"m{at}", load_s=LOAD_S))
    for at in range(3):
        names = tuple(f"m{(at + one) % models}" for one in range(2))
        world.tell(up(f"e{at}", names, most=2 * loads))
    for at in range(jobs):
        tenant = noise.choice("abcd")
        job = queued(
            f"j{at}",
            tenant=tenant,
            user=noise.choice("xyz") if tenant == "a" else "",
            tier=noise.choice(TIERS),
            model=f"m{noise.randrange(models)}",
            cost_s=round(noise.uniform(1.0, 20.0), 3),
        )
        world.tell(job)
        chance = noise.random()
        if chance < 0.4:
            world.step()
        elif chance < 0.43:
            world.tell(JobCancelled(noise.choice([*world.jobs])))
        elif chance < 0.45 and world.ends:
            _, _, failed = world.ends.pop(0)
            heapq.heapify(world.ends)
            world.tell(AttemptFailed(failed, "it broke", is_retryable=True))
        world.ends = [it for it in world.ends if it[2] in world.line._running]
        heapq.heapify(world.ends)
    return world


@pytest.mark.parametrize("loads", [False, True], ids=["warm", "loading"])
@pytest.mark.parametrize("seed", range(12))
def test_the_line_played_forward_starts_whom_the_line_starts(seed: int, loads: bool) -> None:
    noise = random.Random(seed)
    world = busy(noise, jobs=160, models=3, loads=loads)
    told = [
        (one.entry.job.job_id, one.engine, round(world.now + one.at_s, 6))
        for one in world.forecast(1_000)._play.starts
    ]
    assert len(told) == world.line.waiting > 20
    before = len(world.starts)
    while world.ends or world.loads:
        world.step()
    assert world.starts[before:] == told


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_line_starts_the_same_until_it_is_cut(seed: int) -> None:
    world = busy(random.Random(seed), jobs=2_000, models=2, loads=True)
    forecast = world.forecast(60)
    told = [one.entry.job.job_id for one in forecast._play.starts]
    assert 20 < len(told) <= 60
    assert len(forecast._play.stuck) < 400, "more was copied than can start"
    before = len(world.starts)
    while len(world.starts) < before + len(told):
        world.step()
    starts = [job for job, _, _ in world.starts[before : before + len(told)]]
    assert starts[:30] == told[:30]
    # Who lies just behind a cut can come a little sooner: none of the others is far from its place.
    assert len(set(starts) - set(told)) <= 2


def test_a_forecast_changes_nothing() -> None:
    world, twin = (busy(random.Random(3), jobs=160, models=3, loads=True) for _ in range(2))
    for _ in range(3):
        world.forecast()
    while world.ends or world.loads:
        world.step()
        twin.step()
    assert world.starts == twin.starts
    assert world.line.standing() == twin.line.standing()


def test_a_line_too_long_to_play_is_extrapolated_and_says_so() -> None:
    world = World()
    world.tell(up())
    for at in range(3_001):
        world.tell(queued(f"j{at}", cost_s=2.0))
    forecast = world.forecast()
    near, far = forecast.of("j100"), forecast.of("j3000")
    assert near is not None
    assert (near.is_extrapolated, near.start_s, near.done_s) == (False, 200.0, 202.0)
    assert far is not None
    assert far.is_extrapolated
    assert far.start_s == pytest.approx(6_000.0, rel=0.01)
    assert far.reason == "2,999 jobs ahead"
    assert len(forecast._play.stuck) <= 2 * limits.FORECAST_STARTS_MAX


def test_rows_that_share_an_engine_slow_each_other() -> None:
    line = Line()
    line.on(up(rows=2), 0.0)
    for name in ("a", "b", "c"):
        line.on(queued(name, cost_s=10.0), 0.0)
    forecast = Forecast(line, present(), 0.0)
    assert [forecast.of(name).done_s for name in "abc"] == [20.0, 20.0, 30.0]  # type: ignore[union-attr]


# What a job waits for


def outlook(line: Line, job: str, of: Present | None = None, now: float = 0.0) -> Outlook:
    found = Forecast(line, of or present(), now).of(job)
    assert found is not None
    return found


def waiting(*jobs: PolicyEvent, engine: EngineUp | None = None) -> Line:
    line = Line()
    if engine is not None:
        line.on(engine, 0.0)
    for job in jobs:
        line.on(job, 0.0)
    return line


def test_jobs_ahead_are_told_by_tier() -> None:
    turbo = [queued(f"t{at}", tier=Tier.TURBO, tenant="bob", cost_s=5.0) for at in range(3)]
    line = waiting(*turbo, queued("mine", cost_s=1.0), engine=up())
    assert outlook(line, "mine").reason == "it is next: the engines are busy for about 5 s"
    assert outlook(line, "t1").reason == "1 fast job ahead"
    line.on(queued("fast", tier=Tier.FAST, tenant="cid"), 0.0)
    last = outlook(line, "t2")
    assert last.reason == "1 turbo and 2 fast jobs ahead"
    assert (last.position, last.start_s) == (4, 12.0)


def test_whoever_uses_their_share_is_told_so() -> None:
    mine = [queued(f"m{at}", tenant="ann", cost_s=10.0) for at in range(5)]
    others = [queued(f"o{at}", tenant=f"t{at}", cost_s=1.0) for at in range(4)]
    line = waiting(*mine, *others, engine=up())
    first, last = outlook(line, "m1"), outlook(line, "m4")
    assert first.reason == "your jobs use their share: 4 fast jobs ahead"
    assert last.reason == "your jobs use their share: 3 jobs of yours ahead"


def test_a_model_that_loads_is_told_with_what_is_left() -> None:
    line = waiting(needs("x", load_s=12.0), needs("y", load_s=LOAD_S), engine=up(models=(), most=1))
    line.on(queued("a", model="x"), 0.0)
    line.on(queued("b", model="y"), 0.0)
    loading = outlook(line, "a")
    assert loading.reason == "its model is loading, about 12 s left"
    assert (loading.position, loading.start_s, loading.done_s) == (1, 12.0, 13.0)
    assert outlook(line, "a", now=5.0).reason == "its model is loading, about 7 s left"
    behind = outlook(line, "b")
    assert behind.reason == (
        "your jobs use their share: 1 job of yours ahead, then "
        "its model has to be loaded, about 3 s"
    )
    assert behind.done_s == 13.0 + LOAD_S + 1.0


def test_an_engine_that_starts_is_told_with_what_is_left() -> None:
    line = waiting(queued("a"), queued("b"))
    starting = outlook(line, "a", present(Coming(up(rows=1), 8.0)))
    assert starting.reason == "an engine is starting, about 8 s left"
    assert starting.start_s == 8.0
    assert outlook(line, "b", present(Coming(up(rows=1), 8.0))).start_s == 9.0
    assert outlook(line, "a") == Outlook(1, None, None, "no engine is up")


def test_a_model_that_no_engine_has_is_told() -> None:
    line = waiting(queued("a", model="gone"), queued("b"), engine=up())
    assert outlook(line, "a") == Outlook(1, None, None, "no engine at work has gone")


def test_a_job_that_is_over_has_no_outlook() -> None:
    line = waiting(queued("a"), engine=up())
    line.on(JobSettled("a", 1.0), 1.0)
    assert Forecast(line, present(), 1.0).of("a") is None


# Ranges

RUNS, WAITS = (Case("m", Tier.FAST, outlook) for outlook in ("runs", "waits"))


def told(
    ranges: Ranges, noise: random.Random, jobs: int, error: float
) -> Iterator[tuple[bool, bool]]:
    """Jobs one after the other, off by a lognormal error; whether each was done by P50, by P90."""
    now = 0.0
    for at in range(jobs):
        it = ranges.range(WAITS, 10.0)
        ranges.told(f"j{at}", WAITS, 10.0, now)
        took_s = 10.0 * noise.lognormvariate(0.3, error)
        now += took_s
        ranges.done(f"j{at}", now)
        yield took_s <= it.p50_s, took_s <= it.p90_s


@pytest.mark.parametrize("error", [0.05, 0.3, 1.0])
def test_half_are_done_by_p50_and_nine_of_ten_by_p90_whatever_the_error(error: float) -> None:
    hits = list(told(Ranges(), random.Random(1), 3_000, error))
    by_p50, by_p90 = (sum(hit[at] for hit in hits) / len(hits) for at in (0, 1))
    assert by_p50 == pytest.approx(0.5, abs=0.02)
    assert by_p90 == pytest.approx(0.9, abs=0.02)


def test_a_range_says_what_it_is_from() -> None:
    ranges = Ranges()
    first = ranges.range(WAITS, 10.0)
    assert (first.p50_s, first.p90_s) == tuple(10.0 * each for each in PRIOR["waits"])
    assert first.basis == "prior"
    list(told(ranges, random.Random(1), limits.ETA_SEEN_MIN, 0.3))
    assert ranges.range(WAITS, 10.0).basis == "recipe"
    assert ranges.range(WAITS._replace(recipe="other"), 10.0).basis == "tier"
    assert ranges.range(WAITS._replace(tier=Tier.RELAX), 10.0).basis == "prior"
    assert ranges.range(RUNS, 10.0).basis == "prior"


def test_a_time_that_passed_is_a_miss_at_once_and_only_one() -> None:
    ranges = Ranges()
    ranges.told("a", RUNS, 10.0, 0.0)
    before = ranges.kept()["fast runs m"]
    ranges.pass_to(100.0)
    late = ranges.kept()["fast runs m"]
    assert late[0] > before[0]
    assert late[1] > before[1]
    ranges.done("a", 200.0)
    assert ranges.kept()["fast runs m"] == late
    ranges.told("b", RUNS, 10.0, 200.0)
    ranges.forget("b")
    ranges.pass_to(1_000.0)
    assert ranges.kept()["fast runs m"][:2] == late[:2]


def test_ranges_outlive_a_restart_and_are_bounded() -> None:
    ranges = Ranges()
    list(told(ranges, random.Random(1), 50, 0.3))
    again = Ranges(json.loads(json.dumps(ranges.kept())))
    mine, its = (it.range(WAITS, 10.0) for it in (ranges, again))
    assert (mine.p50_s, mine.p90_s) == pytest.approx((its.p50_s, its.p90_s), rel=1e-4)
    for at in range(3 * limits.ETA_RECIPES_KEPT_MAX):
        ranges.told(f"x{at}", Case(f"m{at}", Tier.FAST, "runs"), 1.0, 1e6)
    assert len(ranges.kept()) == limits.ETA_RECIPES_KEPT_MAX


def test_an_engine_that_comes_up_again_ends_what_it_runs_before() -> None:
    """One that was paused: silent, or drained. Nothing that runs there is lost for it."""
    world = World()
    world.tell(up())
    for name in ("long", "next", "last"):
        world.tell(queued(name, cost_s=10.0))
    world.tell(EnginePaused("e0"))
    played = Forecast(world.line, present(Coming(up(), 1.0, "it is silent")), world.now)
    outlooks = [played.of(name) for name in ("long", "next", "last")]
    assert [one.done_s for one in outlooks if one] == [10.0, 20.0, 30.0]
    assert [one.reason for one in outlooks if one] == [
        "it is drawn",
        "it is silent",
        "it is silent",
    ]


def test_while_nothing_is_started_the_reason_is_all_that_is_told() -> None:
    world = World()
    world.tell(up())
    world.tell(queued("a"))
    world.tell(StartsBounded(0))
    world.tell(queued("b"))
    of = replace(present(), stopped="pictures can't be judged now")
    played = Forecast(world.line, of, world.now)
    assert played.of("b") == Outlook(1, None, None, "pictures can't be judged now")
    running = played.of("a")
    assert running is not None
    assert (running.reason, running.position) == ("it is drawn", None)
