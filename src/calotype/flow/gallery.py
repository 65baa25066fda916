"""Everything about pictures once they are made: kept, shown, taken away, recognised. All wired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from calotype.core import limits
from calotype.core.errors import TooMany
from calotype.core.nouns import Image, Job
from calotype.delivery.formats import FORMS
from calotype.delivery.links import Links
from calotype.delivery.names import SIDES, Asked
from calotype.delivery.store import PictureStore
from calotype.flow.addresses import Addresses
from calotype.flow.delivery import Delivery
from calotype.flow.finish import Finisher
from calotype.flow.log_proofs import LogProofs
from calotype.flow.marked_decoders import marks_of
from calotype.flow.pictures import InputPictures
from calotype.flow.pools import with_pools
from calotype.flow.purges import Purges, headers_of
from calotype.flow.removal import Removals
from calotype.flow.removal_log import RemovalLog
from calotype.flow.showing import Showing
from calotype.flow.sweep import sweep, sweep_apart
from calotype.flow.verify import Origin, origin_of
from calotype.jobs.store import JobStore
from calotype.provenance.certificates import SigningIdentity
from calotype.provenance.watermark import MarkKey
from calotype.safety.configuration import Pool
from calotype.settings import Settings


class Gallery:
    """The pictures of an installation."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        finisher: Finisher,
        identity: SigningIdentity,
        mark_keys: Sequence[MarkKey],
        *,
        pools: Mapping[str, Pool] | None = None,
    ) -> None:
        self._store, self._finisher, self._mark_keys = store, finisher, tuple(mark_keys)
        self._decoders = marks_of(settings)
        self.pictures, kept, self._apart = stores(settings, pools or {})
        self.delivery = Delivery(store, finisher, self.pictures)
        self.inputs = InputPictures(store, finisher, kept, self.delivery)
        links = Links.load_or_create(settings.secrets_folder / "links", ttl_s=settings.link_ttl_s)
        self.addresses = Addresses(store, links)
        redirect_s = limits.PRESIGNED_S_MAX if settings.store_redirects else None
        self.showing = Showing(self.delivery, self.inputs, self.addresses, redirect_s=redirect_s)
        self.log_proofs = LogProofs(store.hash_log, identity)
        self.removals = removals(
            settings,
            store,
            identity,
            pictures=self.pictures,
            apart=self._apart,
            forget=self.delivery.forget,
        )
        self.is_shared = settings.shared_caches  # whether a CDN may keep what is shown
        self._looking, self._look_waits = asyncio.Semaphore(limits.VERIFIES_AT_ONCE_MAX), 0

    async def open(self) -> None:
        """Reach the stores, take away what was taken away before this database's backup, and
        delete the files that no record names. Raises OperatorError."""
        for store in (self.pictures, self._apart):
            await store.check()
        await self.removals.take_again()
        await sweep(self._store, self.pictures)
        await sweep_apart(self._store, self.pictures, self._apart)
        await self.inputs.sweep()
        await self.addresses.load()

    def for_ever(self) -> tuple[Coroutine[None, None, None], ...]:
        """What has to go on while the server runs."""
        return (
            self.inputs.let_go_for_ever(),
            self.removals.expire_for_ever(),
            self.addresses.load_for_ever(),
        )

    async def stop(self) -> None:
        """End what is being made."""
        await self.delivery.stop()

    def path(self, tenant: str, picture_id: str, form: str) -> str:
        """The signed address of a tenant's picture, below the server's own."""
        return self.addresses.path(tenant, Asked(picture_id, form=form))

    def addresses_for_anyone(self, job: Job, image: Image) -> dict[str, Any]:
        """As ``addresses_of``, for who isn't known: null of a pool's, shown to its people only."""
        return self.addresses_of(job.tenant, image, is_shown=not job.spec.pool)

    def addresses_of(self, tenant: str, image: Image, *, is_shown: bool = True) -> dict[str, Any]:
        """Where a tenant's image can be had: ``urls`` by form, ``sizes`` by its longer side.

        Those by size come in the form that the browser likes. Null if it was taken away, or isn't
        to be shown.
        """
        is_there = image.removed_at is None and is_shown
        urls = {form: self.path(tenant, image.id, form) if is_there else None for form in FORMS}
        smaller = [side for side in SIDES if side < max(image.width, image.height)]
        sizes = {
            str(side): self.addresses.path(tenant, Asked(image.id, side)) if is_there else None
            for side in smaller
        }
        return {"url": urls["png"], "webp_url": urls["webp"], "urls": urls, "sizes": sizes}

    async def look(self, data: bytes) -> Origin:
        """Tell where a file came from. Raises TooMany while others are looked at."""
        if self._look_waits >= limits.VERIFIES_WAITING_MAX:
            most = limits.VERIFIES_WAITING_MAX
            raise TooMany("other files are being looked at", limit=most, retry_after_s=2)
        self._look_waits += 1
        try:
            async with self._looking:
                seen = await self._finisher.examine(data, self._mark_keys, self._decoders)
        finally:
            self._look_waits -= 1
        return await origin_of(seen, self._store.hash_log, self._store.files, self._mark_keys)


def removals(
    settings: Settings,
    store: JobStore,
    identity: SigningIdentity,
    *,
    pictures: PictureStore,
    apart: PictureStore,
    forget: Callable[[str], None] | None,
) -> Removals:
    """What takes pictures away, by the settings; ``forget`` is None beside a server, not in it."""
    headers, url = headers_of(settings.purge_headers), settings.purge_url
    wait_s = limits.PICTURE_KNOWN_S if forget is None else 0.0
    return Removals(
        store,
        pictures,
        apart,
        forget or (lambda image_id: None),
        identity,
        removal_log=RemovalLog(settings.removals_folder),
        purges=Purges(url, headers, wait_s=wait_s) if url else None,
        kept_days=settings.kept_days,
    )


def stores(
    settings: Settings, pools: Mapping[str, Pool]
) -> tuple[PictureStore, PictureStore, PictureStore]:
    """Where delivered pictures lie, those that people sent, and those that were withdrawn.

    Of what the ``pools`` made the first and the last lie in places of theirs.
    """
    url, apart, endpoint = settings.store_url, settings.quarantine_url, settings.s3_endpoint
    if url:
        pictures = PictureStore.bucket(url, below="pictures", endpoint=endpoint)
        kept = PictureStore.bucket(url, below="inputs", endpoint=endpoint)
    else:
        pictures = PictureStore.local(settings.pictures_folder)
        kept = PictureStore.local(settings.inputs_folder)
    if apart:
        withdrawn = PictureStore.bucket(apart, below="quarantine", endpoint=endpoint)
    else:
        withdrawn = PictureStore.local(settings.quarantine_folder)
    pictures = with_pools(pictures, pools, settings, "pictures")
    return pictures, kept, with_pools(withdrawn, pools, settings, "quarantine")
