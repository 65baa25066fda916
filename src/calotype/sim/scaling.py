"""Has the policy say how many machines there should be, as a server of an autoscaled fleet would.

It counts what waits, tells ``policy.scale`` of it every ``LOOK_S``, and hands on what that decides.
"""

from __future__ import annotations

from calotype.core.events import JobQueued, ModelKnown
from calotype.core.nouns import Tier
from calotype.policy.scale import FleetLooked, Group, KeepEngines, Load, Scaler, ScaleRules
from calotype.sim.fleet import GB, Engines, FleetPlan
from calotype.sim.jobs import Asked


class Scaling:
    """The fleet's scaler, and the device-seconds that wait."""

    def __init__(self, plan: FleetPlan) -> None:
        groups = [
            _group(plan, name, group) for name, group in zip(plan.names, plan.engines, strict=True)
        ]
        have = {name: group.count for name, group in zip(plan.names, plan.engines, strict=True)}
        self._plan, self._scaler = plan, Scaler(groups, ScaleRules(waits=plan.waits), have)
        self._waiting: dict[tuple[Tier, Load], float] = {}

    def known(self, model: ModelKnown) -> None:
        """What a model needs."""
        self._scaler.on(model, 0.0)

    def queued(self, job: JobQueued, now: float) -> None:
        """A job came, and waits."""
        self._scaler.on(job, now)

    def waits(self, asked: Asked, cost_s: float) -> None:
        """So much more waits of this job, or less if it is below 0."""
        key = asked.tier, Load(asked.model, self._plan.adapters(asked.loras))
        self._waiting[key] = self._waiting.get(key, 0.0) + cost_s

    def look(self, now: float) -> list[KeepEngines]:
        """Which groups change now."""
        waits = {key: cost_s for key, cost_s in self._waiting.items() if cost_s > _ROUNDING_S}
        self._waiting = waits
        return self._scaler.on(FleetLooked(dict(waits)), now)


_ROUNDING_S = 1e-6  # what is left of a sum when all of it was taken away again


def _group(plan: FleetPlan, name: str, group: Engines) -> Group:
    kind = plan.kinds[group.kind]
    spot = group.spot_hours is not None
    return Group(
        name=name,
        power=kind.speed * (kind.batch_gain if kind.rows > 1 else 1.0),
        price_per_hour=kind.spot_price_per_hour if spot else kind.price_per_hour,
        capacity_bytes=round(kind.models_gb * GB),
        kept={line.name: line.bytes for line in plan.device(group)[1]},
        start_s=group.boot_s + plan.loading.model_s,
        least=group.count if group.max is None else group.min,
        most=group.count if group.max is None else group.max,
        pinned=group.pinned,
    )
