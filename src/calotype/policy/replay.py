"""The order in which waiting jobs would start: the fair order written out, without playing it.

With nobody coming or going, each job starts at its owner's virtual time plus the costs of those
before it, at each level. So the order is three sorts by that, O(n log n).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

from calotype.policy.lanes import Account, Entry


def in_order(tiers: Iterable[tuple[int, int, list[Entry]]]) -> list[Entry]:
    """Entries of tiers given as (virtual time, slowness, entries), in the order of their starts."""
    tagged: list[tuple[int, Entry]] = []
    for virtual, slowness, entries in tiers:
        order = _merged(entries, lambda entry: entry.tenant, _of_tenant)
        costs = (entry.cost * slowness for entry in order)
        starts = accumulate(costs, initial=virtual)
        tagged += zip(starts, order, strict=False)  # the last is where the tier ends
    tagged.sort(key=lambda pair: pair[0])  # stable: ties by the table of tiers
    return [entry for _, entry in tagged]


def _of_tenant(entries: list[Entry]) -> list[Entry]:
    return _merged(entries, lambda entry: entry.user, _of_user)


def _of_user(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.seq)


def _merged(
    entries: list[Entry],
    owner: Callable[[Entry], Account],
    ordered: Callable[[list[Entry]], list[Entry]],
) -> list[Entry]:
    """Owners' entries by the virtual time at which each starts; ties by arrival."""
    owned: dict[int, tuple[Account, list[Entry]]] = {}
    for entry in entries:
        account = owner(entry)
        owned.setdefault(id(account), (account, []))[1].append(entry)
    tags: list[tuple[int, int, Entry]] = []
    for account, theirs in owned.values():
        mine = ordered(theirs)
        starts = accumulate((entry.cost for entry in mine), initial=account.virtual)
        tags += [(at, entry.seq, entry) for at, entry in zip(starts, mine, strict=False)]
    tags.sort(key=lambda tag: tag[:2])
    return [entry for _, _, entry in tags]
