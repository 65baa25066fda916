"""Webhooks: set one up, look at what was sent, have it sent again, change its secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from calotype.api.bodies import Fields, timestamp
from calotype.api.context import CalledPlatform, CallerKey
from calotype.core import limits
from calotype.flow.hooks import Message, MessageState, Try, Webhook

router = APIRouter(prefix="/v1", tags=["webhooks"])


class WebhookRequest(Fields):
    """``POST /v1/webhooks``: where to tell, and of what; left out: of jobs that are over."""

    model_config = ConfigDict(strict=True)

    url: str
    events: Annotated[tuple[str, ...], Field(strict=False)] | None = None


class Switch(Fields):
    """``PATCH /v1/webhooks/{id}``."""

    model_config = ConfigDict(strict=True)

    enabled: bool


class Replay(Fields):
    """``POST /v1/webhooks/{id}/replay``: which message; left out: all that were given up."""

    model_config = ConfigDict(strict=True)

    message: str | None = None


class MessagesAsked(Fields):
    """Which messages: the newest ones, in this state."""

    state: MessageState | None = None
    limit: int = Field(default=50, ge=1, le=limits.PAGE_JOBS_MAX)


@router.post("/webhooks", status_code=201)
async def create_webhook(
    platform: CalledPlatform, key: CallerKey, asked: WebhookRequest
) -> dict[str, Any]:
    """Set a webhook up; its secret is told now, and when it is changed."""
    hook, secret = await platform.hooks.create(key.tenant, asked.url, asked.events)
    return {**_body(hook), "secret": secret}


@router.get("/webhooks")
async def list_webhooks(platform: CalledPlatform, key: CallerKey) -> dict[str, Any]:
    """List the tenant's webhooks."""
    hooks = await platform.hooks.kept.every(key.tenant)
    return {"webhooks": [_body(hook) for hook in hooks]}


@router.get("/webhooks/{webhook_id}")
async def read_webhook(platform: CalledPlatform, key: CallerKey, webhook_id: str) -> dict[str, Any]:
    """Show one webhook."""
    return _body(await platform.hooks.kept.get(webhook_id, tenant=key.tenant))


@router.patch("/webhooks/{webhook_id}")
async def switch_webhook(
    platform: CalledPlatform, key: CallerKey, webhook_id: str, asked: Switch
) -> dict[str, Any]:
    """Switch a webhook off, or on again."""
    reason = "" if asked.enabled else "switched off"
    return _body(
        await platform.hooks.kept.enable(
            webhook_id, is_on=asked.enabled, reason=reason, tenant=key.tenant
        )
    )


@router.delete("/webhooks/{webhook_id}", status_code=204)
async def delete_webhook(platform: CalledPlatform, key: CallerKey, webhook_id: str) -> None:
    """End a webhook; what was still to be sent to it is forgotten."""
    await platform.hooks.kept.remove(webhook_id, tenant=key.tenant)


@router.post("/webhooks/{webhook_id}/secret")
async def change_secret(
    platform: CalledPlatform, key: CallerKey, webhook_id: str
) -> dict[str, Any]:
    """Give a webhook a new secret; for a day messages are signed with the old one too."""
    hook, secret = await platform.hooks.change_secret(webhook_id, key.tenant)
    return {**_body(hook), "secret": secret}


@router.get("/webhooks/{webhook_id}/messages")
async def list_messages(
    platform: CalledPlatform,
    key: CallerKey,
    webhook_id: str,
    asked: Annotated[MessagesAsked, Query()],
) -> dict[str, Any]:
    """List what was sent to a webhook, or has yet to be, newest first."""
    kept = platform.hooks.kept
    await kept.get(webhook_id, tenant=key.tenant)
    messages = await kept.messages(webhook_id, state=asked.state, most=asked.limit)
    return {"messages": [message_body(message) for message in messages]}


@router.get("/webhooks/{webhook_id}/messages/{message_id}")
async def read_message(
    platform: CalledPlatform, key: CallerKey, webhook_id: str, message_id: str
) -> dict[str, Any]:
    """Show a message: what it says, and how it went each time it was sent, newest first."""
    message, tries, told = await platform.hooks.look(webhook_id, key.tenant, message_id)
    return {**message_body(message), "body": told, "attempts": [_attempt(it) for it in tries]}


@router.post("/webhooks/{webhook_id}/replay")
async def replay(
    platform: CalledPlatform, key: CallerKey, webhook_id: str, asked: Replay
) -> dict[str, Any]:
    """Have a message sent again, under the same id."""
    count = await platform.hooks.replay(webhook_id, key.tenant, asked.message)
    return {"replayed": count}


def message_body(message: Message) -> dict[str, Any]:
    """A message as JSON."""
    return {
        "id": message.id,
        "type": f"job.{message.kind}",
        "job": message.job_id,
        "at": timestamp(message.at),
        "state": message.state.value,
        "tries": message.tries,
        "next_try_at": _next_try(message),
        "last_status": message.status,
        "last_reason": message.reason or None,
        "ended_at": timestamp(message.ended_at),
    }


def _next_try(message: Message) -> str | None:
    if message.state is not MessageState.WAITING:
        return None
    return timestamp(datetime.fromtimestamp(message.due_at, UTC))


def _attempt(tried: Try) -> dict[str, Any]:
    return {
        "at": timestamp(tried.at),
        "took_ms": tried.took_ms,
        "status": tried.status,
        "reason": tried.reason or None,
        "answer": tried.answer,
    }


def _body(hook: Webhook) -> dict[str, Any]:
    return {
        "id": hook.id,
        "url": hook.url,
        "events": list(hook.kinds),
        "created_at": timestamp(hook.created_at),
        "secret_changed_at": timestamp(hook.changed_at),
        "enabled": hook.disabled_at is None,
        "disabled_at": timestamp(hook.disabled_at),
        "disabled_reason": hook.disabled_reason or None,
    }
