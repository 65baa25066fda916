"""The line's standing as a note: an entry for each tenant of a tier, since few change at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def entries_of(standing: Mapping[str, Any]) -> dict[str, Any]:
    """What ``policy.line.Line.standing`` gives, with each tenant as "TIER/TENANT"."""
    entries: dict[str, Any] = {"clock": standing["clock"]}
    for tier, account in standing["tiers"].items():
        entries[tier] = account | {"tenants": {}}
        for tenant, charged in account["tenants"].items():
            entries[f"{tier}/{tenant}"] = charged
    return entries


def standing_of(entries: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The standing again; None if there is no note."""
    if entries is None:
        return None
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
