"""Engines that are taken away: nothing new starts there, and what doesn't end in time goes on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.decisions import FailJob, HandBack, RequeueJob, ReturnJob, StartAttempt
from calotype.core.events import (
    AttemptFailed,
    EngineGone,
    EngineNotice,
    EngineResumed,
    EngineUp,
    JobCancelled,
    JobHandedBack,
    JobSettled,
    PolicyEvent,
    TimePassed,
)
from calotype.core.limits import ATTEMPTS_MAX, HAND_BACK_S
from calotype.core.nouns import Tier
from calotype.policy.fork import fork
from calotype.policy.notices import Notices
from tests.policy.fleet import Fleet, queued

SAID = "e0 is being taken away"
STAYS = "stays"  # waits all the while, so that its tenant isn't a new one when others come back


def waited_for() -> Fleet:
    fleet = Fleet()
    fleet.feed(queued(STAYS, model="nowhere"))
    return fleet


def noticed(*jobs: str, until: float = 120.0) -> Fleet:
    """An engine that runs these jobs and has had notice."""
    fleet = waited_for()
    fleet.up("e0", rows_max=8)
    for job in jobs:
        fleet.feed(queued(job, cost_s=30.0))
    assert fleet.feed(EngineNotice("e0", until)) == []
    return fleet


def test_an_engine_that_had_notice_gets_nothing_new_and_ends_what_ends_in_time() -> None:
    fleet = noticed("a", "b")
    assert fleet.feed(queued("late")) == []
    fleet.now = 50.0
    assert fleet.feed(JobSettled("a", 30.0)) == [], "it has room, but it goes"
    assert fleet.line.next_deadline() == 120.0 - HAND_BACK_S
    fleet.now = 120.0 - HAND_BACK_S
    assert fleet.feed(TimePassed()) == [HandBack("b", "e0")]
    assert fleet.feed(TimePassed()) == [], "it is told once"
    assert fleet.line.next_deadline() is None


def test_a_short_notice_hands_back_at_once() -> None:
    fleet = Fleet()
    fleet.up("e0")
    fleet.feed(queued("a"))
    assert fleet.feed(EngineNotice("e0", HAND_BACK_S / 2)) == [HandBack("a", "e0")]


def test_of_two_notices_the_earlier_counts_and_none_is_obeyed_twice() -> None:
    fleet = noticed("a", until=300.0)
    fleet.feed(EngineNotice("e0", 120.0))
    fleet.feed(EngineNotice("e0", 500.0))
    fleet.now = 120.0 - HAND_BACK_S
    assert fleet.feed(TimePassed()) == [HandBack("a", "e0")]
    assert fleet.feed(EngineNotice("e0", 100.0)) == []


def test_a_job_that_was_handed_back_goes_on_elsewhere_at_its_old_place() -> None:
    fleet = noticed("a")
    fleet.feed(queued("later"))
    assert fleet.feed(JobHandedBack("a", 10.0, 20.0)) == [ReturnJob("a", SAID)]
    assert fleet.line.position("a") == 2, "behind the one that stays: it came first"
    fleet.up("e1")
    assert fleet.running == {"a": "e1"}


def test_it_is_charged_what_it_used_and_then_what_is_left() -> None:
    fleet = noticed("a")
    fleet.feed(JobHandedBack("a", 10.0, 20.0))
    waits = charged(fleet)
    fleet.up("e1")
    fleet.feed(JobSettled("a", 35.0))  # measured on both
    assert [waits, charged(fleet)] == pytest.approx([10.0, 35.0])


def test_nothing_stays_charged_of_a_job_that_fails_though_it_was_handed_back_before() -> None:
    fleet = noticed("a", "b", "c")
    for job in "abc":
        fleet.feed(JobHandedBack(job, 10.0, 20.0))
    fleet.up("e1", rows_max=2)
    assert charged(fleet) == pytest.approx(3 * 10.0 + 2 * 20.0)
    fleet.feed(JobCancelled("c"))  # given up while it waited
    fleet.feed(JobSettled("c", 0.0))
    assert charged(fleet) == pytest.approx(2 * 30.0)
    fleet.feed(AttemptFailed("a", "no such file", is_retryable=False))
    assert charged(fleet) == pytest.approx(30.0), "b's"


def test_what_is_begun_from_nothing_is_charged_once() -> None:
    fleet = noticed("a")
    fleet.feed(JobHandedBack("a", 10.0, 20.0))
    fleet.up("e1")
    fleet.up("e2")
    fleet.feed(AttemptFailed("a", "its numbers ran away", is_retryable=True))
    assert charged(fleet) == pytest.approx(30.0)
    fleet.feed(JobSettled("a", 28.0))
    assert charged(fleet) == pytest.approx(28.0)


def test_a_restart_charges_for_nothing_that_was_handed_back_since_it_begins_again() -> None:
    fleet = noticed("a", "b")
    fleet.feed(JobHandedBack("a", 10.0, 20.0))
    fleet.feed(JobHandedBack("b", 10.0, 20.0))
    fleet.up("e1")
    assert charged(fleet) == pytest.approx(10.0 + 20.0 + 10.0)
    tenants = fleet.line.standing()["tiers"]["fast"]["tenants"]
    assert tenants["ann"][0] == 0


def test_what_starts_again_is_weighed_by_what_is_left() -> None:
    """Of two tenants, the one whose job came back nearly done is charged little for the rest."""
    fleet = noticed("a")
    fleet.feed(JobHandedBack("a", 28.0, 2.0))
    fleet.up("e1", rows_max=1)
    [entry] = fork(fleet.line, 8).running
    assert entry.cost == 2_000_000
    assert entry.whole == 30_000_000


def test_being_handed_back_is_no_failed_attempt_however_often() -> None:
    fleet = Fleet()
    fleet.feed(queued("a"))
    for at in range(3 * ATTEMPTS_MAX):
        fleet.up(f"e{at}")
        fleet.feed(EngineNotice(f"e{at}", fleet.now))
        fleet.feed(JobHandedBack("a", 0.1, 0.9))
        fleet.feed(EngineGone(f"e{at}"))
    fleet.up("last")
    assert fleet.running == {"a": "last"}
    decisions = fleet.feed(AttemptFailed("a", "out of memory", is_retryable=True))
    assert decisions[0] == RequeueJob("a", "out of memory"), "its first failure"


def test_an_engine_that_goes_before_it_handed_back_costs_no_attempt_either() -> None:
    fleet = noticed("a", "b")
    decisions = fleet.feed(EngineGone("e0", "its machine is off"))
    said = "e0 is gone: its machine is off"
    assert decisions == [ReturnJob("a", said), ReturnJob("b", said)]
    fleet.up("e1", rows_max=8)
    assert fleet.running == {"a": "e1", "b": "e1"}
    assert [one.cost for one in fork(fleet.line, 8).running] == [30_000_000] * 2, "all of it again"


def test_an_engine_that_dies_later_brings_a_job_back_to_what_was_kept() -> None:
    fleet = noticed("a")
    fleet.feed(JobHandedBack("a", 10.0, 20.0))
    fleet.up("e1")
    fleet.feed(EngineGone("e1"))
    fleet.up("e2")
    [entry] = fork(fleet.line, 8).running
    assert (entry.cost, entry.attempt, entry.deaths) == (20_000_000, 2, 1)


def test_an_attempt_that_fails_begins_from_nothing() -> None:
    fleet = noticed("a")
    fleet.feed(JobHandedBack("a", 10.0, 20.0))
    fleet.up("e1")
    fleet.up("e2")
    fleet.feed(AttemptFailed("a", "its numbers ran away", is_retryable=True))
    [entry] = fork(fleet.line, 8).running
    assert (entry.cost, entry.engine) == (30_000_000, "e2")


def test_no_sign_of_life_takes_a_notice_back_but_a_new_process_does() -> None:
    fleet = noticed()
    fleet.feed(EngineResumed("e0"))
    assert fleet.feed(queued("a")) == []
    assert fleet.feed(EngineUp("e0", ("m",), 1)) == [StartAttempt("a", "e0")]
    fleet.now = 300.0
    assert fleet.feed(TimePassed()) == []


def test_word_of_what_is_not_there_changes_nothing() -> None:
    fleet = noticed("a")
    for event in (EngineNotice("e7", 5.0), JobHandedBack("z", 1.0, 1.0)):
        assert fleet.feed(event) == []
    fleet.feed(JobCancelled("a"))
    assert fleet.line.on(JobHandedBack("a", 1.0, 1.0), fleet.now) == []
    fleet.now = 200.0
    assert fleet.feed(TimePassed()) == [], "nothing runs there any more"


def test_a_forecast_leaves_the_notices_of_the_line_alone() -> None:
    fleet = noticed("a")
    fork(fleet.line, 8).line.on(TimePassed(), 200.0)
    fleet.now = 200.0
    assert fleet.feed(TimePassed()) == [HandBack("a", "e0")]


def test_notices_are_due_in_the_order_they_were_given() -> None:
    notices = Notices()
    notices.given("late", 400.0)
    notices.given("b", 100.0)
    notices.given("a", 90.0)
    assert notices.next_deadline() == 90.0 - HAND_BACK_S
    assert notices.due(100.0) == ["b", "a"]
    assert [notices.over("a"), notices.over("a")] == [True, False]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["job", "up", "notice", "back", "end", "gone", "fail", "time"]),
        st.integers(0, 5),
    ),
    max_size=80,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_no_job_is_lost_whatever_comes_and_goes(steps: list[tuple[str, int]]) -> None:
    """The fleet's laws hold after each event, and in the end a new engine runs all that is left."""
    fleet = Fleet()
    for at, (what, number) in enumerate(steps):
        fleet.now += number * 7.0
        name, running = f"e{number}", list(fleet.running)
        event: PolicyEvent = TimePassed()
        match what:
            case "job":
                event = queued(f"j{at}", rows=1 + number % 3, tier=list(Tier)[number % 3])
            case "up":
                event = EngineUp(name, ("m",), 4)
            case "notice":
                event = EngineNotice(name, fleet.now + 30.0)
            case "gone":
                event = EngineGone(name)
            case "back" if running:
                event = JobHandedBack(running[number % len(running)], 0.2, 0.8)
            case "end" if running:
                event = JobSettled(running[number % len(running)], 1.0)
            case "fail" if running:
                event = AttemptFailed(running[number % len(running)], "it broke", is_retryable=True)
        fleet.feed(event)
    for number in range(6):
        fleet.feed(EngineGone(f"e{number}"))
    fleet.up("last", rows_max=1_000)
    while fleet.running:
        fleet.feed(JobSettled(next(iter(fleet.running)), 1.0))
    assert not fleet.jobs, "some job waits though an idle engine has its model"


WHAT = ("notice", "back", "fail", "poison", "die", "end", "cancel")
ENDS = st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 9)), max_size=40)


@given(ENDS)
@settings(max_examples=150, deadline=None)
def test_in_the_end_a_tenant_is_charged_what_was_settled_and_nothing_else(
    moves: list[tuple[str, int]],
) -> None:
    fleet, settled_s = waited_for(), 0.0
    fleet.up("e0", rows_max=4)
    for at in range(8):
        fleet.feed(queued(f"j{at}", cost_s=30.0))
    for at, (what, number) in enumerate([*moves, *[("end", 0)] * 8]):
        if not fleet.running:
            fleet.up(f"e{at + 1}", rows_max=4)
        if not fleet.running:
            break
        job = [*fleet.running][number % len(fleet.running)]
        engine = fleet.running[job]
        match what:
            case "notice":
                fleet.feed(EngineNotice(engine, fleet.now + 60.0))
            case "back" if engine in fleet.leaving:
                fleet.feed(JobHandedBack(job, 10.0 + number, 20.0 - number))
            case "fail" | "poison":
                fleet.feed(AttemptFailed(job, "it broke", is_retryable=what == "fail"))
            case "die":
                fleet.feed(EngineGone(engine))
            case "cancel" | "end":
                if what == "cancel":
                    fleet.feed(JobCancelled(job))
                fleet.feed(JobSettled(job, 5.0 + number))
                settled_s += 5.0 + number
    for job in [name for name in fleet.jobs if name != STAYS]:  # the rest is given up
        fleet.feed(JobCancelled(job))
        fleet.feed(JobSettled(job, 0.0))
    assert charged(fleet) == pytest.approx(settled_s, abs=1e-4)


def charged(fleet: Fleet) -> float:
    """Device-seconds that the tenant was charged, whatever runs."""
    tenant = fleet.line._queue._tiers[Tier.FAST].tenants["ann"]  # type: ignore[attr-defined]
    return float(tenant.virtual / 1_000_000)


def test_a_job_that_fails_for_good_is_given_up_wherever_it_was_handed_back_before() -> None:
    fleet = noticed("a")
    fleet.feed(JobHandedBack("a", 10.0, 20.0))
    fleet.up("e1")
    decisions = fleet.feed(AttemptFailed("a", "no such file", is_retryable=False))
    assert decisions == [FailJob("a", "no such file")]
