"""Pictures that a check didn't allow: kept until people have looked, or may no longer appeal.

Each is written in the transaction that ends its job's attempt, and decided in one with the verdict,
the picture's record and the audit trail. Who may decide, and when it is decided, is said in
``core.reviews``; votes are entries of the trail, which nobody can change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import Row, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core import limits
from calotype.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Refused, TooMany
from calotype.core.ids import content_id
from calotype.core.nouns import Image, Job, Lease, Refusal, VerdictKind
from calotype.core.reviews import Person, Review, Vote, Withheld, outcome, why_not
from calotype.core.states import REVIEW_MOVES, ReviewState, move
from calotype.jobs import audit, moves, reading
from calotype.jobs.database import Database
from calotype.jobs.people_tables import reviews
from calotype.jobs.rows import utc_now

T = TypeVar("T")

HELD = "A person has to look at it first."
FULL = "A person would have to look at it, and too many wait for that: try again later."
BY_PEOPLE = "People have looked at it: the content policy refuses it."
_OPEN = (ReviewState.HELD.value, ReviewState.APPEALED.value)
_DECIDED = (ReviewState.ALLOWED.value, ReviewState.BLOCKED.value, ReviewState.UPHELD.value)
_APPEALABLE = (ReviewState.REFUSED.value, ReviewState.BLOCKED.value)


class Change(Protocol):
    """How a transaction that changes a job is carried out, and its followers told."""

    async def __call__(
        self, job_id: str, change: Callable[[AsyncConnection], Awaitable[T]], *, notes_too: bool
    ) -> T:
        """Carry it out."""


class Reviews:
    """The reviews in one database."""

    def __init__(self, database: Database, change: Change) -> None:
        self._database, self._change = database, change

    # Before anybody has looked.

    async def end(self, lease: Lease, images: Sequence[Image], withheld: Sequence[Withheld]) -> Job:
        """End a job of which not every picture is allowed.

        It succeeds with the others. Without any it fails, or is in review while a person has to
        look at one; of those as many as there is room for.
        """

        async def change(conn: AsyncConnection) -> Job:
            job = await reading.job(conn, lease.job_id)
            told = await _told(conn, job, withheld)
            refused = [Refusal(it.index, it.verdict.category, text) for it, _, text in told]
            is_held = any(state is ReviewState.HELD for _, state, _ in told)
            if images:
                await moves.succeed(conn, lease, images, refused)
            elif is_held:
                await moves.review(conn, lease, refused, HELD)
            else:
                first, _, text = told[0]
                error = _error(text, first)
                await moves.fail(conn, lease.job_id, error, lease, refused)
            for it, state, _ in told:
                await _add(conn, job, it, state)
            return await reading.job(conn, lease.job_id)

        return await self._change(lease.job_id, change, notes_too=True)

    # Reading.

    async def get(self, review_id: str) -> Review:
        """One review. Raises NotFound."""
        async with self._database.reading() as conn:
            return _review_of(await _one(conn, select(reviews), review_id))

    async def list(self, *, is_open: bool = True, most: int = limits.PAGE_JOBS_MAX) -> list[Review]:
        """Those that people have to decide on, or all; the oldest first."""
        query = select(reviews).order_by(reviews.c.opened_at, reviews.c.id).limit(most)
        if is_open:
            query = query.where(reviews.c.state.in_(_OPEN))
        async with self._database.reading() as conn:
            return [_review_of(row) for row in await conn.execute(query)]

    async def decided(self, most: int) -> Sequence[Review]:
        """Those that people have decided on and that aren't severe, the last ones first."""
        query = select(reviews).where(reviews.c.state.in_(_DECIDED), reviews.c.is_severe.is_(False))
        query = query.order_by(reviews.c.closed_at.desc(), reviews.c.id).limit(most)
        async with self._database.reading() as conn:
            return [_review_of(row) for row in await conn.execute(query)]

    async def votes(self, review: Review) -> Sequence[Vote]:
        """What people have said of it in this round."""
        async with self._database.reading() as conn:
            return await _votes(conn, review, review.round)

    # Deciding.

    async def outlook(self, review_id: str, person: Person, *, is_allowed: bool) -> bool | None:
        """What would be decided if this person said so: True to allow; None: nothing yet.

        Raises NotFound, Conflict (nothing is to be decided), Forbidden (not by them).
        """
        async with self._database.reading() as conn:
            review = _review_of(await _one(conn, select(reviews), review_id))
            votes = await _may_vote(conn, review, person)
        return outcome([*votes, Vote(person, is_allowed, "")], is_severe=review.is_severe)

    async def decide(
        self,
        review_id: str,
        person: Person,
        *,
        is_allowed: bool,
        reason: str,
        image: Image | None = None,
    ) -> Review:
        """Write what a person says, and what follows if that decides it.

        ``image`` is the picture made ready, where it is let out. Raises what ``outlook`` does.
        """
        _check_reason(reason)
        job_id = (await self.get(review_id)).job_id

        async def change(conn: AsyncConnection) -> Review:
            review = _review_of(await _one(conn, select(reviews).with_for_update(), review_id))
            votes = await _may_vote(conn, review, person)
            vote = Vote(person, is_allowed, reason)
            await audit.append(conn, review_id, "voted", _by(person), _vote_json(review, vote))
            decided = outcome([*votes, vote], is_severe=review.is_severe)
            if decided is not None:
                await _close(conn, review, is_allowed=decided, by=person, image=image)
            return _review_of(await _one(conn, select(reviews), review_id))

        return await self._change(job_id, change, notes_too=False)

    async def appeal(self, job_id: str, tenant: str, reason: str) -> Sequence[Review]:
        """Have people look at all refused pictures of a job, once; returns their reviews.

        Raises NotFound, InvalidInput, Conflict (none can be appealed, or no longer), TooMany.
        """
        _check_reason(reason)

        async def change(conn: AsyncConnection) -> Sequence[Review]:
            await reading.job(conn, job_id, tenant)
            query = select(reviews).where(reviews.c.job_id == job_id).with_for_update()
            all_of_it = [_review_of(row) for row in await conn.execute(query)]
            oldest = utc_now() - timedelta(seconds=limits.APPEAL_S_MAX)
            mine = [
                it
                for it in all_of_it
                if it.state.value in _APPEALABLE and (it.closed_at or it.opened_at) > oldest
            ]
            if not mine:
                raise Conflict(_why_no_appeal(all_of_it), field="job_id")
            if await _room(conn, tenant) < len(mine):
                raise TooMany(
                    "too many pictures wait for a person already; appeal later",
                    limit=limits.REVIEWS_OPEN_MAX,
                    retry_after_s=limits.RETRY_AFTER_S_MAX,
                )
            for it in mine:
                state = move(REVIEW_MOVES, it.state, ReviewState.APPEALED).value
                ours = update(reviews).where(reviews.c.id == it.id)
                await conn.execute(ours.values(state=state, appeal=reason, closed_at=None))
                await audit.append(conn, it.id, "appealed", tenant, {"reason": reason})
            return [_review_of(await _one(conn, select(reviews), it.id)) for it in mine]

        return await self._change(job_id, change, notes_too=False)

    # What is sealed.

    async def sealed(self) -> set[str]:
        """The names of all that is kept."""
        query = select(reviews.c.sealed).where(reviews.c.sealed != "")
        async with self._database.reading() as conn:
            return set((await conn.execute(query)).scalars())

    async def let_go(self, *, before: datetime) -> Collection[str]:
        """Keep no longer what was decided for good, or refused before then; return the names."""
        there = reviews.c.sealed != ""
        ended = func.coalesce(reviews.c.closed_at, reviews.c.opened_at)
        over = reviews.c.state.not_in([*_OPEN, *_APPEALABLE])
        late = reviews.c.state.in_(_APPEALABLE) & (ended < before)

        async def write() -> Collection[str]:
            async with self._database.writing() as conn:
                query = select(reviews.c.sealed).where(there, over | late)
                names = sorted((await conn.execute(query)).scalars())
                gone = update(reviews).where(reviews.c.sealed.in_(names))
                await conn.execute(gone.values(sealed=""))
                return names

        return await self._database.finish(write())


async def _told(
    conn: AsyncConnection, job: Job, withheld: Sequence[Withheld]
) -> list[tuple[Withheld, ReviewState, str]]:
    """What becomes of each, and what the person is told."""
    room, kept = await _room(conn, job.tenant), await _kept(conn)
    told = []
    for it in withheld:
        if it.verdict.kind is not VerdictKind.REVIEW:
            state, text = ReviewState.REFUSED, it.verdict.detail
        elif it.sealed and room > 0:
            state, text, room = ReviewState.HELD, HELD, room - 1
        else:
            state, text = ReviewState.REFUSED, FULL
        is_kept = bool(it.sealed) and (state is ReviewState.HELD or kept < limits.REFUSED_KEPT_MAX)
        kept += is_kept and state is ReviewState.REFUSED
        told.append((it if is_kept else replace(it, sealed=""), state, text))
    return told


async def _room(conn: AsyncConnection, tenant: str) -> int:
    """How many more pictures of a tenant people can be asked to look at."""
    query = select(func.count()).where(reviews.c.state.in_(_OPEN))
    every = (await conn.execute(query)).scalar_one()
    theirs = (await conn.execute(query.where(reviews.c.tenant == tenant))).scalar_one()
    return min(limits.REVIEWS_OPEN_MAX - every, limits.REVIEWS_OPEN_PER_TENANT_MAX - theirs)


async def _kept(conn: AsyncConnection) -> int:
    query = select(func.count()).where(reviews.c.sealed != "", reviews.c.state.in_(_APPEALABLE))
    return (await conn.execute(query)).scalar_one()


async def _add(conn: AsyncConnection, job: Job, it: Withheld, state: ReviewState) -> None:
    verdict, review_id = it.verdict, content_id("rev", job.id.encode(), str(it.index).encode())
    await conn.execute(
        insert(reviews).values(
            id=review_id,
            job_id=job.id,
            index=it.index,
            image=it.image,
            tenant=job.tenant,
            asker=f"{job.tenant}/{job.user}",
            category=verdict.category,
            is_severe=it.is_severe,
            state=state.value,
            check=verdict.check,
            version=verdict.version,
            policy=verdict.policy,
            score=verdict.score,
            pixels_sha256=it.pixels_sha256,
            sealed=it.sealed,
            opened_at=utc_now(),
            appeal="",
        )
    )
    said = {"state": state.value, "category": verdict.category, "score": verdict.score}
    await audit.append(conn, review_id, "opened", f"check {verdict.check}", said)


async def _may_vote(conn: AsyncConnection, review: Review, person: Person) -> list[Vote]:
    """The votes of this round, if the person may add theirs. Raises Conflict, Forbidden."""
    if not review.is_open:
        raise Conflict(
            f"nothing is to be decided on {review.id}: it is {review.state.value}",
            field="review_id",
            state=review.state.value,
        )
    votes = await _votes(conn, review, review.round)
    before = [vote.by for vote in await _votes(conn, review, 1)] if review.round > 1 else []
    if reason := why_not(person, asker=review.asker, before=before, votes=votes):
        raise Forbidden(reason, field="Authorization", limit="another person's key")
    return votes


async def _votes(conn: AsyncConnection, review: Review, round_: int) -> list[Vote]:
    return [
        Vote(
            Person(entry.data["key"], entry.data["who"]),
            bool(entry.data["is_allowed"]),
            entry.data["reason"],
        )
        for entry in await audit.entries(conn, review.id)
        if entry.kind == "voted" and entry.data["round"] == round_
    ]


async def _close(
    conn: AsyncConnection, review: Review, *, is_allowed: bool, by: Person, image: Image | None
) -> None:
    refused = ReviewState.UPHELD if review.appeal else ReviewState.BLOCKED
    after = move(REVIEW_MOVES, review.state, ReviewState.ALLOWED if is_allowed else refused)
    ours = update(reviews).where(reviews.c.id == review.id)
    await conn.execute(ours.values(state=after.value, closed_at=utc_now()))
    await audit.append(conn, review.id, after.value, _by(by), {})
    if not is_allowed:
        held = (reviews.c.job_id == review.job_id) & (reviews.c.state == ReviewState.HELD.value)
        left = (await conn.execute(select(func.count()).where(held))).scalar_one()
        refusal = Refusal(review.index, review.category, BY_PEOPLE)
        error = Refused(
            BY_PEOPLE, category=review.category, check="people", version=review.policy
        ).problem()
        await moves.keep_back(conn, review.job_id, refusal, error, is_last=left == 0)
    elif review.sealed:
        if image is None or image.id != review.image:
            raise Conflict("its picture has to be made ready first", field="review_id")
        await moves.let_out(conn, review.job_id, image)


async def _one(conn: AsyncConnection, query: Select[Any], review_id: str) -> Row[Any]:
    found = await conn.execute(query.where(reviews.c.id == review_id))
    row: Row[Any] | None = found.one_or_none()
    if row is None:
        raise NotFound(
            f"there is no review {review_id[:40]}", field="review_id", limit="the id of a review"
        )
    return row


def _why_no_appeal(found: Sequence[Review]) -> str:
    if not found:
        return "none of its pictures was refused"
    if any(it.appeal for it in found):
        return "it was appealed before: that can be done once"
    if any(it.is_open for it in found):
        return "people have yet to look at it"
    return f"an appeal is possible for {limits.APPEAL_S_MAX / 86400:g} days"


def _error(text: str, first: Withheld) -> dict[str, Any]:
    verdict = first.verdict
    return Refused(
        text or "the picture may not be delivered",
        category=verdict.category,
        check=verdict.check,
        version=verdict.version,
    ).problem()


def _check_reason(reason: str) -> None:
    most = limits.REASON_CHARS_MAX
    if not reason.strip() or len(reason) > most:
        raise InvalidInput(
            f"a reason has 1 to {most:,} characters", field="reason", limit={"max_chars": most}
        )


def _vote_json(review: Review, vote: Vote) -> dict[str, Any]:
    return {
        "key": vote.by.key,
        "who": vote.by.who,
        "is_allowed": vote.is_allowed,
        "reason": vote.reason,
        "round": review.round,
    }


def _by(person: Person) -> str:
    return f"{person.who} ({person.key})"


def _review_of(row: Row[Any]) -> Review:
    values = {each.name: row._mapping[each.name] for each in fields(Review)}
    return Review(**{**values, "state": ReviewState(values["state"])})
