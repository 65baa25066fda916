"""Jobs and fleets for tests of the simulator."""

from __future__ import annotations

from typing import Any

from calotype.core.nouns import Tier
from calotype.sim.fleet import Engines, FleetPlan
from calotype.sim.jobs import Asked, Costs
from calotype.sim.world import World


def asked(at_s: float, *, tier: Tier = Tier.FAST, tenant: str = "ann", **more: Any) -> Asked:
    """A job of 10 device-seconds, unless told otherwise."""
    more.setdefault("device_s", 10.0)
    return Asked(at_s=at_s, tenant=tenant, tier=tier, model=more.pop("model", "m"), **more)


def warm(count: int = 1, **more: Any) -> FleetPlan:
    """So many A100s with the jobs' model; messages take no time."""
    return FleetPlan((Engines("A100", count, warm=("m",), **more),), delay_s=0.0)


def play(plan: FleetPlan, jobs: list[Asked], policy: str = "ours", seed: int = 0) -> dict[str, Any]:
    """The figures of a run."""
    return World(plan, jobs, Costs(), seed, policy).run().figures()
