"""Takes delivered pictures away: deleted for good, expired, or kept apart until somebody decides.

The record goes first, then the files, then caches are told. Whatever stops on the way is taken up
again by the next start, or within the hour; nobody is given the picture meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from calotype.core import limits
from calotype.core.errors import CalotypeError, InternalError, NotFound, OnHold
from calotype.core.nouns import ImageFile, Tier
from calotype.delivery.store import PictureStore
from calotype.flow.purges import Purges
from calotype.flow.removal_log import RemovalLog, Taken
from calotype.flow.sweep import discard
from calotype.jobs.files import Removal, RemovalKind
from calotype.jobs.store import JobStore
from calotype.provenance import receipts
from calotype.provenance.certificates import SigningIdentity

log = structlog.get_logger("calotype.removal")

WITHDRAWN = RemovalKind.WITHDRAWN


class Removals:
    """Takes pictures away, and keeps none longer than its tier does."""

    def __init__(
        self,
        store: JobStore,
        pictures: PictureStore,
        apart: PictureStore,
        forget: Callable[[str], None],
        identity: SigningIdentity,
        *,
        removal_log: RemovalLog,
        purges: Purges | None = None,
        kept_days: Mapping[Tier, float] | None = None,
    ) -> None:
        """``apart`` is where withdrawn pictures lie; nothing is ever served from there.

        ``forget`` is told of each picture about which something changed. What ``removal_log`` has
        lasts, whatever becomes of the database.
        """
        self._store, self._pictures, self._apart = store, pictures, apart
        self._forget, self._identity, self._purges = forget, identity, purges
        self._kept_days, self._log = dict(kept_days or {}), removal_log

    async def delete(
        self, image_id: str, *, by: str, reason: str = "", tenant: str | None = None
    ) -> dict[str, Any]:
        """Delete a picture for good, and return the signed receipt; again, the same receipt.

        Raises NotFound if there is none (of this tenant), Conflict if a tenant asks and the
        operator has withdrawn it.
        """
        return await self._end(await self._take(image_id, RemovalKind.DELETED, by, reason, tenant))

    async def withdraw(self, image_id: str, *, by: str, reason: str) -> Removal:
        """Take a picture out of delivery, and keep it apart. Raises NotFound."""
        removal = await self._take(image_id, WITHDRAWN, by, reason, None)
        if removal.ended_at is None:
            await self._end(removal)
        return removal

    async def release(self, image_id: str) -> None:
        """Give a withdrawn picture out again. Raises NotFound, Conflict."""
        removal, copied = await self._store.files.removal(image_id), list[str]()
        try:
            for file in removal.files:
                if await _moved(file, self._apart, self._pictures):
                    copied.append(file.name)
            await self._store.files.bring_back(image_id)
        except CalotypeError:
            # Deleted meanwhile: no copy outlives the receipt. Released meanwhile: it has records.
            for name in sorted(set(copied) - await self._store.files.named(copied)):
                await discard(self._pictures, name)
            raise
        # Not before: a crash between leaves it withdrawn, at the next start.
        await asyncio.to_thread(self._log.released, image_id)
        self._forget(image_id)
        for file in removal.files:
            await self._apart.delete(file.name)

    async def receipt(self, image_id: str, *, tenant: str) -> dict[str, Any]:
        """The receipt of a picture that was deleted. Raises NotFound."""
        removal = await self._store.files.removal(image_id, tenant=tenant)
        if removal.receipt is None:
            raise NotFound("the picture isn't deleted for good", field="image_id", limit="deleted")
        return removal.receipt

    async def take_again(self) -> int:
        """Take away what was taken away before, and return how many; before anything is delivered.

        A database that was restored from before it knows nothing of it. Raises OperatorError.
        """
        standing, count = await asyncio.to_thread(self._log.standing), 0
        names, most = sorted(standing), limits.EXPIRED_AT_ONCE_MAX
        for ids in (names[at : at + most] for at in range(0, len(names), most)):
            for image_id, kind in (await self._store.files.state_of(ids)).items():
                taken = standing[image_id]
                if kind is None or (kind, taken.kind) == (WITHDRAWN, RemovalKind.DELETED):
                    await self._take_again(image_id, taken)
                    count += 1
        if count:
            log.warning("pictures_taken_away_again", count=count)
        return count

    async def _take_again(self, image_id: str, taken: Taken) -> None:
        try:
            await self._take(image_id, taken.kind, taken.by, taken.reason)
        except OnHold:  # it was deleted after its hold, of which this database knows no end
            await self._take(image_id, WITHDRAWN, taken.by, taken.reason)

    async def take_up(self) -> None:
        """Go on with what was stopped half way."""
        for removal in await self._store.files.unended():
            await self._tried(removal)
        if self._purges is not None:
            await self._purges.tell(self._store, self._forget)

    async def expire(self) -> int:
        """Take away what its tier keeps no longer; return how many."""
        count = 0
        for tier, days in self._kept_days.items():
            before = datetime.now(UTC) - timedelta(days=days)
            reason = f"{tier.value} keeps pictures for {days:g} days"
            while due := await self._store.files.due(
                tier.value, before=before, most=limits.EXPIRED_AT_ONCE_MAX
            ):
                for image_id in due:
                    taken = await self._take(image_id, RemovalKind.EXPIRED, "retention", reason)
                    await self._tried(taken)
                count += len(due)
        if count:
            log.info("pictures_expired", count=count)
        return count

    async def expire_for_ever(self) -> None:
        """Look every PICTURE_SWEEP_S for what has to go, and for what was stopped half way."""
        while True:
            for work in (self.take_up, self.expire):
                try:
                    await work()
                except Exception:  # what can't go now is looked at again in an hour
                    log.exception("pictures_not_taken_away")
            await asyncio.sleep(limits.PICTURE_SWEEP_S)

    async def _take(
        self, image_id: str, kind: RemovalKind, by: str, reason: str, tenant: str | None = None
    ) -> Removal:
        removal = await self._store.files.take_away(
            image_id, kind, by=by, reason=reason, tenant=tenant
        )
        self._forget(image_id)
        return removal

    async def _tried(self, removal: Removal) -> None:
        """End a removal among others; one that can't be, say of a damaged file, holds up none."""
        try:
            await self._end(removal)
        except CalotypeError:
            log.exception("picture_not_taken_away", image=removal.image_id)

    async def _end(self, removal: Removal) -> dict[str, Any]:
        """Have the files where they belong, say so, and tell caches. Doing it again does no harm.

        Returns the receipt of what was deleted.
        """
        if removal.receipt is not None:
            return removal.receipt
        told = removal.image_id, removal.kind, removal.by, removal.reason
        await asyncio.to_thread(self._log.add, *told)  # before anybody is told that it is done
        if removal.kind is WITHDRAWN:
            for file in removal.files:
                await _moved(file, self._pictures, self._apart)
        is_for_good = removal.kind is not WITHDRAWN
        for file in removal.files:
            await _deleted(file, self._pictures)
            if is_for_good:
                await _deleted(file, self._apart)
        receipt = self._receipt(removal) if is_for_good else None
        await self._store.files.end(removal.image_id, receipt)
        log.info("picture_taken_away", image=removal.image_id, kind=removal.kind.value)
        if self._purges is not None:
            await self._purges.tell(self._store, self._forget)
        return receipt or {}

    def _receipt(self, removal: Removal) -> dict[str, Any]:
        body = {
            "image": removal.image_id,
            "tenant": removal.tenant,
            "kind": removal.kind.value,
            "by": removal.by,
            "reason": removal.reason,
            "asked_at": removal.at.isoformat(),
            "deleted_at": datetime.now(UTC).isoformat(),
            "files": [
                {"form": it.form, "side": it.side, "sha256": it.sha256} for it in removal.files
            ],
        }
        return receipts.signed(body, self._identity)


async def _moved(file: ImageFile, here: PictureStore, there: PictureStore) -> bool:
    """Copy a file, and return whether it was there; it may have been moved already."""
    try:
        data = await here.get(file.name)
    except NotFound:
        if not await there.exists(file.name):
            log.error("file_missing", name=file.name)
        return False
    await there.put(file.name, data)
    return True


async def _deleted(file: ImageFile, store: PictureStore) -> None:
    """Delete a file, and look whether it is gone: a receipt may say no more than is true."""
    await store.delete(file.name)
    if await store.exists(file.name):
        raise InternalError(f"{file.name} is still there after it was deleted")
