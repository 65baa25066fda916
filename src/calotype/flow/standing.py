"""The line's standing as a note: an entry for each tenant of a tier, since few change at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calotype.policy.pools import POOLS


def entries_of(standing: Mapping[str, Any]) -> dict[str, Any]:
    """What ``policy.pools.Lines.standing`` gives, with each tenant as "TIER/TENANT".

    Of a pool with engines of its own all is there under "POOL:".
    """
    entries: dict[str, Any] = {"clock": standing["clock"]}
    for tier, account in standing["tiers"].items():
        entries[tier] = account | {"tenants": {}}
        for tenant, charged in account["tenants"].items():
            entries[f"{tier}/{tenant}"] = charged
    for pool, said in standing.get(POOLS, {}).items():
        entries |= {f"{pool}:{name}": value for name, value in entries_of(said).items()}
    return entries


def standing_of(entries: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The standing again; None if there is no note."""
    if entries is None:
        return None
    mine, others = dict[str, Any](), dict[str, dict[str, Any]]()
    for name, value in entries.items():
        pool, colon, rest = name.partition(":")
        if colon and "/" not in pool:  # a tenant's name may have any character
            others.setdefault(pool, {})[rest] = value
        else:
            mine[name] = value
    pools = {pool: _standing_of(said) for pool, said in others.items()}
    return _standing_of(mine) | ({POOLS: pools} if pools else {})


def _standing_of(entries: Mapping[str, Any]) -> dict[str, Any]:
    tiers = {
        tier: account | {"tenants": {}}
        for tier, account in entries.items()
        if tier != "clock" and "/" not in tier
    }
    for entry, charged in entries.items():
        tier, slash, tenant = entry.partition("/")
        if slash:
            tiers[tier]["tenants"][tenant] = charged
    return {"clock": entries["clock"], "tiers": tiers}
