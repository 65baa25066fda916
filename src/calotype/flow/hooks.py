"""Tells tenants of their jobs: sends what the outbox holds, and tries again for three days.

A webhook has one message under way at a time, so those of a job come in order, and a slow receiver
holds up its own messages only. A receiver that fails rests a little, whatever else is due to it.
What is sent is at least once: a message that was taken just before a crash is sent again, under the
same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

from calotype.core import limits
from calotype.core.errors import NotFound
from calotype.core.nouns import Image, Job
from calotype.delivery.targets import check_target
from calotype.delivery.webhooks import Answer, Sender, secret_of
from calotype.jobs.store import JobStore
from calotype.jobs.webhook_tries import Try
from calotype.jobs.webhooks import KINDS_FIRST, Message, MessageState, Webhook, checked

__all__ = ["Hooks", "Message", "MessageState", "Try", "Webhook"]

log = structlog.get_logger("calotype.webhooks")

# Seconds to the second, third ... try, as Standard Webhooks suggests; 75 hours in all.
WAITS_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.1  # of a wait, more or less, so that many failed messages don't come back together
REST_S_MAX = 60.0  # after a failed try, nothing else is sent to its webhook for this long at most


class Hooks:
    """The webhooks of an installation."""

    def __init__(
        self,
        store: JobStore,
        master: bytes,
        addresses_of: Callable[[Job, Image], dict[str, Any]],
        *,
        allow_private: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``master``: what secrets are made of. ``clock``: Unix seconds."""
        self._store, self._master, self._addresses_of = store, master, addresses_of
        self._allow_private, self._clock = allow_private, clock
        self._sender = Sender(allow_private=allow_private)
        self.kept = store.webhooks
        self._chance = secrets.SystemRandom()
        self._working: dict[str, asyncio.Task[None]] = {}  # by webhook id
        self._rests: dict[str, float] = {}  # until when, by webhook id

    # What tenants do.

    async def create(
        self, tenant: str, url: str, kinds: Sequence[str] | None = None
    ) -> tuple[Webhook, str]:
        """Set a webhook up; returns its secret as well.

        Raises InvalidInput, NotPublic, TooMany.
        """
        wanted = checked(KINDS_FIRST if kinds is None else kinds)
        await self.kept.check_room(tenant)  # before strangers' names are looked up
        await check_target(url, allow_private=self._allow_private)
        hook = await self.kept.create(tenant, url, wanted)
        return hook, secret_of(self._master, hook.id, hook.changed)

    async def change_secret(self, webhook_id: str, tenant: str) -> tuple[Webhook, str]:
        """Give a webhook a new secret; for a day the old one signs beside it. Raises NotFound."""
        hook = await self.kept.change_secret(webhook_id, tenant=tenant)
        return hook, secret_of(self._master, hook.id, hook.changed)

    async def replay(self, webhook_id: str, tenant: str, message_id: str | None = None) -> int:
        """Have a message sent again, or all that were given up. Raises NotFound."""
        await self.kept.get(webhook_id, tenant=tenant)
        self._rests.pop(webhook_id, None)  # whoever asks has seen to the receiver
        return await self.kept.replay(webhook_id, message_id=message_id, now=self._clock())

    async def look(
        self, webhook_id: str, tenant: str, message_id: str
    ) -> tuple[Message, list[Try], dict[str, Any] | None]:
        """A message, its tries, newest first, and what it says; raises NotFound.

        What it says is made anew, as when it is sent; None if its job is gone.
        """
        await self.kept.get(webhook_id, tenant=tenant)
        message = await self.kept.message(webhook_id, message_id)
        told: dict[str, Any] | None = None
        with contextlib.suppress(NotFound):
            told = self._told(await self._store.get(message.job_id), message)
        return message, await self.kept.tries(message), told

    # Sending.

    async def send_for_ever(self) -> None:
        """Send what is due, until cancelled."""
        forget_at, begun = 0.0, list[asyncio.Task[None]]()
        while True:
            try:
                begun = []
                begun = await self.begin_due()
                if self._clock() >= forget_at:
                    forget_at = self._clock() + limits.PICTURE_SWEEP_S
                    kept = timedelta(seconds=limits.WEBHOOK_MESSAGES_KEPT_S)
                    await self.kept.forget(before=datetime.now(UTC) - kept)
            except Exception:  # what can't be sent now is due on
                log.exception("webhooks_not_sent")
            if begun:  # what comes after it may be due by then
                await asyncio.wait(begun, timeout=limits.WEBHOOK_POLL_S)
            else:
                await asyncio.sleep(limits.WEBHOOK_POLL_S)

    async def begin_due(self) -> list[asyncio.Task[None]]:
        """Begin to send what is due to webhooks that have nothing under way; the tasks that do."""
        now, by_hook = self._clock(), dict[str, list[tuple[Webhook, Message]]]()
        self._rests = {each: until for each, until in self._rests.items() if now < until}
        busy = [*self._working, *self._rests]
        for hook, message in await self.kept.due(
            now, limits.WEBHOOK_MESSAGES_AT_ONCE, apart_from=busy
        ):
            by_hook.setdefault(hook.id, []).append((hook, message))
        begun = []
        for hook_id, due in by_hook.items():
            if len(self._working) >= limits.WEBHOOKS_AT_ONCE_MAX:
                break
            task = asyncio.create_task(self._send_all(due))
            self._working[hook_id] = task
            task.add_done_callback(partial(self._done, hook_id))
            begun.append(task)
        return begun

    def _done(self, hook_id: str, _: asyncio.Task[None]) -> None:
        self._working.pop(hook_id, None)

    async def stop(self) -> None:
        """End what is under way; it is sent again, under the same ids."""
        tasks = list(self._working.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_all(self, due: Sequence[tuple[Webhook, Message]]) -> None:
        for hook, message in due:
            try:
                began, at = time.monotonic(), datetime.fromtimestamp(self._clock(), UTC)
                answer = await self._send(hook, message)
                took_ms = round(1000 * (time.monotonic() - began))
                tried = Try(at, took_ms, answer.status, answer.reason, answer.text)
                await self._note(hook, message, answer, tried)
            except Exception:  # the message is due on, and so are the others
                log.exception("webhook_not_sent", webhook=hook.id, message=message.id)
                return
            if not answer.is_taken:
                return

    async def _send(self, hook: Webhook, message: Message) -> Answer:
        try:
            job = await self._store.get(message.job_id)
        except NotFound:
            return Answer(None, "its job is gone")
        return await self._sender.send(
            hook.url,
            message.id,
            json.dumps(self._told(job, message), separators=(",", ":")).encode(),
            secrets=self._secrets(hook),
            timestamp=int(self._clock()),
        )

    def _secrets(self, hook: Webhook) -> list[str]:
        """The secret, and for a day after it was changed the one before."""
        found = [secret_of(self._master, hook.id, hook.changed)]
        if hook.changed_at is not None:
            since_s = self._clock() - hook.changed_at.timestamp()
            if since_s < limits.WEBHOOK_SECRETS_OVERLAP_S:
                found.append(secret_of(self._master, hook.id, hook.changed - 1))
        return found

    async def _note(self, hook: Webhook, message: Message, answer: Answer, tried: Try) -> None:
        now, state, due_at = self._clock(), MessageState.SENT, message.due_at
        if not answer.is_taken:
            waits = WAITS_S[message.tries :]
            is_last = not waits or answer.is_gone
            state = MessageState.GIVEN_UP if is_last else MessageState.WAITING
            wait_s = waits[0] * self._chance.uniform(1 - JITTER, 1 + JITTER) if waits else 0.0
            due_at = now + wait_s
            self._rests[hook.id] = now + min(wait_s, REST_S_MAX)
            log.warning(
                "webhook_failed",
                webhook=hook.id,
                message=message.id,
                tries=message.tries + 1,
                status=answer.status,
                reason=answer.reason,
            )
        else:
            self._rests.pop(hook.id, None)
        await self.kept.told(message, tried, state=state, due_at=due_at)
        if answer.is_gone:
            await self.kept.enable(
                hook.id, is_on=False, reason="the receiver answered 410: it wants no more"
            )

    def _told(self, job: Job, message: Message) -> dict[str, Any]:
        """What is told: of the event, and of the job as it is when this is sent."""
        is_done = message.kind == "succeeded"
        images = [
            {
                "id": image.id,
                "index": image.index,
                "seed": image.seed,
                "width": image.width,
                "height": image.height,
                "sha256": image.sha256,
                **self._addresses_of(job, image),
            }
            for image in job.images
            if is_done
        ]
        return {
            "type": f"job.{message.kind}",
            "timestamp": message.at.isoformat(),
            "data": {
                "id": job.id,
                "tier": job.tier.value,
                "user": job.user,
                "created_at": job.created_at.isoformat(),
                "images": images,
                "refused": [vars(each) for each in job.refused] if job.state.is_final else [],
                "error": job.error if message.kind == "failed" else None,
                "url": f"/v1/jobs/{job.id}",
            },
        }
