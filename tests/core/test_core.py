"""The nouns' own rules: states, ids, messages, costs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from calotype.core import frames, limits, messages
from calotype.core.cost import CostModel
from calotype.core.errors import IllegalMove, InternalError, InvalidInput
from calotype.core.ids import new_id
from calotype.core.nouns import Sampler, Spec
from calotype.core.states import ATTEMPT_MOVES, ENGINE_MOVES, JOB_MOVES, JobState, move

SPEC = Spec("a tent", "", "vignette", 128, 128, 20, 3.0, Sampler.DDIM, 2**32 - 1, 2)


@pytest.mark.parametrize("table", [JOB_MOVES, ATTEMPT_MOVES, ENGINE_MOVES])
def test_only_moves_of_the_table_are_made(table: Mapping[Any, frozenset[Any]]) -> None:
    states: type[StrEnum] = type(next(iter(table)))
    assert set(table) == set(states)
    for before, after in itertools.product(states, states):
        if after in table[before]:
            assert move(table, before, after) is after
        else:
            with pytest.raises(IllegalMove):
                move(table, before, after)


def test_a_job_ends_once() -> None:
    final = {state for state in JobState if state.is_final}
    assert final == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


def test_ids_sort_by_time_and_are_never_the_same() -> None:
    ids = [new_id("job") for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    stamps = [one[4:14] for one in ids]
    assert stamps == sorted(stamps)
    assert all(len(one) == 30 for one in ids)


def test_each_image_has_the_next_seed_and_wraps_at_the_largest() -> None:
    assert [SPEC.image_seed(index) for index in range(2)] == [2**32 - 1, 0]


def test_a_problem_names_field_and_limit() -> None:
    problem = InvalidInput("n must be 1 to 4", field="n", limit=4).problem()
    assert problem["field"] == "n"
    assert problem["limit"] == 4
    assert problem["status"] == 422
    assert problem["detail"]


ROW = messages.RunRow("j/1/0", "m", "p", "", 128, 128, 20, 3.0, "ddim", 7, "fast")


@pytest.mark.parametrize(
    "message",
    [
        ROW,
        messages.Stop(),
        messages.ModelLoaded("m", 1.5, 10, (2, 4)),
        messages.RowDone("j/1/0", 8, 8, {"finite": 1.0}, 0.5),
        messages.StepDone("j/1/0", 3, 20),
        messages.RowStarted("j/1/0", tokens_cut=7),
    ],
)
def test_a_frame_says_the_message_again(message: messages.Message) -> None:
    frame = frames.encode(message, b"pixels")
    head_bytes = frames.head_length(frame[: frames.HEAD_BYTES])
    head = frame[frames.HEAD_BYTES :][:head_bytes]
    rest = frame[frames.HEAD_BYTES + head_bytes :]
    assert frames.decode(head) == message
    assert frames.blob_length(rest[: frames.BLOB_HEAD_BYTES]) == len(b"pixels")
    assert rest[frames.BLOB_HEAD_BYTES :] == b"pixels"


@pytest.mark.parametrize(
    "head",
    [
        b'{"type": "Nothing"}',
        b'{"type": "Stop", "why": 1}',
        b'{"type": []}',
        b'{"type": "ModelLoaded", "name": "m", "seconds": 1, "bytes": 1, "buckets": 5}',
        b"{}",
        b"[]",
        b"5",
        b"null",
        b'"x"',
        b"\xff",
        b"",
    ],
)
def test_a_strange_frame_is_a_fault(head: bytes) -> None:
    with pytest.raises(InternalError):
        frames.decode(head)


def test_an_oversized_frame_is_a_fault() -> None:
    with pytest.raises(InternalError):
        frames.head_length((limits.ENGINE_MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(InternalError, match="over the limit"):
        frames.encode(messages.Stop(), bytes(limits.ENGINE_MESSAGE_BYTES_MAX + 1))
    assert frames.encode(messages.Stop(), bytes(limits.ENGINE_MESSAGE_BYTES_MAX))


@given(some.floats(0.01, 100.0))
def test_the_cost_model_learns_what_jobs_take(step_s_per_mpx: float) -> None:
    real = CostModel(step_s_per_mpx=step_s_per_mpx)
    known = CostModel()
    for _ in range(80):
        known = known.fitted(SPEC, real.predict_s(SPEC))
    assert known.predict_s(SPEC) == pytest.approx(real.predict_s(SPEC), rel=0.05)


def test_a_costlier_job_is_predicted_to_cost_more() -> None:
    cost = CostModel().predict_s
    assert cost(replace(SPEC, steps=40)) > cost(SPEC)
    assert cost(replace(SPEC, width=256)) > cost(SPEC)
    assert cost(replace(SPEC, guidance=1.0)) < cost(SPEC)
