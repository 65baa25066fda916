"""The batch policy: whose forwards share the next pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.cost import Curve
from calotype.core.errors import InternalError
from calotype.core.limits import ENGINE_ROWS_MAX, ROW_WAITS_PASSES_MAX
from calotype.core.nouns import TIER_WEIGHTS
from calotype.policy.batch import (
    BUCKETS,
    STRETCH,
    BatchPolicy,
    RowAdded,
    RunPass,
    bucket_candidates,
)

TURBO, FAST, RELAX = 10, 5, 1
LINEAR = Curve((2, 4, 8), (2.0, 4.0, 8.0))  # batching brings nothing
FLAT = Curve((2, 4, 8, 16), (1.0, 1.02, 1.05, 1.3))  # as a GPU with small pictures
ONE_CORE = Curve((2, 4, 8), (0.0286, 0.0479, 0.0905))  # vignette, 128 px: measured, as the next
TWO_CORES = Curve((2, 4, 8, 16), (0.0333, 0.0473, 0.0681, 0.1195))
STRETCHES = {weight: STRETCH[tier] for tier, weight in TIER_WEIGHTS.items()}
CURVES = (LINEAR, FLAT, ONE_CORE, TWO_CORES)


def row(name: str, key: str = "small", **changes: object) -> RowAdded:
    fields = {"forwards": 2, "weight": FAST, "curve": TWO_CORES, **changes}
    fields.setdefault("stretch", STRETCHES[fields["weight"]])  # type: ignore[index]
    return RowAdded(row=name, key=key, **fields)  # type: ignore[arg-type]


def rows(count: int, name: str, key: str = "small", **changes: object) -> list[RowAdded]:
    return [row(f"{name}{at}", key, **changes) for at in range(count)]


def times(curve: Curve, factor: float) -> Curve:
    return Curve(curve.buckets, tuple(factor * one for one in curve.pass_s))


@dataclass
class Device:
    """Runs what the policy decides; its time is what the curves say."""

    policy: BatchPolicy = field(default_factory=BatchPolicy)
    held: dict[str, RowAdded] = field(default_factory=dict)
    now_s: float = 0.0
    had_s: dict[int, float] = field(default_factory=dict)  # device-seconds by weight
    steps: Counter[str] = field(default_factory=Counter)
    stepped_at: dict[str, float] = field(default_factory=dict)  # end of the last step, or arrival

    def add(self, *added: RowAdded) -> Device:
        for one in added:
            self.policy.add(one)
            self.held[one.row] = one
            self.stepped_at[one.row] = self.now_s
        return self

    def drop(self, name: str) -> None:
        self.policy.drop(name)
        del self.held[name]

    def run(self) -> RunPass:
        chosen = self.policy.decide()
        assert chosen is not None
        forwards = sum(self.held[name].forwards for name in chosen.rows)
        pass_s = self.held[chosen.rows[0]].curve.seconds(forwards)
        self.now_s += pass_s
        for name in chosen.rows:
            one = self.held[name]
            had_s = self.had_s.get(one.weight, 0.0)
            self.had_s[one.weight] = had_s + pass_s * one.forwards / forwards
            self.steps[name] += 1
            self.stepped_at[name] = self.now_s
        return chosen

    def run_until(self, name: str, steps: int) -> float:
        """Until the row has had so many steps; the seconds that took."""
        began_s = self.now_s
        while self.steps[name] < steps:
            self.run()
        return self.now_s - began_s


def test_nothing_to_do_without_rows() -> None:
    assert BatchPolicy().decide() is None


def test_a_lone_guided_row_takes_the_smallest_bucket_that_holds_its_two_forwards() -> None:
    chosen = Device().add(row("a")).run()
    assert (chosen.rows, chosen.bucket) == (("a",), 2)


def test_guided_and_unguided_rows_of_one_key_share_a_pass() -> None:
    chosen = Device().add(row("a"), row("b", forwards=1)).run()
    assert (chosen.rows, chosen.bucket) == (("a", "b"), 4)


def test_rows_of_different_keys_never_share_a_pass_and_take_turns() -> None:
    device = Device().add(row("a", "small"), row("b", "large"))
    assert [device.run().rows for _ in range(4)] == [("a",), ("b",), ("a",), ("b",)]


def test_more_rows_than_a_pass_holds_rotate_evenly() -> None:
    device = Device().add(*rows(6, "r", curve=ONE_CORE))
    for _ in range(60):
        device.run()
    assert max(device.steps.values()) - min(device.steps.values()) <= 1


@pytest.mark.parametrize(
    ("curve", "count", "bucket"),
    [
        (LINEAR, 8, 2),  # no gain: the shortest pass
        (FLAT, 8, 16),
        (ONE_CORE, 8, 4),  # 8 would be 6 % sooner through, in passes nearly twice as long
        (TWO_CORES, 8, 16),
        (TWO_CORES, 4, 8),
        (FLAT, 3, 8),
        (Curve((2, 4), (1.0, 1.9)), 2, 2),
        (Curve((2, 4, 8), (1.0, 3.0, 2.9)), 8, 8),  # a hole in the curve
    ],
)
def test_a_pass_is_as_large_as_pays(curve: Curve, count: int, bucket: int) -> None:
    assert Device().add(*rows(count, "r", curve=curve)).run().bucket == bucket


def test_a_key_with_large_pictures_gets_as_much_device_time_not_as_many_steps() -> None:
    device = Device().add(row("small"), row("large", "large", curve=times(TWO_CORES, 4)))
    for _ in range(50):
        device.run()
    assert device.steps["small"] == pytest.approx(4 * device.steps["large"], abs=4)


@pytest.mark.parametrize("keys", [("k", "k", "k"), ("a", "b", "c")])
@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 3, 12), (8, 4, 4)])
def test_device_time_is_shared_by_tier_not_by_rows(
    counts: tuple[int, int, int], keys: tuple[str, str, str]
) -> None:
    device = Device()
    for weight, count, key in zip((TURBO, FAST, RELAX), counts, keys, strict=True):
        device.add(*rows(count, f"w{weight}-", key, weight=weight, curve=LINEAR))
    for _ in range(1_600):
        device.run()
    for weight in (TURBO, FAST, RELAX):
        assert device.had_s[weight] / device.now_s == pytest.approx(weight / 16, abs=0.01)


def test_a_turbo_row_takes_the_next_step() -> None:
    device = Device().add(*rows(8, "r", weight=RELAX), *rows(4, "f", "other", weight=FAST))
    for _ in range(100):
        device.run()
    device.add(row("t", weight=TURBO))
    assert device.run().rows == ("t",)


@pytest.mark.parametrize(
    ("curve", "riders"), [(FLAT, 3), (TWO_CORES, 0), (ONE_CORE, 0), (LINEAR, 0)]
)
def test_lighter_rows_ride_with_turbo_only_as_far_as_that_costs_it_little(
    curve: Curve, riders: int
) -> None:
    device = Device().add(row("t", weight=TURBO, curve=curve))
    device.add(*rows(7, "r", weight=RELAX, curve=curve))
    assert len(device.run().rows) == 1 + riders


@pytest.mark.parametrize(
    ("curve", "riders"), [(FLAT, 7), (TWO_CORES, 1), (ONE_CORE, 1), (LINEAR, 0)]
)
def test_relax_rides_with_fast_where_batching_pays(curve: Curve, riders: int) -> None:
    device = Device().add(row("f", weight=FAST, curve=curve))
    device.add(*rows(12, "r", weight=RELAX, curve=curve))
    assert len(device.run().rows) == 1 + riders


def test_lighter_rows_take_room_that_is_paid_for_anyway() -> None:
    device = Device().add(*rows(3, "t", weight=TURBO), row("r", weight=RELAX))
    assert device.run().rows == ("t0", "t1", "t2", "r")


def test_a_row_of_few_seconds_is_not_kept_waiting_by_the_long_passes_of_its_equals() -> None:
    long = [row(f"l{at}", f"k{at}", weight=RELAX, curve=times(LINEAR, 50)) for at in range(4)]
    device = Device().add(row("t", "t", weight=TURBO, curve=LINEAR), *long)
    device.add(row("short", weight=RELAX, curve=LINEAR))
    waits_s = []
    for _ in range(5_000):
        device.run()
        waits_s.append(device.now_s - device.stepped_at["short"])
    # Its share alone would have it wait for a round of the long ones, and turbo's ten times that.
    assert max(waits_s) <= ROW_WAITS_PASSES_MAX * 2.0 + 100.0  # and for a pass that runs already
    assert device.had_s[TURBO] / device.now_s == pytest.approx(10 / 11, abs=0.01)


@pytest.mark.parametrize(("weight", "share"), [(RELAX, 1 / 6), (FAST, 1 / 2), (TURBO, 2 / 3)])
def test_a_stream_of_rows_of_one_step_leaves_a_long_row_its_share(
    weight: int, share: float
) -> None:
    device = Device().add(row("long", "one", weight=weight))
    newcomers = (row(f"short{at}", "two") for at in range(1_000))
    device.add(waiting := next(newcomers))
    for _ in range(600):
        if device.run().rows != ("long",):  # one step was all it wanted, and the next is there
            device.drop(waiting.row)
            device.add(waiting := next(newcomers))
    assert device.steps["long"] == pytest.approx(600 * share, rel=0.02)


def test_a_dropped_row_is_not_chosen_again() -> None:
    device = Device().add(row("a"), row("b"))
    device.drop("a")
    device.policy.drop("never held")
    assert [device.run().rows for _ in range(3)] == [("b",)] * 3
    assert len(device.policy) == 1


def test_where_no_bucket_holds_its_bits_every_row_goes_alone_forward_by_forward() -> None:
    chosen = Device().add(*rows(2, "r", curve=Curve((1,), (1.0,)))).run()
    assert (chosen.rows, chosen.bucket) == (("r0",), 1)


def test_a_row_held_already_or_without_a_cost_is_a_fault() -> None:
    policy = Device().add(row("a")).policy
    with pytest.raises(InternalError, match="held already"):
        policy.add(row("a"))
    for curve in (Curve((), ()), Curve((2,), (0.0,))):
        with pytest.raises(InternalError, match="can't be scheduled"):
            policy.add(row("b", curve=curve))


def test_large_pictures_get_small_buckets() -> None:
    assert bucket_candidates(128, 128) == BUCKETS
    assert bucket_candidates(512, 512) == (2, 4, 8)
    assert bucket_candidates(1024, 1024) == (2,)
    assert bucket_candidates(2048, 2048) == (2,)


# Laws.

LENGTHS = {"k1": 1.0, "k2": 1.0, "k3": 7.0}  # of a key's passes
ROWS = st.lists(
    st.tuples(
        st.sampled_from([*LENGTHS]), st.sampled_from([1, 2]), st.sampled_from([RELAX, FAST, TURBO])
    ),
    min_size=1,
    max_size=ENGINE_ROWS_MAX,
)


def added(drawn: list[tuple[str, int, int]], curve: Curve) -> list[RowAdded]:
    return [
        row(f"r{i}", key, forwards=forwards, weight=weight, curve=times(curve, LENGTHS[key]))
        for i, (key, forwards, weight) in enumerate(drawn)
    ]


@settings(deadline=None, max_examples=40)
@given(ROWS, st.sampled_from(CURVES))
def test_every_pass_is_sound_and_no_row_waits_past_its_bound(
    drawn: list[tuple[str, int, int]], curve: Curve
) -> None:
    device = Device().add(*added(drawn, curve))
    longest_s = max(one.curve.pass_s[-1] for one in device.held.values())
    for _ in range(600):
        chosen = device.run()
        assert chosen.rows, "it conserves work"
        assert {device.held[name].key for name in chosen.rows} == {chosen.key}
        assert len(set(chosen.rows)) == len(chosen.rows)
        assert sum(device.held[name].forwards for name in chosen.rows) <= chosen.bucket
        for name, one in device.held.items():
            # Overdue, it goes before all but those who were so before it; one pass runs already.
            bound_s = ROW_WAITS_PASSES_MAX * one.curve.seconds(one.forwards)
            waited_s = device.now_s - device.stepped_at[name]
            assert waited_s <= bound_s + (len(device.held) + 1) * longest_s


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["k1", "k2"]), st.sampled_from([1, 2])), max_size=15),
    st.sampled_from(CURVES),
    st.integers(0, 200),
    st.integers(4, 60),
)
def test_relax_slows_turbo_by_less_than_a_third_after_the_pass_that_runs(
    relax: list[tuple[str, int]], curve: Curve, passes: int, steps: int
) -> None:
    device = Device().add(*added([(key, count, RELAX) for key, count in relax], curve))
    for _ in range(passes if relax else 0):
        device.run()
    device.add(row("t", "k1", weight=TURBO, curve=curve))
    took_s = device.run_until("t", steps)
    assert took_s <= 1.3 * steps * curve.seconds(2)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["k1", "k2"]), st.sampled_from([1, 2])), max_size=15),
    st.sampled_from(CURVES),
    st.integers(4, 60),
)
def test_relax_may_double_the_time_of_fast_and_no_more(
    relax: list[tuple[str, int]], curve: Curve, steps: int
) -> None:
    """By a share of a sixth, and by passes that are three quarters longer."""
    device = Device().add(*added([(key, count, RELAX) for key, count in relax], curve))
    device.add(row("f", "k1", weight=FAST, curve=curve))
    took_s = device.run_until("f", steps)
    assert took_s <= 2.1 * steps * curve.seconds(2) + curve.pass_s[-1]


@settings(deadline=None, max_examples=30)
@given(ROWS, ROWS, st.sampled_from(CURVES), st.integers(0, 50))
def test_the_same_rows_give_the_same_turns(
    drawn: list[tuple[str, int, int]],
    later: list[tuple[str, int, int]],
    curve: Curve,
    passes: int,
) -> None:
    def turns() -> list[RunPass]:
        device = Device().add(*added(drawn, curve))
        heard = [device.run() for _ in range(passes)]
        device.drop("r0")
        names = [f"s{i}" for i in range(len(later))]
        new = zip(names, added(later, curve), strict=True)
        device.add(*(replace(it, row=name) for name, it in new))
        return heard + [device.run() for _ in range(50)]

    assert turns() == turns()
