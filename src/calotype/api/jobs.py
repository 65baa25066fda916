"""Jobs: ask for one, look, list, cancel."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from calotype.api.bodies import (
    Fields,
    JobRequest,
    adapter_body,
    job_body,
    job_request,
    model_body,
)
from calotype.api.context import CalledPlatform, CallerKey
from calotype.core import limits
from calotype.core.nouns import AdapterKind
from calotype.flow.idempotency import HEADER

router = APIRouter(prefix="/v1", tags=["jobs"])

_REQUEST_SCHEMA = {  # job_request reads the body itself, so FastAPI can't know its shape
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": JobRequest.model_json_schema()}},
    },
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "description": "Sent again with the same body, the request makes no other job.",
            "schema": {
                "type": "string",
                "pattern": "^[!-~]*$",
                "minLength": 1,
                "maxLength": limits.IDEMPOTENCY_KEY_CHARS_MAX,
            },
        }
    ],
}
REPLAYED = "Idempotency-Replayed"  # "true": the job was made by the same request, sent before


class Page(Fields):
    """Which part of a listing: at most ``limit`` jobs, older than the job ``before``."""

    limit: int = Field(default=20, ge=1, le=limits.PAGE_JOBS_MAX)
    before: str | None = Field(default=None, max_length=64)


@router.post("/jobs", status_code=202, openapi_extra=_REQUEST_SCHEMA)
async def create_job(
    platform: CalledPlatform,
    key: CallerKey,
    asked: Annotated[JobRequest, Depends(job_request)],
    request: Request,
    response: Response,
) -> dict[str, Any]:
    """Admit a job; it is durable once this is answered."""
    given = request.headers.getlist(HEADER)
    if given:  # of several lines HTTP makes one, which is no key
        job, is_replayed = await platform.admit_once(
            key, asked.ask(), ", ".join(given), sha256_of(asked)
        )
    else:
        job, is_replayed = await platform.admit(key, asked.ask()), False
    if is_replayed:
        response.headers[REPLAYED] = "true"
    body = job_body(platform, job)
    response.headers["Location"] = body["urls"]["self"]
    return body


def sha256_of(asked: JobRequest) -> str:
    """The same for two bodies that ask for the same, however they are written."""
    values = asked.model_dump(mode="json", exclude_none=True)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@router.get("/jobs")
async def list_jobs(
    platform: CalledPlatform, key: CallerKey, page: Annotated[Page, Query()]
) -> dict[str, Any]:
    """List the tenant's jobs, newest first."""
    jobs = await platform.jobs(key, limit=page.limit, before=page.before)
    return {"jobs": [job_body(platform, job) for job in jobs]}


@router.get("/jobs/{job_id}")
async def read_job(platform: CalledPlatform, key: CallerKey, job_id: str) -> dict[str, Any]:
    """Show one job."""
    return job_body(platform, await platform.job(key, job_id))


@router.delete("/jobs/{job_id}")
async def cancel_job(platform: CalledPlatform, key: CallerKey, job_id: str) -> dict[str, Any]:
    """Cancel a job, waiting or running; cancelling it twice is the same as once."""
    return job_body(platform, await platform.cancel(key, job_id))


@router.get("/models", tags=["models"])
async def list_models(platform: CalledPlatform, _key: CallerKey) -> dict[str, Any]:
    """List the models that a job can name, and the LoRAs and ControlNets it can add to them."""
    here = platform.installation
    return {
        "models": [model_body(it, here.aliases(it.name)) for it in here.models()],
        "loras": [adapter_body(each) for each in here.adapters(AdapterKind.LORA)],
        "controls": [adapter_body(each) for each in here.adapters(AdapterKind.CONTROL)],
    }
