"""What reads a prompt on the engine refuses the job before its first step, or holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.messages import CancelRow, RowRefused, RunRow
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.core.states import JobState
from calotype.flow.words import WordsRefused, refused
from calotype.safety.builds import KnownBuilds
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.pictures import PictureCheck
from calotype.safety.policies import shipped
from calotype.safety.setup import ConfiguredCheck, SafetySetup
from tests.flow.dispatch_bench import MODEL, SPEC, Bench, eventually, running_bench
from tests.flow.test_conduct import ADA, conductor

pytestmark = pytest.mark.usefixtures("short_times")

MEANINGS = {"fine": "harmless", "harm": "violence", "young": "minor"}


def setup_of(kind: CheckKind, models: tuple[str, ...] = ()) -> SafetySetup:
    use = CheckUse("wishes", kind.value, "/nowhere", "0", tuple(MEANINGS))
    return SafetySetup(shipped(), checks=(ConfiguredCheck(use, MEANINGS, models=models),))


SETUP = setup_of(CheckKind.RECOGNISER, (MODEL.name,))
SETUPS = [SETUP, setup_of(CheckKind.TEXT)]
MINE = replace(MODEL, checks=SETUP.uses("", MODEL.name))
BUILDS = {"wishes": "0"}  # the version that answers


def scores(harm: float, young: float = 0.0) -> dict[str, float]:
    return {"wishes:fine": 1.0 - harm, "wishes:harm": harm, "wishes:young": young}


@pytest.fixture(params=SETUPS, ids=["recogniser", "text"])
async def bench(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    setup: SafetySetup = request.param
    check = PictureCheck(setup=setup)
    people = lambda store: conductor(store, tmp_path)  # noqa: E731 - a fixture's argument
    async with running_bench(tmp_path, people=people, check=check) as running:
        uses = setup.uses("", MODEL.name)
        running.registry.models[MODEL.name] = replace(MODEL, checks=uses)
        yield running


def says(bench: Bench, harm: float, **more: object) -> None:
    bench.pool.refusal = lambda row: RowRefused(
        row.row,
        scores(harm),
        builds=BUILDS,
        **more,  # type: ignore[arg-type]
    )


async def test_a_row_is_sent_with_the_policy_s_limits_of_what_reads_first(bench: Bench) -> None:
    await bench.ended(await bench.queue())
    [row] = [message for _, message in bench.pool.sent if isinstance(message, RunRow)]
    limit = shipped()["pg13"].limit("violence", reads=True)
    assert row.refused_from == {"wishes:harm": limit}, "a minor by itself is harmless"


async def test_a_refused_prompt_fails_the_job_unmade_uncharged_and_counts_once(
    bench: Bench,
) -> None:
    says(bench, 0.9)
    job = await bench.ended(await bench.queue(replace(SPEC, n=2)))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["type"].endswith("refused")
    assert (job.error["check"], job.error["category"]) == ("wishes", "violence")
    assert job.error["field"] == "prompt"
    assert "0.9" not in str(job.error)
    assert bench.files() == []
    assert bench.finisher.finished == [], "nothing was made"
    assert await bench.events(job, "step") == []
    await eventually(lambda: bench.gate.ends)
    assert bench.gate.ends == [(job.id, 0.0)]
    assert set(bench.pool.rows(CancelRow)) == set(bench.pool.rows(RunRow))
    strikes = await bench.store.people.strikes.counts("ada")
    assert [(row["category"], row["count"]) for row in strikes] == [("violence", 1)]
    other = await bench.ended(await bench.queue())
    assert other.state is JobState.FAILED, "the line goes on"


async def test_refused_prompts_add_up_like_refused_pictures(bench: Bench) -> None:
    from calotype.core.errors import Suspended

    says(bench, 0.9)
    for _ in range(3):
        await bench.ended(await bench.queue())
    with pytest.raises(Suspended):
        await conductor(bench.store, bench.folder).check_account(ADA)


async def test_without_an_answer_the_job_is_held(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 30.0)
    bench.pool.refusal = lambda row: RowRefused(row.row, {}, {"wishes": "it is away"})
    job = await bench.state(await bench.queue(), JobState.PENDING_SAFETY, JobState.FAILED)
    [held] = await bench.events(job, "pending_safety")
    assert "wishes" in held.data["reason"]
    assert "it is away" in held.data["reason"]
    assert bench.files() == []


async def test_what_reads_nothing_any_more_is_tried_by_one_job_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 30.0)
    monkeypatch.setattr(limits, "BREAKER_OPEN_S_MIN", 0.01)
    monkeypatch.setattr(limits, "BREAKER_OPEN_S_MAX", 3600.0)
    bench.pool.refusal = lambda row: RowRefused(row.row, {}, {"wishes": "it is away"})
    for _ in range(limits.BREAKER_FAILURES_MAX):
        await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    assert "it is away" in bench.dispatcher.checks_failing["wishes"]
    for _ in range(3):  # each is a try
        await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    with pytest.raises(SafetyUnavailable, match="no new jobs"):
        bench.dispatcher.check_judged(0.0)
    bench.pool.refusal = lambda row: None
    assert (await bench.ended(await bench.queue())).state is JobState.SUCCEEDED
    assert bench.dispatcher.checks_failing == {}


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        (scores(0.9), WordsRefused),
        (scores(0.1), InternalError),  # it was refused by another policy
        (scores(0.4, young=0.4), InternalError),  # nothing sexual
        ({"wishes:fine": 1.0}, SafetyUnavailable),
        (scores(float("nan")), SafetyUnavailable),
        (scores(1.5), SafetyUnavailable),
    ],
)
def test_what_an_engine_refused_is_judged_again_by_the_policy_of_now(
    told: dict[str, float], outcome: type[Exception]
) -> None:
    check = PictureCheck(setup=SETUP)
    try:
        found = refused(
            RowRefused("r", told, builds=BUILDS), MINE, check, None, known=KnownBuilds()
        )
    except SafetyUnavailable as error:
        found = error
    assert type(found) is outcome


def test_where_a_place_is_down_half_is_enough() -> None:
    check, told = PictureCheck(setup=SETUP), RowRefused("r", scores(0.3), builds=BUILDS)
    known = KnownBuilds()
    assert isinstance(refused(told, MINE, check, None, known=known), InternalError)
    told = replace(told, degraded={"wishes": "down"})
    assert isinstance(refused(told, MINE, check, None, known=known), WordsRefused)


def test_what_a_version_said_that_nobody_knows_is_no_answer() -> None:
    check, told = PictureCheck(setup=SETUP), RowRefused("r", scores(0.9), builds={"wishes": "1"})
    with pytest.raises(SafetyUnavailable, match="version 1, which isn't in force"):
        refused(told, MINE, check, None, known=KnownBuilds())
    with pytest.raises(SafetyUnavailable, match="doesn't name"):
        refused(replace(told, builds={}), MINE, check, None, known=KnownBuilds())
    known = KnownBuilds()
    known.know([replace(use, build="1") for use in MINE.checks])
    found = refused(told, MINE, check, None, known=known)
    assert isinstance(found, WordsRefused)
    assert found.verdict.version.endswith("-1"), "it names the version that answered"
