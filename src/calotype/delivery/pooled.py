"""The stores of an installation as one: each file lies in its pool's, by its name, and in no other.

So who stores, serves, sweeps or deletes pictures needn't know that there are pools. Each store
refuses the files of another, so a name that went astray ends in an error and not in a store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from calotype.core.errors import OperatorError
from calotype.delivery.names import pool_of
from calotype.delivery.store import PictureStore


class PooledStore(PictureStore):
    """A store of the pictures of no pool, and one for each pool."""

    def __init__(self, common: PictureStore, apart: Mapping[str, PictureStore]) -> None:
        self._stores = {"": common, **apart}

    async def put(self, name: str, data: bytes) -> None:
        """As ``PictureStore.put``; raises OperatorError too for a pool that there isn't."""
        await self._of(name).put(name, data)

    async def get(self, name: str) -> bytes:
        """As ``PictureStore.get``."""
        return await self._of(name).get(name)

    async def exists(self, name: str) -> bool:
        """As ``PictureStore.exists``."""
        return await self._of(name).exists(name)

    async def names(self) -> AsyncIterator[list[str]]:
        """The names of all pictures' files, store by store."""
        for store in self._stores.values():
            async for page in store.names():
                yield page

    async def delete_drafts(self) -> None:
        """As ``PictureStore.delete_drafts``, in each."""
        for store in self._stores.values():
            await store.delete_drafts()

    async def delete(self, name: str) -> None:
        """As ``PictureStore.delete``."""
        await self._of(name).delete(name)

    async def presigned(self, name: str, *, ttl_s: float) -> str | None:
        """As ``PictureStore.presigned``; never of a pool's file: that this server serves itself."""
        return None if pool_of(name) else await self._of(name).presigned(name, ttl_s=ttl_s)

    async def check(self) -> None:
        """Raise OperatorError if one of them can't be reached."""
        for store in self._stores.values():
            await store.check()

    def _of(self, name: str) -> PictureStore:
        pool = pool_of(name)
        if pool not in self._stores:
            raise OperatorError(
                f"a picture is of pool {pool!r}, which isn't configured any more",
                field=f"pools.{pool}",
                limit=sorted(name for name in self._stores if name),
            )
        return self._stores[pool]
