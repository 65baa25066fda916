"""Retries: how often, and what is never tried again."""

from __future__ import annotations

import pytest

from calotype.core.decisions import FailJob, RequeueJob
from calotype.core.limits import ATTEMPTS_MAX
from calotype.policy.retry import after_failure


@pytest.mark.parametrize("attempt", range(1, ATTEMPTS_MAX))
def test_another_attempt_is_made_while_there_are_some_left(attempt: int) -> None:
    assert after_failure("j", attempt, "lost") == RequeueJob("j", "lost")


def test_last_attempt_is_the_last() -> None:
    assert after_failure("j", ATTEMPTS_MAX, "lost") == FailJob("j", "lost (attempt 3 of 3)")


def test_what_would_fail_again_is_not_tried_again() -> None:
    assert after_failure("j", 1, "bad", is_retryable=False) == FailJob("j", "bad")


def test_a_job_that_ended_its_engine_in_every_attempt_is_quarantined() -> None:
    answer = after_failure("j", ATTEMPTS_MAX, "exit code 9", deaths=ATTEMPTS_MAX)
    assert answer == FailJob("j", "exit code 9 (attempt 3 of 3)", is_poison=True)


def test_one_that_failed_otherwise_once_is_not() -> None:
    answer = after_failure("j", ATTEMPTS_MAX, "exit code 9", deaths=ATTEMPTS_MAX - 1)
    assert answer == FailJob("j", "exit code 9 (attempt 3 of 3)")
