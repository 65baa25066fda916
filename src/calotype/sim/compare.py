"""Runs the same traffic on the same fleet under several policies, and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.sim.baselines import POLICIES
from calotype.sim.fleet import FleetPlan
from calotype.sim.jobs import Asked, Costs
from calotype.sim.world import World


def policies_named(names: str) -> list[str]:
    """The policies of a list with commas; ``all`` is every one, ours first."""
    chosen = list(POLICIES) if names == "all" else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in POLICIES:
            known = ", ".join(POLICIES)
            raise InvalidInput(f"policy {name!r} is none of {known}", field="policy")
    return list(dict.fromkeys(chosen))


def compare(
    *,
    plan: FleetPlan,
    traffic: Callable[[], Iterable[Asked]],
    costs: Costs,
    seed: int,
    policies: Sequence[str],
    said: str,
    etas_every: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The report as JSON, and plots by policy. ``said`` describes the traffic.

    Every ``etas_every``-th job is told its time (0: none), where the policy is ours.

    The same arguments give the same report, byte for byte: it holds no time of this machine.
    """
    runs, plots = [], {}
    for policy in policies:
        world = World(plan, traffic(), costs, seed, policy, etas_every=etas_every)
        record = world.run()
        etas = {"eta": world.etas.figures()} if world.etas else {}
        runs.append({"policy": policy, **record.figures(), **etas})
        plots[policy] = record.plots()
    groups = ", ".join(f"{group.count} x {group.kind} in {group.region}" for group in plan.engines)
    whole = f"{said}; on {groups}; seed {seed}."
    return {"said": whole, "seed": seed, "engines": plan.size, "runs": runs}, plots
