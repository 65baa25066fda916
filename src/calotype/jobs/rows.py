"""Rows into nouns and back. Knows the shapes of both and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from calotype.core.kinds import Kind
from calotype.core.nouns import (
    ControlUse,
    Event,
    Image,
    Job,
    Key,
    LoraUse,
    Refusal,
    Sampler,
    Spec,
    Tier,
)
from calotype.core.states import JobState


def utc_now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)


def spec_json(spec: Spec) -> dict[str, Any]:
    """What the ``spec`` column holds."""
    return asdict(spec)


def job_of(row: Row[Any], images: Iterable[Image]) -> Job:
    """A row of ``jobs``, with that job's images in order."""
    return Job(
        id=row.id,
        tenant=row.tenant,
        tier=Tier(row.tier),
        spec=spec_of(row.spec),
        state=JobState(row.state),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempt=row.attempt,
        token=row.token,
        images=tuple(images),
        error=row.error,
        refused=tuple(Refusal(**each) for each in row.refused or ()),
        user=row.user,
        fell_from=Tier(row.fell_from) if row.fell_from else None,
        charged_s=row.charged_s,
    )


def spec_of(values: dict[str, Any]) -> Spec:
    """What ``spec_json`` wrote, now or before there were kinds and adapters."""
    return Spec(
        **{
            **values,
            "sampler": Sampler(values["sampler"]),
            "kind": Kind(values.get("kind", Kind.TEXT)),
            "loras": tuple(LoraUse(**each) for each in values.get("loras", ())),
            "controls": tuple(ControlUse(**each) for each in values.get("controls", ())),
        }
    )


def refused_json(refused: Iterable[Refusal]) -> list[dict[str, Any]] | None:
    """What the ``refused`` column holds."""
    return [asdict(each) for each in refused] or None


def image_of(row: Row[Any]) -> Image:
    """A row of ``images``."""
    values = dict(row._mapping)
    del values["job_id"], values["policy"]
    return Image(**{**values, "formats": tuple(values["formats"])})


def image_values(job_id: str, image: Image) -> dict[str, Any]:
    """What a row of ``images`` holds."""
    values = asdict(replace(image, verdict=None))
    del values["files"], values["verdict"]
    return {**values, "job_id": job_id, "formats": list(image.formats)}


def event_of(row: Row[Any]) -> Event:
    """A row of ``events``."""
    return Event(job_id=row.job_id, seq=row.seq, kind=row.kind, at=row.at, data=row.data)


def key_of(row: Row[Any]) -> Key:
    """A row of ``keys``, without the secret's digest."""
    return Key(
        id=row.id,
        tenant=row.tenant,
        user=row.user,
        name=row.name,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
