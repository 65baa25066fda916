"""The platform as its shells see it: everything that HTTP or a command line can ask for.

Each method is one thing a person does. What happens inside is in ``admit`` (before the line),
``dispatch`` (in the line and on an engine) and ``finish`` (after the engine).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial

import structlog

from calotype.core import limits
from calotype.core.errors import (
    Conflict,
    Forbidden,
    IllegalMove,
    Quarantined,
)
from calotype.core.ids import new_id
from calotype.core.nouns import (
    Ask,
    Event,
    IdempotencyKey,
    Job,
    Key,
)
from calotype.core.states import JobState
from calotype.delivery.webhooks import SECRET_BYTES
from calotype.files.private import secret_in
from calotype.flow import cases, local_key, marked_decoders, notices, review
from calotype.flow.admit import model_name, spec_of, tier_of
from calotype.flow.catalogue import keep_up, version_for
from calotype.flow.check_versions import CheckVersions
from calotype.flow.dispatch import Dispatcher
from calotype.flow.eta import Eta
from calotype.flow.finish import Finisher
from calotype.flow.gallery import Gallery
from calotype.flow.gate import Gate
from calotype.flow.handed import Handed
from calotype.flow.hooks import Hooks
from calotype.flow.idempotency import Once
from calotype.flow.identity import identity_of
from calotype.flow.ingredients import Larder
from calotype.flow.installation import Installation, devices_ready
from calotype.flow.lookup import Lookup
from calotype.flow.people import People
from calotype.flow.pools import engines_of
from calotype.flow.recorder import Recorder
from calotype.flow.rules import admit_rules, engine_env, line_rules
from calotype.flow.safeguards import Safeguards
from calotype.flow.tools import Tools
from calotype.flow.trials import Trials
from calotype.jobs.store import JobStore
from calotype.pool.adapters import AdapterRegistry
from calotype.pool.catalogue import Catalogue
from calotype.pool.devices import device_kind
from calotype.pool.launch import Pace
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.provenance import watermark_keys
from calotype.provenance.certificates import SigningIdentity
from calotype.safety.pictures import PictureCheck
from calotype.settings import Settings

log = structlog.get_logger("calotype.platform")

FIRST_TENANT = "default"
SCOPES = ("jobs",)  # what a key may do that nobody says more of
SCOPES_KNOWN = (*SCOPES, notices.SCOPE, review.SCOPE, cases.SCOPE)


class Platform:
    """All rooms, wired. Made by ``start``."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        registry: ModelRegistry,
        identity: SigningIdentity,
        *,
        adapters: AdapterRegistry | None = None,
        safeguards: Safeguards | None = None,
    ) -> None:
        self._settings, self._store, self._registry = settings, store, registry
        self._adapters = adapters or AdapterRegistry([])
        self._safeguards = guards = safeguards or Safeguards(settings)
        marks = watermark_keys.load_or_create(settings.secrets_folder / "watermark")
        self._finisher = Finisher(
            settings.finish_processes, identity, marks[0], guards.lists, guards.setup
        )
        pools = guards.setup.pools
        self.gallery = Gallery(settings, store, self._finisher, identity, marks, pools=pools)
        self.hooks = Hooks(
            store,
            secret_in(settings.secrets_folder / "webhooks", SECRET_BYTES),
            self.gallery.addresses_for_anyone,
            allow_private=settings.webhooks_private,
        )
        self._pool = _engines(settings, registry, guards)
        inputs = self.gallery.inputs
        self._lookup = Lookup(store, inputs, self._adapters)
        larder = Larder(self._adapters, inputs)
        guards.know(larder.named)
        self._recorder = Recorder(settings.record) if settings.record else None
        self.people = People(settings, store, self._finisher, self.gallery, guards)
        self._trials = Trials(settings.trials_folder, store, guards)
        self._versions = CheckVersions(settings, guards, self._pool, store.people.audit.note)
        tools = Tools(
            store,
            self._finisher,
            self.gallery.pictures,
            larder,
            self._recorder,
            guards.policy_of,
            self._trials.hear,
            Handed(settings.home / "handed", self.gallery.pictures),
            people=self.people.conductor,
            check=PictureCheck(setup=guards.setup),
            versions=self._versions,
        )
        self._once = Once(store, kept_s=settings.idempotency_kept_s)
        self._sweeping: list[asyncio.Task[None]] = []
        gate = Gate(store, admit_rules(settings), lambda: devices_ready(self._pool))
        rules = line_rules(settings)
        self._dispatcher = Dispatcher(tools, self._pool, registry, gate, rules)
        self.installation = Installation(
            *(registry, self._adapters, guards),
            store=store,
            pool=self._pool,
            dispatcher=self._dispatcher,
            versions=self._versions,
        )
        self.new_key: str | None = None  # the secret of the local key, if this start made it

    @classmethod
    async def start(cls, settings: Settings) -> Platform:
        """Open everything and begin; engines get warm while jobs are already accepted.

        Raises OperatorError, before anything runs, for what the installation lacks.
        """
        settings.hashes_folder.mkdir(parents=True, exist_ok=True)  # in home; lists may come later
        safeguards = await asyncio.to_thread(Safeguards, settings)
        line_rules(settings)  # refuses what settings can't say together
        admit_rules(settings)
        catalogue = Catalogue(
            settings.models_folder,
            settings.home,
            device=device_kind(),
            equip=marked_decoders.equipping(settings, safeguards.equipped),
        )
        await asyncio.to_thread(catalogue.scan)
        for model in catalogue.models.list():
            if reason := safeguards.why_not_served(model):
                log.warning("model_not_served", model=model.name, reason=reason)
        identity = await asyncio.to_thread(identity_of, settings)
        store = await JobStore.open(settings.database)
        await store.serve_alone()
        models, adapters = catalogue.models, catalogue.adapters
        platform = cls(settings, store, models, identity, adapters=adapters, safeguards=safeguards)
        platform.new_key = await local_key.ensure(
            store, settings.key_path, tenant=FIRST_TENANT, scopes=(*SCOPES, notices.SCOPE)
        )
        await platform.gallery.open()
        await platform.people.reviews.sweep()
        sweeps = (
            *platform.gallery.for_ever(),
            platform.people.reviews.let_go_for_ever(),
            platform.hooks.send_for_ever(),
            platform._once.forget_for_ever(),
            platform._trials.record_for_ever(),
            platform._versions.keep_up(),
            keep_up(catalogue, platform._dispatcher.models_seen),
        )
        platform._sweeping = [asyncio.create_task(each) for each in sweeps]
        await platform._pool.start()
        await platform._dispatcher.start()
        return platform

    async def stop(self) -> None:
        """End everything that was started; running jobs stay in the store and run again."""
        for task in self._sweeping:
            task.cancel()
        await self._dispatcher.stop()
        await self._pool.stop()
        await self.gallery.stop()
        await self.hooks.stop()
        await asyncio.to_thread(self._finisher.stop)
        if self._recorder is not None:
            self._recorder.close()
        await self._store.close()

    # Who.

    async def authenticate(self, secret: str) -> Key:
        """The key of this secret; raises Unauthorized."""
        return await self._store.authenticate(secret)

    async def create_key(
        self, *, tenant: str, name: str, user: str | None = None, scopes: Sequence[str] = SCOPES
    ) -> tuple[Key, str]:
        """A new key and its secret, which is stored nowhere."""
        return await self._store.create_key(tenant=tenant, user=user, name=name, scopes=scopes)

    async def keys(self) -> list[Key]:
        """Every key, the revoked ones too."""
        return await self._store.list_keys()

    async def revoke_key(self, key_id: str) -> None:
        """End a key; raises NotFound."""
        await self._store.revoke_key(key_id)

    # Jobs.

    async def admit_once(
        self, key: Key, ask: Ask, idempotency_key: str, body_sha256: str
    ) -> tuple[Job, bool]:
        """The job of this request, which may have been sent before (then True).

        Raises what ``Once.job`` does, and ``admit``.
        """
        return await self._once.job(
            key.tenant, idempotency_key, body_sha256, lambda once: self.admit(key, ask, once)
        )

    async def admit(self, key: Key, ask: Ask, once: IdempotencyKey | None = None) -> Job:
        """Take a job into the line, or refuse it before anything is kept.

        Raises Suspended, InvalidInput, Refused (the prompt), ModelBroken, SafetyUnavailable,
        PoolMissing, or TooMany (a bound of its tenant, or the line is full).
        """
        self._dispatcher.check_judged(self._settings.checks_down_s_max)
        await self.people.conductor.check_account(key)
        await self._safeguards.learn_age(key.tenant, key.user)
        pool = self._safeguards.pool(key.tenant, key.user)
        job_id = new_id("job")  # by it, a canary is chosen
        ask, found = await self._lookup.found(key.tenant, ask, job_id, pool=pool)
        here = self.installation
        name, usable = model_name(ask, here.default_model), partial(here.check_usable, pool=pool)
        chosen = version_for(self._registry, name, job_id, usable)
        spec, tier = spec_of(ask, chosen.info, found), tier_of(ask)
        spec = replace(spec, model_asked=chosen.asked, is_canary=chosen.is_canary, pool=pool)
        self._dispatcher.warmth.check(chosen.info, (*found.loras, *found.controls), pool=pool)
        await self.people.conductor.check_words(key, spec, self._safeguards, found.loras)
        if held := await self._store.quarantine.find(spec):
            raise Quarantined(
                f"the same job ended its engines before, and isn't run again: {held.reason}",
                field="body",
                limit="a job that differs, by its seed at least",
            )
        return await self._dispatcher.queue(
            key.tenant, tier, spec, once, user=key.user, job_id=job_id
        )

    async def job(self, key: Key, job_id: str) -> Job:
        """One of the tenant's jobs; raises NotFound, Forbidden (a pool's, for others)."""
        job = await self._store.get(job_id, tenant=key.tenant)
        if not self._may_see(key, job):
            raise Forbidden(
                "what this job made is shown only to people of its policy",
                field="job_id",
                limit=f"those who may use the pool {job.spec.pool}",
            )
        return job

    async def jobs(self, key: Key, *, limit: int, before: str | None) -> list[Job]:
        """The tenant's jobs, newest first, but for pools' that aren't this person's to see.

        Raises InvalidInput.
        """
        found: list[Job] = []
        for _ in range(limits.PAGE_LOOKS_MAX):
            page = await self._store.list_jobs(key.tenant, limit=limit, before=before)
            found += [job for job in page if self._may_see(key, job)]
            if len(page) < limit or len(found) >= limit:
                break
            before = page[-1].id
        return found[:limit]

    async def cancel(self, key: Key, job_id: str) -> Job:
        """Cancel a job, also in mid-run; raises NotFound, or Conflict when it has ended."""
        job = await self.job(key, job_id)
        if job.state is JobState.CANCELLED:
            return job
        try:
            return await self._dispatcher.cancel(job_id, by="caller")
        except IllegalMove as error:
            job = await self._store.get(job_id, tenant=key.tenant)
            if job.state is JobState.CANCELLED:  # by another request at the same time
                return job
            raise Conflict(f"the job has already {job.state.value}", state=job.state) from error

    async def events(self, key: Key, job_id: str, *, after: int) -> AsyncIterator[Event]:
        """The job's log above seq ``after``, then live; ends after its last event.

        Raises NotFound or Forbidden when awaited, before the first event.
        """
        await self.job(key, job_id)
        return self._store.subscribe(job_id, after=after)

    def position(self, job_id: str) -> int | None:
        """The place in the line, 1 = next; None when it doesn't wait."""
        return self._dispatcher.position(job_id)

    def eta(self, job: Job) -> Eta | None:
        """When a job will be done, and what it waits for; None when it is over."""
        if job.state.is_final:
            return None
        eta = self._dispatcher.eta(job)
        if eta is None and job.state is JobState.PENDING_SAFETY:
            return Eta(None, None, None, "its safety check can't run now")
        if job.state is JobState.IN_REVIEW:
            return Eta(None, None, None, "a person has to look at it first")
        return eta

    def progress(self, job: Job) -> float:
        """How much of a job is done, 0..1."""
        if job.state is JobState.SUCCEEDED:
            return 1.0
        return self._dispatcher.progress(job.id)

    async def broken(self) -> str:
        """Wait for a fault that only a restart can mend, and return it."""
        return await self._dispatcher.broken()

    def _may_see(self, key: Key, job: Job) -> bool:
        return self._safeguards.may_see(key.tenant, key.user, job.spec.pool)


def _engines(settings: Settings, registry: ModelRegistry, guards: Safeguards) -> EnginePool:
    """The engines of an installation, which aren't started yet."""
    return EnginePool(
        engines=settings.engines,
        models=registry.list(),
        pinned=registry.pinned(),
        env=engine_env(settings),
        log_folder=settings.logs_folder,
        pace=Pace(heartbeat_s=settings.heartbeat_s),
        apart=engines_of(guards.setup.pools, settings.engines),
        equip=guards.equipped,
    )
