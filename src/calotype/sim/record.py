"""What happened in a run, and the figures of it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from calotype.core.decisions import LoadModel, StartAttempt
from calotype.core.nouns import Tier
from calotype.policy.arena import Fragmentation
from calotype.sim.engines import SimEngine
from calotype.sim.fleet import FleetPlan
from calotype.sim.jobs import Asked

SLICES = 144  # of the time, in plots
_SLICE_S_MIN = 1.0
_QUANTILES = (0.5, 0.95, 0.99)
_PEAKS = ("waiting ", "engines ")  # series of which the most of a slice is kept, not the sum
_REASONS_MAX = 20  # of refusals that are told apart
_OTHERS = "others that fit on no engine"
_CURVE_POINTS = 101  # of a distribution, in plots


def quantile(ordered: Any, share: float) -> float:
    """The smallest value with at least ``share`` of all at or below it; 0 of nothing."""
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) if len(ordered) else 0.0


def jain(rates: Iterable[float]) -> float:
    """Fairness of rates, 1/n to 1: (sum x)^2 / (n sum x^2).

    Jain, Chiu and Hawe, "A quantitative measure of fairness and discrimination", DEC TR-301, 1984.
    """
    values = list(rates)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


@dataclass
class _OfTier:
    waits_s: array[float] = field(default_factory=lambda: array("d"))  # until the first start
    latencies_s: array[float] = field(default_factory=lambda: array("d"))  # until the pictures
    met: int = 0  # jobs within the objective
    images: int = 0
    failed: int = 0
    device_s: float = 0.0
    # By tenant: sums of speeds and of waits, and jobs.
    tenants: dict[str, list[float]] = field(default_factory=dict)


class Record:
    """Counts as a run goes on; ``figures`` once it is closed."""

    def __init__(self, plan: FleetPlan, from_s: float = 0.0) -> None:
        """Waits, hits and loads count from ``from_s`` on: what is before only makes a history."""
        self._plan, self._from_s = plan, from_s
        self._tiers = {tier: _OfTier() for tier in Tier}
        self._starts = self._hits = self._lora_uses = self._lora_loads = 0
        self._loads: dict[str, int] = {}  # of base models, by why
        self._loaded_bytes = self._without_block = 0
        self._torn = array("d")  # fragmentation after each load
        self._reasons: dict[str, int] = {}
        self.promoted = self._again = self._returned = 0
        self._losses, self._lost_s = 0, 0.0  # engines; device-seconds of what ran on them
        self._more, self._fewer = 0, 0  # engines, of an autoscaled fleet
        self._slice_s = _SLICE_S_MIN
        self._series: dict[str, array[float]] = {}  # by name: amounts in each slice
        self._waiting = dict.fromkeys(Tier, 0)
        self._end_s = self._arrived_s = 0.0
        self._left = 0
        self._refused: dict[str, int] = {}  # jobs, by why
        self._engines: list[SimEngine] = []

    def arrived(self, asked: Asked, now: float) -> None:
        """A job was asked for."""
        self._arrived_s = now
        self._waiting[asked.tier] += 1
        self._add("asked", now, asked.n)

    def refused(self, asked: Asked, reason: str, now: float) -> None:
        """A job was asked for that no machine could run, and wasn't let in."""
        self._arrived_s = now
        if reason not in self._refused and len(self._refused) >= _REASONS_MAX:
            reason = _OTHERS
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def started(
        self, asked: Asked, start: StartAttempt, loras: int, now: float, *, is_hit: bool
    ) -> None:
        """An attempt starts, with so many LoRAs to load. A hit came when its model was warm."""
        if asked.at_s >= self._from_s:
            self._starts += 1
            self._hits += is_hit
        self._lora_uses += len(asked.loras)
        self._lora_loads += loras
        self._reasons[start.why] = self._reasons.get(start.why, 0) + 1
        self._waiting[asked.tier] -= 1
        self._most(f"waiting {asked.tier}", now, self._waiting[asked.tier])

    def loaded(self, load: LoadModel, weights_bytes: int, now: float) -> None:
        """A base model was loaded."""
        if now < self._from_s:
            return
        self._loads[load.why] = self._loads.get(load.why, 0) + 1
        self._loaded_bytes += weights_bytes

    def laid(self, memory: Fragmentation, *, is_block: bool) -> None:
        """How an engine's memory lies after a load, and whether each part had found a block."""
        self._torn.append(memory.index)
        self._without_block += not is_block

    def again(self, asked: Asked, *, is_retry: bool) -> None:
        """A job waits once more: its attempt was lost, or else handed back."""
        self._again += is_retry
        self._returned += not is_retry
        self._waiting[asked.tier] += 1

    def lost(self, device_s: float) -> None:
        """An engine is lost, with what it had spent on what runs there."""
        self._losses += 1
        self._lost_s += device_s

    def scaled(self, more: int) -> None:
        """So many more engines of a group are wanted; fewer, if it is below 0."""
        self._more += max(0, more)
        self._fewer += max(0, -more)

    def engines(self, group: str, count: int, now: float) -> None:
        """So many of a group are paid for."""
        self._most(f"engines {group}", now, count)

    def ended(self, asked: Asked, started_s: float, device_s: float, now: float) -> None:
        """A job has its pictures."""
        if asked.at_s < self._from_s:
            return
        of = self._tiers[asked.tier]
        latency_s = now - asked.at_s
        of.waits_s.append(started_s - asked.at_s)
        of.latencies_s.append(latency_s)
        of.met += latency_s <= self._plan.objectives.get(asked.tier, math.inf)
        of.images += asked.n
        of.device_s += device_s
        sums = of.tenants.setdefault(asked.tenant, [0.0, 0.0, 0])
        sums[0] += device_s / max(latency_s, 1e-9)
        sums[1] += started_s - asked.at_s
        sums[2] += 1
        self._add(f"used {asked.tier}", now, device_s)

    def failed(self, asked: Asked) -> None:
        """A job was given up."""
        self._tiers[asked.tier].failed += 1

    def close(self, now: float, engines: Iterable[SimEngine], left: int) -> None:
        """The run is over; ``left`` jobs could never run."""
        self._end_s, self._left = now, left
        self._engines = list(engines)
        for engine in self._engines:
            if engine.is_hired:
                engine.down(now)

    def figures(self) -> dict[str, Any]:
        """Everything, as JSON: seconds, shares from 0 to 1, US dollars."""
        up_s = sum(engine.up_s for engine in self._engines)
        busy_s = sum(engine.busy_s for engine in self._engines)
        images = sum(of.images for of in self._tiers.values())
        cost = sum(engine.up_s / 3600 * self._price(engine) for engine in self._engines)
        return {
            "traffic_s": _round(self._arrived_s),
            "makespan_s": _round(self._end_s),
            "jobs": sum(len(of.waits_s) for of in self._tiers.values()),
            "images": images,
            "wait_s": _quantiles(
                sorted(wait for of in self._tiers.values() for wait in of.waits_s)
            ),
            "failed": sum(of.failed for of in self._tiers.values()),
            "never_ran": self._left,
            "refused": dict(self._refused),
            "tiers": {
                tier.value: self._of_tier(tier, of)
                for tier, of in self._tiers.items()
                if len(of.waits_s) or of.failed
            },
            "warm_hit_rate": _round(self._hits / max(1, self._starts)),
            "loads": {why: self._loads[why] for why in sorted(self._loads)},
            "loaded_gb": _round(self._loaded_bytes / 1e9),
            "fragmentation": {
                "mean": _round(sum(self._torn) / max(1, len(self._torn))),
                "max": _round(max(self._torn, default=0.0)),
                "loads_without_block": self._without_block,
            },
            "lora_hit_rate": _round(1 - self._lora_loads / max(1, self._lora_uses)),
            "utilisation": _round(busy_s / up_s if up_s else 0.0),
            "gpu_hours": _round(up_s / 3600),
            "cost": _round(cost),
            "cost_per_1000_images": _round(cost / images * 1000 if images else 0.0),
            "jain": _round(jain(self._speeds())),
            "promoted": self.promoted,
            "retried": self._again,
            "handed_back": self._returned,
            "engines": {
                "mean": _round(up_s / self._end_s if self._end_s else 0.0),
                "added": self._more,
                "given_up": self._fewer,
                "lost": self._losses,
                "lost_device_s": _round(self._lost_s),
            },
            "starts": {why: self._reasons[why] for why in sorted(self._reasons)},
        }

    def plots(self) -> dict[str, Any]:
        """What plots are drawn from: distributions of waits, and amounts over time."""
        return {
            "slice_s": self._slice_s,
            "waits": {
                tier.value: [
                    _round(quantile(ordered, at / (_CURVE_POINTS - 1)))
                    for at in range(_CURVE_POINTS)
                ]
                for tier, of in self._tiers.items()
                if (ordered := sorted(of.waits_s))
            },
            "series": {
                name: [_round(one) for one in self._series[name]] for name in sorted(self._series)
            },
        }

    def _of_tier(self, tier: Tier, of: _OfTier) -> dict[str, Any]:
        waits, latencies = sorted(of.waits_s), sorted(of.latencies_s)
        jobs = len(waits)
        return {
            "jobs": jobs,
            "images": of.images,
            "failed": of.failed,
            "wait_s": _quantiles(waits),
            "latency_s": _quantiles(latencies),
            # Of each tenant's mean wait: one who asks a thousand times counts once.
            "tenant_wait_s": _quantiles(
                sorted(wait / jobs for _, wait, jobs in of.tenants.values())
            ),
            "objective_s": self._plan.objectives.get(tier),
            "attained": _round(of.met / max(1, jobs + of.failed)),
            "device_s": _round(of.device_s),
            "jain": _round(jain(speed / jobs for speed, _, jobs in of.tenants.values())),
        }

    def _speeds(self) -> list[float]:
        """Each tenant's mean speed: device-seconds for each second from asking to the pictures."""
        tenants = (sums for of in self._tiers.values() for sums in of.tenants.values())
        return [speed / jobs for speed, _, jobs in tenants]

    def _price(self, engine: SimEngine) -> float:
        return engine.kind.spot_price_per_hour if engine.is_spot else engine.kind.price_per_hour

    def _slice(self, name: str, now: float) -> tuple[array[float], int]:
        """Where in a series a moment is; slices double when there are too many."""
        while now >= self._slice_s * SLICES:
            self._slice_s *= 2
            for key, old in self._series.items():
                join = max if key.startswith(_PEAKS) else float.__add__
                pairs = zip(old[::2], old[1::2], strict=True)
                self._series[key] = array(
                    "d", [join(*pair) for pair in pairs] + [0.0] * (SLICES // 2)
                )
        if name not in self._series:
            self._series[name] = array("d", [0.0] * SLICES)
        return self._series[name], int(now / self._slice_s)

    def _add(self, name: str, now: float, amount: float) -> None:
        series, at = self._slice(name, now)
        series[at] += amount

    def _most(self, name: str, now: float, amount: float) -> None:
        series, at = self._slice(name, now)
        series[at] = max(series[at], amount)


def _quantiles(ordered: list[float]) -> Mapping[str, float]:
    return {f"p{round(share * 100)}": _round(quantile(ordered, share)) for share in _QUANTILES}


def _round(value: float) -> float:
    return round(value, 4)
