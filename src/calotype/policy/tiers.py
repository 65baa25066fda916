"""What one service class was charged, whom it holds, and what its rules give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calotype.core.nouns import Tier
from calotype.policy.lanes import Account, Entry, Races, Tenant
from calotype.policy.rules import Rules

PPM = 1_000_000
_LANES_KEPT = 64  # tenants in a tier, users in a tenant, before those that say nothing are dropped


class TierAccount:
    """One service class. ``virtual`` is its own; ``clock`` is that of its tenants."""

    def __init__(self, tier: Tier, rules: Rules, scale: int) -> None:
        self.slowness = scale // rules.weights[tier]  # virtual ticks for one tick of cost
        self.share = rules.reserved.get(tier, 0.0)
        self.floor_ppm = round(rules.floors.get(tier, 0.0) * PPM)
        self.wait_s_max = rules.wait_s_max.get(tier)
        self.virtual = self.clock = 0
        self.debt = 0  # ticks started by promotion and not paid back
        self.behind = 0  # the floor, in ticks x ppm; below zero: ahead of it
        self.reserved = 0  # rows
        self.rows = 0  # running
        self.is_full = False  # holds all the rows it may
        self.is_resumed = False
        self.races = Races()
        self.late = Races(is_whole=False)  # those of ``races`` that have waited the maximum
        self.deadlines: list[tuple[float, int, Entry]] = []
        self.tenants: dict[str, Tenant] = {}
        self.tenants_max = _LANES_KEPT  # more, and it is time to drop some

    @property
    def waiting(self) -> int:
        """Jobs."""
        return self.races.live

    def tenant(self, name: str) -> Tenant:
        """The tenant's account, made if it isn't there.

        Accounts that say nothing are dropped now and then: when there are twice as many as last
        time.
        """
        if (found := self.tenants.get(name)) is not None:
            return found
        if len(self.tenants) >= self.tenants_max:
            self.tenants = {
                one: each for one, each in self.tenants.items() if each.matters(self.clock)
            }
            self.tenants_max = max(_LANES_KEPT, 2 * len(self.tenants))
        self.tenants[name] = made = Tenant(self.clock)
        return made

    def user(self, tenant: Tenant, name: str) -> Account:
        """The user's account, made if it isn't there; idle ones are dropped when there are many."""
        if (found := tenant.users.get(name)) is not None:
            return found
        if len(tenant.users) >= _LANES_KEPT and len(tenant.users) > 2 * tenant.waiting:
            tenant.users = {
                one: each for one, each in tenant.users.items() if each.matters(tenant.clock)
            }
        tenant.users[name] = made = Account(tenant.clock)
        return made

    def saved(self) -> dict[str, Any]:
        """It as JSON; tenants as [virtual, is waiting, clock of users, users]."""
        return {
            "virtual": self.virtual,
            "clock": self.clock,
            "debt": self.debt,
            "behind": self.behind,
            "waiting": self.races.live > 0,
            "tenants": {
                name: [
                    tenant.virtual,
                    tenant.waiting > 0,
                    tenant.clock,
                    {
                        user: [one.virtual, one.waiting > 0]
                        for user, one in tenant.users.items()
                        if one.matters(tenant.clock)
                    },
                ]
                for name, tenant in self.tenants.items()
                if tenant.matters(self.clock)
            },
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Be as it was when it was saved, but with nothing waiting yet."""
        self.virtual, self.clock = saved["virtual"], saved["clock"]
        self.debt, self.behind = saved.get("debt", 0), saved.get("behind", 0)
        self.is_resumed = saved["waiting"]
        for name, (virtual, is_waiting, *rest) in saved["tenants"].items():
            tenant = self.tenants[name] = Tenant(virtual, is_resumed=is_waiting)
            tenant.clock, users = rest or (0, {})  # an older server's note knows no users
            tenant.users = {user: Account(at, is_resumed=w) for user, (at, w) in users.items()}
