"""The bodies of the native dialect: the request for a job, and the job as it is told.

Types only: what a value may be is ``flow.admit``'s to say, so that every dialect has one answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calotype.api.problems import WrongMediaType, invalid_input, unknown_fields, unknown_part
from calotype.core import limits
from calotype.core.errors import CallerError, InvalidInput
from calotype.core.families import FAMILIES
from calotype.core.nouns import (
    AdapterInfo,
    Ask,
    ControlUse,
    Image,
    InputPicture,
    Job,
    LoraUse,
    ModelInfo,
    Tier,
)
from calotype.flow.platform import Platform

FELL = "the tenant's device-seconds in turbo and fast are spent"  # why a job fell to relax


class Fields(BaseModel):
    """What a caller may name; anything else is refused together with what there is."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _know_all(cls, values: Any) -> Any:
        if isinstance(values, dict):
            unknown = [str(name) for name in values if name not in cls.model_fields]
            if unknown:
                raise unknown_fields(unknown, cls.model_fields)
        return values


class Part(BaseModel):
    """What a caller may name within a field; the same, with the place of what there isn't."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_all(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                raise unknown_part(str(name), cls.model_fields)
        return values


class LoraPart(Part):
    """A LoRA in a job, by its name in ``GET /v1/models``."""

    name: str
    weight: float = 1.0


class ControlPart(Part):
    """A ControlNet in a job, and the id of the picture that guides it."""

    name: str
    picture: str
    weight: float = 1.0
    start: float = 0.0  # share of the steps, 0..1, from which it works ...
    end: float = 1.0  # ... and up to which
    canny: bool | None = None  # take the picture's edges first; left out: as it was trained


class JobRequest(Fields):
    """``POST /v1/jobs``: what is left out is the parent's, else a LoRA's or the model's default.

    A seed that is left out is left to chance.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    prompt: str | None = None  # may be left out where there is a parent
    negative_prompt: str | None = None
    model: str | None = None
    width: int | None = None  # pixels
    height: int | None = None  # pixels
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    seed: int | None = None
    n: int | None = None  # images; 1, of a variation 4
    tier: str = Tier.FAST.value
    kind: str | None = None  # left out: what source and mask make it
    parent: str | None = None  # id of the image to vary or upscale
    source: str | None = None  # id of a picture to begin from
    mask: str | None = None  # id of a picture as large: white where the source may change
    strength: float | None = None
    loras: Annotated[tuple[LoraPart, ...], Field(strict=False)] | None = None
    controls: Annotated[tuple[ControlPart, ...], Field(strict=False)] = ()

    def ask(self) -> Ask:
        """Say the same in the nouns of ``core``."""
        values = dict(self)
        if self.loras is not None:
            values["loras"] = tuple(LoraUse(**dict(each)) for each in self.loras)
        values["controls"] = tuple(ControlUse(**dict(each)) for each in self.controls)
        return Ask(**values)


async def job_request(request: Request) -> JobRequest:
    """Read a job's request; raise WrongMediaType, CallerError (not JSON) or InvalidInput."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise WrongMediaType(
            f"the body is {media_type or 'of no type'}: send application/json",
            field="Content-Type",
            limit="application/json",
        )
    body = await request.body()
    try:
        asked = JobRequest.model_validate_json(body)
    except ValidationError as error:
        findings = error.errors(include_url=False)
        if findings[0]["type"] == "json_invalid":
            raise CallerError(
                f"the body isn't JSON: {findings[0]['msg']}", field="body", limit="a JSON object"
            ) from None
        raise invalid_input(findings) from None
    _refuse_repeats(body)
    return asked


def _refuse_repeats(body: bytes) -> None:
    """Refuse a field that is there twice: JSON allows it, and nobody can know which is meant."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise InvalidInput(f"{name} is there twice", field=name, limit="once")

    json.loads(body, object_pairs_hook=once)


def job_body(platform: Platform, job: Job) -> dict[str, Any]:
    """One job as JSON, with where it stands now and where to go from here."""
    spec = job.spec
    self_url = f"/v1/jobs/{job.id}"
    return {
        "id": job.id,
        "status": job.state.value,
        "tier": job.tier.value,
        "fell_from": job.fell_from.value if job.fell_from else None,
        "tier_detail": FELL if job.fell_from else None,
        "user": job.user,
        "progress": platform.progress(job),
        "position": platform.position(job.id),
        "eta": eta_body(platform, job),
        "created_at": timestamp(job.created_at),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
        "attempt": job.attempt,
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "model": spec.model,
        "model_asked": spec.model_asked or spec.model,
        "is_canary": spec.is_canary,
        "width": spec.width,
        "height": spec.height,
        "steps": spec.steps,
        "guidance": spec.guidance,
        "sampler": spec.sampler.value,
        "seed": spec.seed,
        "n": spec.n,
        "kind": spec.kind.value,
        "parent": spec.parent,
        "source": spec.source,
        "mask": spec.mask,
        "strength": spec.strength if spec.source else None,
        "loras": [asdict(use) for use in spec.loras],
        "controls": [asdict(use) for use in spec.controls],
        "images": [_image_body(platform, job, image) for image in job.images],
        "refused": [asdict(refusal) for refusal in job.refused],
        "error": job.error,
        "urls": {"self": self_url, "events": f"{self_url}/events", "cancel": self_url},
    }


def eta_body(platform: Platform, job: Job) -> dict[str, Any] | None:
    """When a job will be done, and what it waits for; None once it is over."""
    eta = platform.eta(job)
    return asdict(eta) if eta is not None else None


def model_body(model: ModelInfo, aliases: Mapping[str, str]) -> dict[str, Any]:
    """One model as JSON; where it lies on the server's disk is the operator's business.

    ``build`` is what its name alone stands for now, ``aliases`` has what NAME@ALIAS does.
    """
    family = FAMILIES[model.family]
    return {
        "name": model.name,
        "title": model.title,
        "family": model.family,
        "build": model.build,
        "aliases": dict(aliases),
        "licence": model.licence,
        "parameter_bytes": model.parameter_bytes,
        "size_px_min": model.size_px_min,
        "size_px_max": model.size_px_max,
        "size_px_multiple": max(limits.SIZE_PX_MULTIPLE, family.size_px_multiple),
        "samplers": [sampler.value for sampler in family.samplers],
        "has_negative_prompt": family.has_negative_prompt,
        "defaults": {
            "width": model.width,
            "height": model.height,
            "steps": model.steps,
            "guidance": model.guidance,
            "sampler": model.sampler.value,
        },
    }


def adapter_body(adapter: AdapterInfo) -> dict[str, Any]:
    """One LoRA or ControlNet as JSON; ``bases`` are models or families, none: it doesn't say.

    ``triggers`` are the words that switch a LoRA on.
    """
    return {
        "name": adapter.name,
        "title": adapter.title,
        "build": adapter.build,
        "licence": adapter.licence,
        "bases": list(adapter.bases),
        "bytes": adapter.bytes,
        "steps": adapter.steps,
        "guidance": adapter.guidance,
        "sampler": adapter.sampler.value if adapter.sampler else None,
        "control": adapter.control or None,
        "triggers": list(adapter.triggers),
    }


def input_picture_body(platform: Platform, tenant: str, picture: InputPicture) -> dict[str, Any]:
    """One picture that jobs can begin from, as JSON."""
    return {
        "id": picture.id,
        "width": picture.width,
        "height": picture.height,
        "sha256": picture.sha256,
        "url": platform.gallery.path(tenant, picture.id, "png"),
    }


def timestamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC to the millisecond: ``2026-01-31T12:00:00.000Z``."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _image_body(platform: Platform, job: Job, image: Image) -> dict[str, Any]:
    """One image, with its addresses; one that was taken away has none any more."""
    return {
        "id": image.id,
        "index": image.index,
        "seed": image.seed,
        **platform.gallery.addresses_of(job.tenant, image),
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
        "removed_at": timestamp(image.removed_at),
    }
