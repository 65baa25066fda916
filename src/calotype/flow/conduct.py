"""What a refusal leads to: a strike, a suspension, a sealed case, or a picture kept for appeal.

The rules are data (``safety.conduct``). What people are told names the rule, and neither the words
nor the score by which it was found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog

from calotype.core.conduct import Strike, Suspension
from calotype.core.errors import Suspended
from calotype.core.nouns import AdapterInfo, Job, Key, Spec, Verdict, VerdictKind
from calotype.core.references import plain
from calotype.core.reviews import Withheld
from calotype.flow import lora_words
from calotype.flow.cases import CaseBook
from calotype.flow.finish import Finished, Raw
from calotype.flow.follow_up import refusal
from calotype.flow.safeguards import Safeguards
from calotype.flow.sealed import Sealed, packed
from calotype.jobs.cases import PICTURE, SENT, TEXT
from calotype.jobs.patience import patiently
from calotype.jobs.store import JobStore
from calotype.safety.conduct import SEVERE, Conduct

log = structlog.get_logger("calotype.conduct")

_RULES = {SEVERE: "a refusal of the severe kind"}  # in words, for the account's owner
_WORDS = -1  # in place of a picture's index, of a strike for a job's words
_REPEATED = "repeated refusals by the content policy"


class Conductor:
    """Follows up refusals, and keeps suspended accounts out."""

    def __init__(self, store: JobStore, rules: Conduct, cases: CaseBook, pictures: Sealed) -> None:
        """``pictures`` is where those are sealed that people may yet look at."""
        self._store, self._rules = store, rules
        self._cases, self._pictures = cases, pictures

    async def check_account(self, key: Key) -> None:
        """Raise Suspended while the key's account may make no pictures."""
        await self._check(key.tenant, key.user)

    async def check(self, job: Job) -> None:
        """The same of a job that was let in before, when an attempt of it would begin."""
        await patiently(lambda: self._check(job.tenant, job.user))

    async def check_words(
        self, key: Key, spec: Spec, guards: Safeguards, loras: Sequence[AdapterInfo] = ()
    ) -> None:
        """Raise Refused for what a job's texts ask for, all read together; it counts.

        The words of its ``loras`` are read too. What is refused for them alone, or for them and
        the texts together, counts against nobody: a maker's tags aren't what a person said. If it
        is a case it is kept as one, for people to look at.
        """
        texts, check = _texts(spec), guards.prompts(key.tenant, key.user)
        verdict = check.judge_fields(texts)
        if verdict.kind is not VerdictKind.ALLOW:
            log.warning("prompt_refused", category=verdict.category, check=verdict.check)
            await self._refused(key.tenant, key.user, verdict, TEXT, _text(texts))
            raise refusal(verdict)
        lora_words.check(check, loras)
        together = lora_words.judge_together(check, texts, loras)
        if together is not None:
            log.warning("lora_refused", category=together.category, check=together.check)
            texts["trigger_words"] = ", ".join(lora_words.of(loras))
            await self._keep(key.tenant, key.user, together, TEXT, _text(texts))
            raise refusal(together)

    async def refuse(self, job: Job, verdict: Verdict) -> None:
        """Follow up what an engine's check of words refused; again it counts nothing twice."""
        words = _text(_texts(job.spec))
        await self._refused(job.tenant, job.user, verdict, TEXT, words, job_id=job.id, index=_WORDS)

    async def sent(self, tenant: str, user: str, verdict: Verdict, data: bytes) -> None:
        """Follow up a picture that a person sent, and that was refused."""
        if verdict.category != "unjudgeable":
            await self._refused(tenant, user, verdict, SENT, data)

    async def withhold(self, job: Job, index: int, raw: Raw, finished: Finished) -> Withheld:
        """Follow up a picture that isn't allowed, and keep of it what has to be kept.

        Doing so again (its attempt was lost, and is made again) counts nothing twice.
        """
        verdict, name = finished.verdict, raw.manifest.image
        is_blocked = verdict.kind is VerdictKind.BLOCK
        is_case, sealed = is_blocked and self._rules.is_case(verdict.category), ""
        if is_blocked:
            await self._refused(
                job.tenant, job.user, verdict, PICTURE, finished.kept, job_id=job.id, index=index
            )
        if finished.kept and not is_case:
            sealed = name
            await self._pictures.seal(name, packed(raw, finished.kept))
        return Withheld(
            index,
            name,
            verdict,
            finished.pixels_sha256,
            self._rules.is_severe(verdict.category),
            sealed,
        )

    async def recover(self) -> None:
        """Take up cases that this database doesn't have, and count them: it was restored."""
        for case in await self._cases.recover():
            verdict = Verdict(
                VerdictKind.BLOCK, case.check, case.version, case.category, policy=case.policy
            )
            await self._strike(case.tenant, case.user, verdict, case.job_id, case.index)

    async def decided(self, job: Job, index: int, verdict: Verdict, *, is_allowed: bool) -> None:
        """Follow up what people decided: a refusal counts, one that was taken back doesn't."""
        if is_allowed:
            await self._store.people.strikes.forgive(job.id, index, severe_rule=SEVERE)
        else:
            await self._strike(job.tenant, job.user, verdict, job.id, index)

    async def _refused(
        self,
        tenant: str,
        user: str,
        verdict: Verdict,
        kind: str,
        data: bytes,
        *,
        job_id: str | None = None,
        index: int | None = None,
    ) -> None:
        await self._keep(tenant, user, verdict, kind, data, job_id=job_id, index=index)
        await self._strike(tenant, user, verdict, job_id, index)

    async def _keep(
        self,
        tenant: str,
        user: str,
        verdict: Verdict,
        kind: str,
        data: bytes,
        *,
        job_id: str | None = None,
        index: int | None = None,
    ) -> None:
        if self._rules.is_case(verdict.category):
            await self._cases.open(
                kind, tenant, user, verdict=verdict, data=data, job_id=job_id, index=index
            )

    async def _check(self, tenant: str, user: str) -> None:
        held = await self._store.people.strikes.suspended(tenant, user)
        if held is not None:
            raise _suspended(held)

    async def _strike(
        self, tenant: str, user: str, verdict: Verdict, job_id: str | None, index: int | None
    ) -> None:
        rule, category = self._rules.rule(verdict.category), verdict.category or ""
        if rule is None:
            return
        strike = Strike(
            tenant,
            user,
            category,
            self._rules.is_severe(category),
            verdict.check,
            verdict.policy,
            job_id,
            index,
        )
        for made in await patiently(lambda: self._store.people.strikes.add(strike, rule)):
            log.warning("account_suspended", tenant=made.tenant, user=made.user, rule=made.rule)


def _suspended(held: Suspension) -> Suspended:
    words = _RULES.get(held.rule, _REPEATED)
    until = _words(held.until) if held.until else "a person has looked at it"
    whose = "this account" if held.user is not None else "all of this tenant"
    return Suspended(
        f"{whose} may make no pictures until {until}: {words} (rule {held.rule})",
        field="Authorization",
        limit=held.rule,
        rule=held.rule,
        until=held.until.isoformat() if held.until else None,
    )


def _words(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")


def _texts(spec: Spec) -> dict[str, str]:
    return {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "loras": ", ".join(plain(lora.name) for lora in spec.loras),
    }


def _text(texts: Mapping[str, str]) -> bytes:
    return json.dumps(dict(texts), ensure_ascii=False, indent=1).encode()
