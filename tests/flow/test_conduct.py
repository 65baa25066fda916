"""What a refusal leads to: no charge, a strike, a sealed case; and nothing of it twice.

Pictures are benign canaries throughout; that they are "known" is what a stub says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from calotype.core.conduct import StrikeRule
from calotype.core.errors import Refused, Suspended
from calotype.core.nouns import LoraUse, Verdict, VerdictKind
from calotype.core.states import JobState
from calotype.flow.cases import CaseBook
from calotype.flow.conduct import Conductor
from calotype.flow.safeguards import Safeguards
from calotype.flow.sealed import Sealed, png_of, unpacked
from calotype.jobs.store import JobStore
from calotype.safety.conduct import Conduct
from calotype.safety.sealing import SealedStore
from calotype.settings import Settings
from tests.flow.dispatch_bench import (
    ALLOWED,
    BLOCKED,
    DEVICE_S,
    SPEC,
    WAIT,
    Bench,
    eventually,
    running_bench,
)
from tests.flow.test_reports import key
from tests.pictures import file_of, picture
from tests.reviews import of_job

pytestmark = pytest.mark.usefixtures("short_times")

CANARY = file_of(picture(64, 64))
VIOLENT = replace(BLOCKED, category="violence", policy="pg13-1-abcd")
KNOWN = replace(BLOCKED, category="known", policy="pg13-1-abcd")
UNSURE = replace(VIOLENT, kind=VerdictKind.REVIEW, score=0.4)
RULES = replace(Conduct.shipped(), ordinary=StrikeRule("repeated-refusals", 3, 100, 3600.0, 600.0))
LORA = (LoraUse("nude-style"),)
ADA = replace(key("ada"), tenant="ada", user="")


def parts(folder: Path) -> tuple[Sealed, Sealed]:
    pictures, cases = (
        Sealed(SealedStore(folder / "sealed" / part, folder / "key")) for part in ("p", "c")
    )
    return pictures, cases


def conductor(store: JobStore, folder: Path) -> Conductor:
    pictures, cases = parts(folder)
    return Conductor(store, RULES, CaseBook(store, cases, kept_days=365), pictures)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running_bench(tmp_path, people=lambda store: conductor(store, tmp_path)) as running:
        running.finisher.kept = CANARY
        yield running


def says(bench: Bench, verdict: Verdict) -> None:
    bench.finisher.answer = lambda raw: verdict


async def test_nothing_is_charged_for_a_refused_job_or_one_in_review(bench: Bench) -> None:
    for verdict, charged in ((VIOLENT, 0.0), (UNSURE, 0.0), (ALLOWED, DEVICE_S)):
        says(bench, verdict)
        job = await bench.queue()
        await bench.state(job, JobState.FAILED, JobState.IN_REVIEW, JobState.SUCCEEDED)
        await eventually(lambda: bench.gate.ends)
        assert bench.gate.ends.pop() == (job.id, charged)
    bench.finisher.answer = lambda raw: VIOLENT if raw.manifest.index else ALLOWED
    job = await bench.ended(await bench.queue(replace(SPEC, n=2)))
    assert bench.gate.ends.pop() == (job.id, 2 * DEVICE_S), "one of them is delivered"


async def test_refused_pictures_add_up_until_the_account_is_suspended(bench: Bench) -> None:
    says(bench, VIOLENT)
    watch = conductor(bench.store, bench.folder)
    for _ in range(2):
        await bench.ended(await bench.queue())
        await watch.check_account(ADA)
    await bench.ended(await bench.queue())
    with pytest.raises(Suspended) as error:
        await watch.check_account(ADA)
    assert error.value.extra["rule"] == "repeated-refusals"
    assert error.value.extra["until"]
    assert "repeated refusals by the content policy" in error.value.detail
    for told in ("violen", "score", "0.", "word"):
        assert told not in error.value.detail, "it names the rule, and no way round it"


async def test_what_a_suspended_account_has_in_the_line_is_not_begun(bench: Bench) -> None:
    says(bench, KNOWN)
    await bench.ended(await bench.queue())
    sent = len(bench.pool.sent)
    job = await bench.ended(await bench.queue())
    assert job.state is JobState.FAILED
    assert "may make no pictures until a person" in str(job.error)
    assert len(bench.pool.sent) == sent + 1, "its row is cancelled, and never was sent"
    assert bench.gate.ends[-1] == (job.id, 0.0)
    says(bench, ALLOWED)
    other = await bench.ended(await bench.queue(tenant="bob"))
    assert other.state is JobState.SUCCEEDED


async def test_what_the_model_did_wrong_by_itself_counts_for_nothing(bench: Bench) -> None:
    for category in ("outside", "damaged", "unjudgeable"):
        says(bench, replace(VIOLENT, category=category))
        for _ in range(2):
            await bench.ended(await bench.queue())
    assert await bench.store.people.strikes.counts() == []


async def test_a_lost_attempt_that_is_made_again_counts_once(bench: Bench) -> None:
    says(bench, VIOLENT)
    job = await bench.queue(replace(WAIT, n=2))
    await bench.pool.waits(2)
    [first, *_] = list(bench.pool.waiting)
    waiting = dict(bench.pool.waiting)
    bench.pool.waiting = {first: waiting[first]}
    await bench.pool.finish_rows()
    await eventually(bench.store.people.strikes.counts)
    await bench.pool.lose()
    await bench.state(job, JobState.QUEUED)
    await bench.pool.warm()
    await bench.pool.waits(2)
    await bench.pool.finish_rows()
    await bench.ended(job)
    assert [it["count"] for it in await bench.store.people.strikes.counts()] == [2]


async def test_a_severe_picture_is_sealed_its_account_frozen_and_its_case_can_not_be_cancelled(
    bench: Bench,
) -> None:
    says(bench, KNOWN)
    job = await bench.queue(replace(WAIT, n=2))
    await bench.pool.waits(2)
    [first, *_] = list(bench.pool.waiting)
    bench.pool.waiting = {first: bench.pool.waiting[first]}
    await bench.pool.finish_rows()
    await eventually(lambda: bench.events(job, "image_finished"))
    await bench.dispatcher.cancel(job.id, by="caller")
    [case] = await bench.store.people.cases.every()
    assert (case.kind, case.job_id, case.category) == ("picture", job.id, "known")
    _, cases = parts(bench.folder)
    assert await cases.open(case.sealed) == CANARY
    assert bench.files() == []
    with pytest.raises(Suspended, match="until a person"):
        await conductor(bench.store, bench.folder).check_account(ADA)
    pictures, _ = parts(bench.folder)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await pictures.sweep(set(), before=later) == [], (
        "kept as a case only, and shown to nobody"
    )


async def test_what_people_may_look_at_is_sealed_with_all_it_takes_to_finish_it(
    bench: Bench,
) -> None:
    says(bench, UNSURE)
    job = await bench.state(await bench.queue(), JobState.IN_REVIEW)
    [review] = await of_job(bench.store, job)
    pictures, _ = parts(bench.folder)
    data = await pictures.open(review.sealed)
    assert png_of(data) == CANARY
    allowed = unpacked(data, replace(ALLOWED, policy="p"), review.image)
    assert allowed.manifest.image == review.image
    assert (allowed.manifest.prompt, allowed.manifest.seed) == (SPEC.prompt, SPEC.seed)
    assert bench.files() == []
    assert await bench.previews(job) == 0
    assert await bench.store.people.strikes.counts() == [], "nobody has refused it yet"


async def test_a_job_in_review_is_left_alone_by_a_restart_and_can_be_cancelled(
    tmp_path: Path, bench: Bench
) -> None:
    says(bench, UNSURE)
    job = await bench.state(await bench.queue(), JobState.IN_REVIEW)
    await bench.dispatcher.stop()
    async with running_bench(tmp_path) as again:
        assert again.gate.resumed == {}
        assert (await again.store.get(job.id)).state is JobState.IN_REVIEW
        cancelled = await again.dispatcher.cancel(job.id, by="caller")
        assert cancelled.state is JobState.CANCELLED
        assert again.dispatcher.fault is None
        says(again, ALLOWED)
        assert (await again.ended(await again.queue())).state is JobState.SUCCEEDED


async def test_words_of_a_minor_with_anything_sexual_leave_a_sealed_case_and_no_picture(
    bench: Bench,
) -> None:
    watch = conductor(bench.store, bench.folder)
    guards = Safeguards(Settings(home=bench.folder))
    harmless = replace(SPEC, prompt="a red lighthouse by the sea")
    await watch.check_words(ADA, harmless, guards)
    assert await bench.store.people.cases.every() == []
    # The shortest pair of words that the rule is about: enough to test it, and nothing more.
    refused = replace(SPEC, prompt="nude child")
    with pytest.raises(Refused) as error:
        await watch.check_words(ADA, refused, guards)
    assert error.value.extra["category"] == "sexual_minors"
    [case] = await bench.store.people.cases.every()
    assert (case.kind, case.job_id, case.category) == ("text", None, "sexual_minors")
    _, cases = parts(bench.folder)
    assert b"nude child" in await cases.open(case.sealed)
    for path in bench.folder.rglob("*"):
        if path.is_file():
            assert b"nude child" not in path.read_bytes(), f"{path} has it in clear"
    with pytest.raises(Suspended):
        await watch.check_account(ADA)


async def test_ordinary_words_that_are_refused_count_and_leave_no_case(bench: Bench) -> None:
    watch = conductor(bench.store, bench.folder)
    guards = Safeguards(Settings(home=bench.folder))
    for _ in range(3):
        with pytest.raises(Refused):
            await watch.check_words(ADA, replace(SPEC, prompt="a beheading, gore"), guards)
    assert await bench.store.people.cases.every() == []
    with pytest.raises(Suspended):
        await watch.check_account(ADA)


@pytest.mark.parametrize(
    ("said", "field"),
    [({"negative_prompt": "clothes"}, "negative_prompt"), ({"loras": LORA}, "loras")],
)
async def test_what_is_said_beside_the_prompt_is_read_too(
    bench: Bench, said: dict[str, Any], field: str
) -> None:
    watch = conductor(bench.store, bench.folder)
    guards = Safeguards(Settings(home=bench.folder))
    with pytest.raises(Refused) as error:
        await watch.check_words(ADA, replace(SPEC, **said), guards)
    assert (error.value.field, error.value.extra["category"]) == (field, "sexual")


async def test_a_refusal_that_people_take_back_counts_no_more(bench: Bench) -> None:
    says(bench, KNOWN)
    job = await bench.ended(await bench.queue())
    watch = conductor(bench.store, bench.folder)
    with pytest.raises(Suspended):
        await watch.check_account(ADA)
    await watch.decided(job, 0, KNOWN, is_allowed=True)
    await watch.check_account(ADA)
    assert await bench.store.people.strikes.counts() == []


async def test_a_picture_that_can_not_be_sealed_is_not_delivered_either(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calotype.safety.sealing.write_private_bytes", full)
    says(bench, UNSURE)
    job = await bench.ended(await bench.queue())
    assert job.state is JobState.FAILED
    assert bench.files() == []
    assert await bench.store.people.reviews.list() == []
