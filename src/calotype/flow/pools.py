"""What is set apart for policies with a pool of their own: engines by name, and stores.

``policy.pools`` keeps jobs and engines of different pools from each other, ``delivery.pooled``
their files; here is which engines and which places those are, and what can't be set apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from calotype.core.errors import OperatorError
from calotype.delivery.pooled import PooledStore
from calotype.delivery.store import PictureStore
from calotype.safety.configuration import S3, Pool
from calotype.settings import Settings


class PoolMissing(OperatorError):
    """A job needs engines and a store of its policy's own, and none are set apart."""

    kind = "pool-missing"
    title = "Nothing is set apart for this kind of picture"

    def __init__(self, pool: str) -> None:
        super().__init__(
            f"such pictures are made only in the pool {pool}, and there is none: the operator has "
            f"to set engines and a store apart, under [pools.{pool}] in safety.toml",
            field=f"pools.{pool}",
        )


def engines_of(pools: Mapping[str, Pool], engines: int) -> dict[str, str]:
    """Which engines are of which pool, by name: the last ones. Raises OperatorError if too many.

    ``engines`` is how many there are; one at least is left to everybody.
    """
    wanted = [pool.name for pool in pools.values() for _ in range(pool.engines)]
    if len(wanted) >= engines > 0 and wanted:
        raise OperatorError(
            f"{len(wanted)} engines are set apart for pools, of {engines} in all: have more "
            "engines, so that one is left for everybody else",
            field="engines",
            limit={"engines_min": len(wanted) + 1},
        )
    first = engines - len(wanted)
    return {f"engine-{first + at}": pool for at, pool in enumerate(wanted)}


def with_pools(
    common: PictureStore, pools: Mapping[str, Pool], settings: Settings, below: str
) -> PictureStore:
    """A store for all pictures: ``common``, and ``below`` each pool's place what is of that pool.

    Raises OperatorError for a place that isn't apart from the others.
    """
    if not pools:
        return common
    taken = {
        "pictures": settings.store_url or str(settings.pictures_folder),
        "inputs": settings.store_url or str(settings.inputs_folder),
        "withdrawn pictures": settings.quarantine_url or str(settings.quarantine_folder),
    }
    apart: dict[str, PictureStore] = {}
    for pool in pools.values():
        for what, place in taken.items():
            if _overlap(pool.store, place):
                raise OperatorError(
                    f"the pool {pool.name} can't keep its pictures in {pool.store}: {what} lie "
                    f"in {place}",
                    field=f"pools.{pool.name}.store",
                )
        taken[f"pictures of the pool {pool.name}"] = pool.store
        apart[pool.name] = _store(pool, settings, below)
    return PooledStore(common, apart)


def _store(pool: Pool, settings: Settings, below: str) -> PictureStore:
    if pool.store.startswith(S3):
        endpoint = settings.s3_endpoint
        return PictureStore.bucket(pool.store, below=below, endpoint=endpoint, pool=pool.name)
    return PictureStore.local(Path(pool.store) / below, pool=pool.name)


def _overlap(one: str, other: str) -> bool:
    """Whether one place is, or lies in, the other."""
    if one.startswith(S3) != other.startswith(S3):
        return False
    if not one.startswith(S3):
        one, other = (str(Path(each).resolve()) for each in (one, other))
    one, other = (f"{each.rstrip('/')}/" for each in (one, other))
    return one.startswith(other) or other.startswith(one)
