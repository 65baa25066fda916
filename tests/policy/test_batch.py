"""The batch policy: whose forwards share the next pass."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.errors import InternalError
from calotype.policy.batch import BUCKETS, BatchPolicy, RowAdded, bucket_candidates


def row(name: str, key: str = "small", **changes: object) -> RowAdded:
    fields = {"forwards": 2, "cost": 1.0, "weight": 5, "buckets": (2, 4, 8), **changes}
    return RowAdded(row=name, key=key, **fields)  # type: ignore[arg-type]


def policy_with(*rows: RowAdded) -> BatchPolicy:
    policy = BatchPolicy()
    for added in rows:
        policy.add(added)
    return policy


def steps_taken(policy: BatchPolicy, passes: int) -> Counter[str]:
    taken: Counter[str] = Counter()
    for _ in range(passes):
        chosen = policy.decide()
        assert chosen is not None
        taken.update(chosen.rows)
    return taken


def test_nothing_to_do_without_rows() -> None:
    assert BatchPolicy().decide() is None


def test_a_lone_guided_row_takes_the_smallest_bucket_that_holds_its_two_forwards() -> None:
    chosen = policy_with(row("a")).decide()
    assert chosen is not None
    assert (chosen.rows, chosen.bucket) == (("a",), 2)


def test_guided_and_unguided_rows_of_one_key_share_a_pass() -> None:
    chosen = policy_with(row("a"), row("b", forwards=1)).decide()
    assert chosen is not None
    assert (chosen.rows, chosen.bucket) == (("a", "b"), 4)


def test_rows_of_different_keys_never_share_a_pass_and_take_turns() -> None:
    policy = policy_with(row("a", "small"), row("b", "large"))
    turns = [policy.decide() for _ in range(4)]
    assert [turn.rows for turn in turns if turn] == [("a",), ("b",), ("a",), ("b",)]


def test_more_rows_than_a_pass_holds_rotate_evenly() -> None:
    names = [f"r{index}" for index in range(6)]
    taken = steps_taken(policy_with(*map(row, names)), passes=30)
    assert set(taken.values()) == {20}


def test_a_key_with_large_pictures_gets_as_much_device_time_not_as_many_steps() -> None:
    policy = policy_with(row("small", "small", cost=1.0), row("large", "large", cost=4.0))
    taken = steps_taken(policy, passes=50)
    assert taken["small"] == pytest.approx(4 * taken["large"], abs=4)


def test_turbo_takes_ten_steps_for_one_of_relax_when_they_cannot_share() -> None:
    policy = policy_with(row("t", "one", weight=10), row("r", "two", weight=1))
    taken = steps_taken(policy, passes=110)
    assert taken == {"t": 100, "r": 10}


def test_a_newcomer_neither_waits_for_nor_overtakes_those_who_have_run_long() -> None:
    policy = policy_with(row("old", "one"))
    steps_taken(policy, passes=100)
    policy.add(row("new", "two"))
    taken = steps_taken(policy, passes=20)
    assert taken["old"] == pytest.approx(taken["new"], abs=2)


@pytest.mark.parametrize(("weight", "share"), [(1, 1 / 6), (5, 1 / 2), (10, 2 / 3)])
def test_a_stream_of_rows_of_one_step_leaves_a_long_row_its_share(
    weight: int, share: float
) -> None:
    policy = policy_with(row("long", "one", weight=weight))
    newcomers = (row(f"short{at}", "two", weight=5) for at in range(1_000))
    policy.add(waiting := next(newcomers))
    taken = 0
    for _ in range(600):
        chosen = policy.decide()
        assert chosen is not None
        if chosen.rows == ("long",):
            taken += 1
        else:  # one step was all it wanted, and the next is there at once
            policy.drop(waiting.row)
            policy.add(waiting := next(newcomers))
    assert taken == pytest.approx(600 * share, rel=0.02)


def test_a_dropped_row_is_not_chosen_again() -> None:
    policy = policy_with(row("a"), row("b"))
    policy.drop("a")
    policy.drop("never held")
    assert steps_taken(policy, passes=3) == {"b": 3}
    assert len(policy) == 1


def test_where_no_bucket_holds_its_bits_every_row_goes_alone_forward_by_forward() -> None:
    policy = policy_with(row("a", buckets=(1,)), row("b", buckets=(1,)))
    chosen = policy.decide()
    assert chosen is not None
    assert (chosen.rows, chosen.bucket) == (("a",), 1)


def test_a_row_held_already_or_without_a_cost_is_a_fault() -> None:
    policy = policy_with(row("a"))
    with pytest.raises(InternalError, match="held already"):
        policy.add(row("a"))
    with pytest.raises(InternalError, match="can't be scheduled"):
        policy.add(row("b", cost=0.0))


def test_large_pictures_get_small_buckets() -> None:
    assert bucket_candidates(128, 128) == BUCKETS
    assert bucket_candidates(1024, 1024) == (2,)
    assert bucket_candidates(2048, 2048) == (2,)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["k1", "k2", "k3"]),
        st.sampled_from([1, 2]),
        st.sampled_from([0.5, 1.0]),
        st.sampled_from([1, 5, 10]),
    ),
    min_size=1,
    max_size=16,
)


@settings(deadline=None, max_examples=50)
@given(ROWS)
def test_every_pass_fits_its_bucket_has_one_key_and_no_row_starves(
    rows: list[tuple[str, int, float, int]],
) -> None:
    added = {
        f"r{i}": row(f"r{i}", key, forwards=forwards, cost=cost, weight=weight)
        for i, (key, forwards, cost, weight) in enumerate(rows)
    }
    policy = policy_with(*added.values())
    steps_taken(policy, passes=32)  # past the first round, in which all stand equal
    seen: set[str] = set()
    for _ in range(700):  # strides are 0.05 to 2, so 15 rows can go first 40 times each
        chosen = policy.decide()
        assert chosen is not None
        assert {added[name].key for name in chosen.rows} == {chosen.key}
        assert len(set(chosen.rows)) == len(chosen.rows)
        assert sum(added[name].forwards for name in chosen.rows) <= chosen.bucket
        seen.update(chosen.rows)
        if seen == added.keys():
            return
    pytest.fail(f"never chosen: {sorted(added.keys() - seen)}")
