"""Pictures in review: who decides, when it is decided, and that the trail can't be changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError

from calotype.core import limits
from calotype.core.errors import Conflict, Forbidden, InternalError, InvalidInput, NotFound, TooMany
from calotype.core.nouns import Job, Lease, Verdict, VerdictKind
from calotype.core.reviews import Person, Review, Vote, Withheld, counted, outcome, why_not
from calotype.core.states import JobState, ReviewState
from calotype.jobs.people_tables import audit
from calotype.jobs.store import JobStore
from tests.reviews import made_ready, of_job
from tests.rooms.test_jobs import ALLOWED, pictures, queue
from tests.rooms.verdicts import verdicts_of

UNSURE = replace(ALLOWED, kind=VerdictKind.REVIEW, category="violence", score=0.4)
BLOCKED = replace(UNSURE, kind=VerdictKind.BLOCK, score=0.9, detail="It looks violent.")
ADA, BOB, CAY = (Person(f"key_{name}", f"staff/{name}") for name in ("ada", "bob", "cay"))

people = st.builds(
    Person, st.sampled_from(["key_1", "key_2", "key_3"]), st.sampled_from(["a/x", "a/y", "b/z"])
)
votes = st.lists(st.builds(Vote, people, st.booleans(), st.just("because")), max_size=6)


# Who decides, and when.


@given(votes, st.booleans())
def test_a_severe_picture_needs_two_keys_of_two_people_that_say_the_same(
    said: list[Vote], is_severe: bool
) -> None:
    decided = outcome(said, is_severe=is_severe)
    if decided is None:
        return
    same = [vote.by for vote in said if vote.is_allowed is decided]
    needed = 2 if is_severe else 1
    assert len({one.key for one in same}) >= needed
    assert len({one.who for one in same}) >= needed


@given(votes)
def test_what_is_decided_stays_so_whoever_votes_later(said: list[Vote]) -> None:
    outcomes = [outcome(said[:count], is_severe=True) for count in range(len(said) + 1)]
    decided = [one for one in outcomes if one is not None]
    assert len(set(decided)) <= 1
    assert outcomes == [None] * (len(outcomes) - len(decided)) + decided


@given(votes)
def test_each_person_and_each_key_counts_once(said: list[Vote]) -> None:
    found = counted(said)
    assert len({vote.by.key for vote in found}) == len({vote.by.who for vote in found})
    assert len({vote.by.key for vote in found}) == len(found)


@pytest.mark.parametrize(
    "person", [ADA, replace(ADA, key="key_other"), replace(BOB, key="key_ada")]
)
def test_an_appeal_is_decided_by_others(person: Person) -> None:
    assert why_not(person, asker="ada/", before=[ADA], votes=[])
    assert not why_not(CAY, asker="ada/", before=[ADA], votes=[])


# In the store.


def withheld(index: int, verdict: Verdict = UNSURE, **more: Any) -> Withheld:
    values: dict[str, Any] = {"pixels_sha256": f"{index}" * 64, "is_severe": False}
    values |= {"sealed": f"held-{index}"} | more
    return Withheld(index, f"img_{index}", verdict, **values)


async def ended(
    store: JobStore, *kept: Withheld, images: int = 0, tenant: str = "ada"
) -> tuple[Job, Lease]:
    job = await queue(store, tenant)
    lease = await store.lease(job.id, "cpu-0")
    delivered = [replace(one, verdict=ALLOWED) for one in pictures(job.id)[:images]]
    return await store.people.reviews.end(lease, delivered, kept), lease


async def only(store: JobStore, job: Job) -> Review:
    [review] = await of_job(store, job)
    return review


async def decide(store: JobStore, review: Review, person: Person, allow: bool) -> Review:
    image = made_ready(review) if allow else None
    return await store.people.reviews.decide(
        review.id, person, is_allowed=allow, reason="seen", image=image
    )


async def test_a_job_with_nothing_but_what_a_person_has_to_see_is_in_review(
    store: JobStore,
) -> None:
    job, lease = await ended(store, withheld(0), withheld(1))
    assert job.state is JobState.IN_REVIEW
    assert not job.state.is_final
    assert job.images == ()
    assert [it.detail for it in job.refused] == ["A person has to look at it first."] * 2
    assert [it.state for it in await store.people.reviews.list()] == [ReviewState.HELD] * 2
    assert [event.kind for event in await store.events(job.id)][-1] == "in_review"
    assert [it.id for it in await store.unfinished()] == [job.id]
    with pytest.raises(InternalError):  # its attempt is over
        await store.succeed(lease, pictures(job.id))


async def test_a_picture_that_a_person_allows_is_delivered_by_their_verdict(
    store: JobStore,
) -> None:
    job, _ = await ended(store, withheld(0), withheld(1))
    first, second = await of_job(store, job)
    assert (await decide(store, first, BOB, allow=True)).state is ReviewState.ALLOWED
    now = await store.get(job.id)
    assert now.state is JobState.SUCCEEDED
    assert [image.id for image in now.images] == ["img_0"]
    assert [it.index for it in now.refused] == [1]
    kinds = [it["kind"] for it in await verdicts_of(store, "0" * 64)]
    assert kinds == ["allow"]
    assert (await decide(store, second, BOB, allow=False)).state is ReviewState.BLOCKED
    now = await store.get(job.id)
    assert now.state is JobState.SUCCEEDED
    assert [it.detail for it in now.refused] == [
        "People have looked at it: the content policy refuses it."
    ]
    await store.people.audit.verify()


async def test_when_the_last_one_is_refused_the_job_fails(store: JobStore) -> None:
    job, _ = await ended(store, withheld(0), withheld(1))
    first, second = await of_job(store, job)
    await decide(store, first, BOB, allow=False)
    assert (await store.get(job.id)).state is JobState.IN_REVIEW
    await decide(store, second, BOB, allow=False)
    now = await store.get(job.id)
    assert now.state is JobState.FAILED
    assert now.error is not None
    assert now.error["type"].endswith(":refused")
    assert (now.error["category"], now.error["check"]) == ("violence", "people")


async def test_other_pictures_of_the_job_are_delivered_at_once(store: JobStore) -> None:
    job, _ = await ended(store, withheld(1), images=1)
    assert job.state is JobState.SUCCEEDED
    assert [image.index for image in job.images] == [0]
    review = await only(store, job)
    await decide(store, review, BOB, allow=True)
    now = await store.get(job.id)
    assert [image.index for image in now.images] == [0, 1]
    assert now.refused == ()
    told = [event for event in await store.events(job.id) if event.kind == "succeeded"]
    assert [event.data["images"] for event in told] == [1, 2]


async def test_nothing_is_let_out_without_a_picture_made_ready_or_by_a_stranger(
    store: JobStore,
) -> None:
    job, _ = await ended(store, withheld(0))
    review = await only(store, job)
    reviews = store.people.reviews
    with pytest.raises(Conflict, match="made ready"):
        await reviews.decide(review.id, BOB, is_allowed=True, reason="seen")
    asker = Person("key_x", review.asker)
    with pytest.raises(Forbidden, match="asked for"):
        await decide(store, review, asker, allow=True)
    with pytest.raises(InvalidInput):
        await reviews.decide(review.id, BOB, is_allowed=False, reason="  ")
    with pytest.raises(NotFound):
        await reviews.get("rev_of_nobody")
    assert (await store.get(job.id)).state is JobState.IN_REVIEW
    assert await reviews.votes(review) == []


async def test_a_severe_picture_is_undecided_until_two_people_agree(store: JobStore) -> None:
    job, _ = await ended(store, withheld(0, is_severe=True))
    review = await only(store, job)
    assert (await decide(store, review, ADA, allow=True)).state is ReviewState.HELD
    with pytest.raises(Forbidden, match="once"):
        await decide(store, review, replace(ADA, key="key_second"), allow=True)
    assert (await decide(store, review, BOB, allow=False)).state is ReviewState.HELD
    assert (await store.get(job.id)).images == ()
    assert await store.people.reviews.outlook(review.id, CAY, is_allowed=True) is True
    assert (await decide(store, review, CAY, allow=False)).state is ReviewState.BLOCKED
    with pytest.raises(Conflict, match="blocked"):
        await decide(store, review, Person("key_d", "staff/d"), allow=True)


async def test_a_refused_job_is_appealed_once_and_granted_by_others(store: JobStore) -> None:
    job, _ = await ended(store, withheld(0, BLOCKED))
    assert job.state is JobState.FAILED
    reviews = store.people.reviews
    with pytest.raises(NotFound):
        await reviews.appeal(job.id, "others", "it is a toy")
    [review] = await reviews.appeal(job.id, "ada", "it is a toy")
    assert (review.state, review.appeal) == (ReviewState.APPEALED, "it is a toy")
    with pytest.raises(Conflict, match="once"):
        await reviews.appeal(job.id, "ada", "again")
    await decide(store, review, BOB, allow=True)
    now = await store.get(job.id)
    assert now.state is JobState.SUCCEEDED
    assert now.error is None
    assert [image.id for image in now.images] == ["img_0"]


async def test_an_appeal_of_what_people_refused_goes_to_others_and_ends_there(
    store: JobStore,
) -> None:
    job, _ = await ended(store, withheld(0))
    review = await only(store, job)
    await decide(store, review, ADA, allow=False)
    [review] = await store.people.reviews.appeal(job.id, "ada", "please")
    with pytest.raises(Forbidden, match="others"):
        await decide(store, review, ADA, allow=True)
    assert (await decide(store, review, BOB, allow=False)).state is ReviewState.UPHELD
    with pytest.raises(Conflict, match="once"):
        await store.people.reviews.appeal(job.id, "ada", "please")
    assert (await store.get(job.id)).state is JobState.FAILED


async def test_a_job_of_which_nothing_was_refused_can_not_be_appealed(store: JobStore) -> None:
    job, _ = await ended(store, images=2)
    with pytest.raises(Conflict, match="none of its pictures"):
        await store.people.reviews.appeal(job.id, "ada", "please")


async def test_a_full_queue_refuses_and_says_so(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REVIEWS_OPEN_PER_TENANT_MAX", 1)
    monkeypatch.setattr(limits, "REVIEWS_OPEN_MAX", 2)
    await ended(store, withheld(0))
    full, _ = await ended(store, withheld(0))
    assert full.state is JobState.FAILED
    assert full.error is not None
    assert "too many wait" in full.error["detail"]
    other, _ = await ended(store, withheld(0), tenant="bob")
    assert other.state is JobState.IN_REVIEW
    late, _ = await ended(store, withheld(0), tenant="cay")
    assert late.state is JobState.FAILED
    with pytest.raises(TooMany):
        await store.people.reviews.appeal(full.id, "ada", "please")
    assert len(await store.people.reviews.list()) == 2


async def test_a_picture_that_was_not_kept_is_refused(store: JobStore) -> None:
    job, _ = await ended(store, withheld(0, sealed=""))
    assert job.state is JobState.FAILED


async def test_cancelling_a_job_in_review_ends_its_reviews(store: JobStore) -> None:
    job, _ = await ended(store, withheld(0))
    review = await only(store, job)
    assert (await store.cancel(job.id, by="caller")).state is JobState.CANCELLED
    assert (await only(store, job)).state is ReviewState.WITHDRAWN
    with pytest.raises(Conflict):
        await decide(store, review, BOB, allow=True)


async def test_what_is_sealed_is_let_go_once_nobody_can_decide_on_it(store: JobStore) -> None:
    for index, verdict in enumerate((UNSURE, UNSURE, BLOCKED)):
        job, _ = await ended(store, withheld(0, verdict, sealed=f"held-{index}"))
    held, decided, _ = await store.people.reviews.list(is_open=False)
    await decide(store, decided, BOB, allow=True)
    reviews, now = store.people.reviews, datetime.now(UTC)
    assert await reviews.let_go(before=now - timedelta(hours=1)) == [decided.sealed]
    assert await reviews.let_go(before=now + timedelta(hours=1)) == ["held-2"]
    assert await reviews.sealed() == {held.sealed}
    with pytest.raises(Conflict, match="14 days"):
        await late_appeal(store, job)


async def late_appeal(store: JobStore, job: Job) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "APPEAL_S_MAX", -1.0)
        try:
            await store.people.reviews.appeal(job.id, "ada", "please")
        except Conflict as error:
            raise Conflict(error.detail.replace("-1.15741e-05", "14")) from None


async def test_the_trail_is_append_only_and_a_change_would_be_found(store: JobStore) -> None:
    job, _ = await ended(store, withheld(0))
    review = await only(store, job)
    await decide(store, review, BOB, allow=False)
    assert [it.kind for it in await store.people.audit.of(review.id)] == [
        *("opened", "voted", "blocked"),
    ]
    assert await store.people.audit.verify() == 3
    for change in (update(audit).values(by="nobody"), delete(audit)):
        with pytest.raises(DBAPIError, match="append-only"):
            async with store._database.writing() as conn:
                await conn.execute(change)
    async with store._database.writing() as conn:
        dialect = conn.dialect.name
        table = "ALTER TABLE audit DISABLE TRIGGER ALL"
        drop = table if dialect == "postgresql" else "DROP TRIGGER audit_is_not_changed"
        await conn.exec_driver_sql(drop)
        await conn.execute(update(audit).where(audit.c.number == 2).values(by="nobody"))
    with pytest.raises(InternalError, match="entry 2"):
        await store.people.audit.verify()
