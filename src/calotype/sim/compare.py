"""Runs the same traffic on the same fleet under several policies, and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.sim.baselines import POLICIES
from calotype.sim.fleet import Engines, FleetPlan
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

    Every ``etas_every``-th job is told its time (0: none), where the policy is ours. Beside an
    autoscaled fleet each policy also runs on the fixed one that it begins as.

    The same arguments give the same report, byte for byte: it holds no time of this machine.
    """
    runs, plots = [], {}
    fleets = {"": plan, ", fixed": plan.fixed()} if plan.is_scaled else {"": plan}
    for policy, (also, fleet) in product(policies, fleets.items()):
        world = World(fleet, traffic(), costs, seed, policy, etas_every=etas_every)
        record = world.run()
        etas = {"eta": world.etas.figures()} if world.etas else {}
        runs.append({"policy": policy + also, **record.figures(), **etas})
        plots[policy + also] = record.plots()
    groups = zip(plan.names, plan.engines, strict=True)
    whole = f"{said}; on {', '.join(_said(*group) for group in groups)}; seed {seed}."
    return {"said": whole, "seed": seed, "engines": plan.size, "runs": runs}, plots


def _said(name: str, group: Engines) -> str:
    bounds = f" ({group.min} to {group.max})" if group.is_scaled else ""
    return f"{group.count}{bounds} x {name}"
