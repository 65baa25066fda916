"""Jobs whose adapters only large devices hold start there alone; others leave those to them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.decisions import Decision, StartAttempt
from calotype.core.events import AttemptFailed, EngineGone, JobQueued, JobSettled
from calotype.core.nouns import Reserve, Tier
from tests.policy.warm import Pool, needs

MODEL, SMALL, LARGE = 10, 20, 40  # bytes


def large(job_id: str, controls: int = 15, *, tenant: str = "ann") -> JobQueued:
    """A job whose ControlNets take so many bytes beside its model."""
    adapters = (Reserve("controls", controls),)
    return JobQueued(job_id, tenant, Tier.FAST, "m", 1, 1.0, adapters=adapters)


def plain(job_id: str) -> JobQueued:
    return JobQueued(job_id, "bob", Tier.FAST, "m", 1, 1.0)


def mixed(*, rows: int = 1) -> Pool:
    """A small device and a large one, both with the model warm."""
    pool = Pool(needs("m", MODEL))
    pool.up("small", SMALL, ("m",), rows=rows)
    pool.up("large", LARGE, ("m",), rows=rows)
    return pool


def starts(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(it.job_id, it.engine) for it in decisions if isinstance(it, StartAttempt)]


def settled(pool: Pool, job_id: str) -> list[tuple[str, str]]:
    """What starts when a job is over."""
    del pool.running[job_id], pool.jobs[job_id]
    return starts(pool.tell(JobSettled(job_id, 1.0)))


def test_plain_jobs_take_the_small_device_first_and_a_large_one_before_they_share() -> None:
    pool = mixed(rows=4)
    told = [starts(pool.tell(plain(name))) for name in ("a", "b", "c", "d")]
    assert told == [[("a", "small")], [("b", "large")], [("c", "small")], [("d", "small")]]


def test_a_job_whose_adapters_only_a_large_device_holds_waits_for_that_one() -> None:
    pool = mixed()
    assert starts(pool.tell(plain("a"))) == [("a", "small")]
    assert starts(pool.tell(plain("b"))) == [("b", "large")]
    assert not starts(pool.tell(large("c")))
    assert not settled(pool, "a")  # the small one idles, and c doesn't take it
    assert starts(pool.tell(plain("d"))) == [("d", "small")]  # others pass
    assert settled(pool, "b") == [("c", "large")]


def test_what_is_kept_free_for_adapters_counts() -> None:
    pool = Pool(needs("m", MODEL))
    pool.up("small", SMALL, ("m",), reserves=(Reserve("controls", 8),))
    assert starts(pool.tell(large("a", controls=10))) == [("a", "small")]  # 8, 2 beside the model
    assert not settled(pool, "a")
    assert not starts(pool.tell(large("b", controls=11)))


def test_its_model_is_loaded_on_a_large_device_though_a_small_one_has_it_warm() -> None:
    pool = Pool(needs("m", MODEL), needs("x", MODEL))
    pool.up("small", SMALL, ("m",))
    pool.up("large", LARGE, ("x",))
    pool.tell(large("a"))
    assert [(load.engine, load.model) for load in pool.loads] == [("large", "m")]
    pool.run(until=100.0)
    assert not pool.jobs


def test_what_waits_is_sorted_anew_when_another_device_or_need_is_told() -> None:
    pool = Pool(needs("m", MODEL))
    pool.up("large", LARGE, ("m",))
    pool.tell(plain("a"))
    pool.tell(large("b"))  # nothing is too small for it as yet
    assert not starts(pool.up("small", SMALL, ("m",)))
    assert settled(pool, "a") == [("b", "large")]
    assert starts(pool.tell(plain("c"))) == [("c", "small")]
    assert not starts(pool.tell(large("d", controls=8)))  # fits beside the model on either
    assert not starts(pool.tell(needs("m", MODEL, room=5)))  # not now that passes need room
    assert not settled(pool, "c")
    assert settled(pool, "b") == [("d", "large")]


def test_after_a_failure_it_goes_to_another_large_device_or_the_same_but_to_no_small_one() -> None:
    pool = mixed()
    assert starts(pool.tell(large("a"))) == [("a", "large")]
    pool.running.clear()
    told = pool.tell(AttemptFailed("a", "out of memory", is_retryable=True))
    assert starts(told) == [("a", "large")]
    pool.running.clear()
    assert not starts(pool.tell(EngineGone("large")))
    assert starts(pool.up("other", LARGE, ("m",))) == [("a", "other")]


@given(
    st.lists(st.tuples(st.sampled_from("pl"), st.integers(0, 45)), min_size=1, max_size=12),
    st.lists(st.integers(8, 60), min_size=1, max_size=4),
    st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_no_job_starts_where_it_cannot_fit_and_whatever_fits_somewhere_is_done(
    jobs: list[tuple[str, int]], budgets: list[int], rows: int
) -> None:
    pool = Pool(needs("m", MODEL))  # which asserts the first
    for at, budget in enumerate(budgets):
        pool.up(f"e{at}", budget, ("m",) if budget >= MODEL and at % 2 else (), rows=rows)
    wanted = {}
    for at, (what, controls) in enumerate(jobs):
        wanted[f"j{at}"] = controls if what == "l" else 0
        pool.tell(large(f"j{at}", controls) if what == "l" else plain(f"j{at}"))
    pool.run(until=1_000.0)
    for job, controls in wanted.items():
        assert (job not in pool.jobs) == (MODEL + controls <= max(budgets))
