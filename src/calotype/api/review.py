"""Reviews: pictures that people have to look at, their decisions, and appeals."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from calotype.api.bodies import Fields, timestamp
from calotype.api.context import CalledPlatform, CallerKey, ReviewerKey
from calotype.core import limits
from calotype.core.nouns import Job
from calotype.core.reviews import Review, Vote

router = APIRouter(prefix="/v1", tags=["reviews"])


class ReviewsAsked(Fields):
    """Which: those that people have to decide on, or all; the oldest first."""

    state: Literal["open", "all"] = "open"
    limit: int = Field(default=50, ge=1, le=limits.PAGE_JOBS_MAX)


class LookAsked(Fields):
    """How much of a picture is shown; looking at it whole is written down."""

    size: Literal["coarse", "whole"] = "coarse"


class Decision(Fields):
    """``POST /v1/reviews/{id}/decision``."""

    model_config = ConfigDict(strict=True)

    decision: Literal["allow", "block"]
    reason: str


class Appeal(Fields):
    """``POST /v1/jobs/{id}/appeal``: why people should look at what was refused."""

    model_config = ConfigDict(strict=True)

    reason: str


@router.get("/reviews")
async def list_reviews(
    platform: CalledPlatform, _key: ReviewerKey, asked: Annotated[ReviewsAsked, Query()]
) -> dict[str, Any]:
    """List pictures that people have to look at, of all tenants."""
    found = await platform.people.reviews.every(is_open=asked.state == "open", most=asked.limit)
    return {"reviews": [_body(review) for review in found]}


@router.get("/reviews/{review_id}")
async def read_review(
    platform: CalledPlatform, _key: ReviewerKey, review_id: str
) -> dict[str, Any]:
    """Show one, with what was asked for and what others said of it in this round."""
    review, job, votes = await platform.people.reviews.get(review_id)
    return _body(review) | _asked(job) | {"votes": [_vote(vote) for vote in votes]}


@router.get("/reviews/{review_id}/picture", response_class=Response)
async def read_review_picture(
    platform: CalledPlatform,
    key: ReviewerKey,
    review_id: str,
    asked: Annotated[LookAsked, Query()],
) -> Response:
    """Show its picture: coarse unless it is asked for whole."""
    is_coarse = asked.size == "coarse"
    png = await platform.people.reviews.picture(review_id, key, is_coarse=is_coarse)
    return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})


@router.post("/reviews/{review_id}/decision")
async def decide(
    platform: CalledPlatform, key: ReviewerKey, review_id: str, asked: Decision
) -> dict[str, Any]:
    """Say what becomes of it; a severe one takes two people who say the same."""
    review = await platform.people.reviews.decide(
        review_id, key, is_allowed=asked.decision == "allow", reason=asked.reason
    )
    return _body(review)


@router.post("/jobs/{job_id}/appeal", status_code=202)
async def appeal(
    platform: CalledPlatform, key: CallerKey, job_id: str, asked: Appeal
) -> dict[str, Any]:
    """Have people look at what was refused of a job; once."""
    found = await platform.people.reviews.appeal(key, job_id, asked.reason)
    return {"job": job_id, "pictures": [{"index": it.index, "state": "appealed"} for it in found]}


def _body(review: Review) -> dict[str, Any]:
    return {
        "id": review.id,
        "job": review.job_id,
        "index": review.index,
        "tenant": review.tenant,
        "category": review.category,
        "is_severe": review.is_severe,
        "state": review.state.value,
        "check": review.check,
        "check_version": review.version,
        "policy": review.policy,
        "score": review.score,
        "appeal": review.appeal or None,
        "has_picture": bool(review.sealed),
        "opened_at": timestamp(review.opened_at),
        "closed_at": timestamp(review.closed_at),
    }


def _asked(job: Job) -> dict[str, Any]:
    spec = job.spec
    return {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "model": spec.model,
        "kind": spec.kind.value,
        "loras": [lora.name for lora in spec.loras],
    }


def _vote(vote: Vote) -> dict[str, Any]:
    said = "allow" if vote.is_allowed else "block"
    return {"by": vote.by.who, "decision": said, "reason": vote.reason}
