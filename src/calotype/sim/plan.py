"""The smallest and cheapest fleet that meets the objectives: by closed form, then by simulation.

Three answers, each from less assumption and more detail:

- *formula*: images a second at peak x device-seconds each / the use one wants to plan for.
- *Erlang C* (Erlang, 1917): the fewest engines on which, at a steady peak, jobs wait no longer than
  the tightest objective allows; as if all jobs were alike and nothing was ever loaded.
- *simulated*: the fewest that met every tier's objective in a simulated peak, with the production
  policy, models and LoRAs to load, and messages that take time. Found by halving, to one per cent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.core.nouns import Tier
from calotype.policy.ledger import bytes_of
from calotype.sim.fleet import ENGINES_MAX, GB, KINDS, OBJECTIVES_S, Engines, FleetPlan, Kind
from calotype.sim.jobs import Costs
from calotype.sim.traffic import Traffic, generate
from calotype.sim.world import World

POOL_OVERHEAD = 0.165  # more engines than the formula says, for loading and for machines that fail
_PEAK_S = 900.0  # of simulated peak, at most ...
_PEAK_JOBS_MAX = 60_000  # ... or so many jobs
_MODELS = {"sdxl": 0.8, "sd3": 0.12, "flux": 0.08}


@dataclass(frozen=True)
class Wanted:
    """What the fleet has to carry."""

    images_per_day: float
    peak_per_s: float  # images
    seconds_per_image: float  # device-seconds on an A100
    utilization: float = 0.7  # of the devices at peak, for the formula
    attained: float = 0.95  # share of a tier's jobs that its objective has to hold for
    objectives: Mapping[Tier, float] = field(default_factory=lambda: dict(OBJECTIVES_S))

    def __post_init__(self) -> None:
        for name in ("images_per_day", "peak_per_s", "seconds_per_image"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidInput(f"{name} must be above 0", field=name)
        for name in ("utilization", "attained"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInput(f"{name} must be above 0 and at most 1", field=name)
        for tier, objective_s in self.objectives.items():
            if not 0 < objective_s < math.inf:
                said = f"{tier}: {objective_s:g} is no amount of seconds"
                raise InvalidInput(said, field=f"objectives.{tier}")
        if self.peak_per_s * 86_400 < self.images_per_day:
            mean = self.images_per_day / 86_400
            said = f"the peak is {self.peak_per_s:g}/s, but a day's mean is {mean:.3g}/s already"
            raise InvalidInput(said, field="peak_per_s", limit=mean)


def plan(wanted: Wanted, seed: int = 0, kinds: Mapping[str, Kind] | None = None) -> dict[str, Any]:
    """The report as JSON; raise InvalidInput when no kind can meet an objective, saying why."""
    known = dict(kinds or KINDS)
    able = {
        name: kind
        for name, kind in known.items()
        if wanted.seconds_per_image / kind.speed < _tightest(wanted)
    }
    if not able:
        raise _impossible(wanted, known)
    too_small = {name: too_large for name, kind in able.items() if (too_large := _too_large(kind))}
    able = {name: kind for name, kind in able.items() if name not in too_small}
    if not able:
        name, models = next(iter(too_small.items()))
        said = f"no kind of device can hold every model: {', '.join(models)} not on {name}"
        raise InvalidInput(said, field="fleet")
    found = [_for_kind(wanted, name, kind, seed) for name, kind in able.items()]
    found = [one for one in found if one["simulated"] is not None]
    if not found:
        said = f"no fleet of up to {ENGINES_MAX} engines met the objectives at peak"
        raise InvalidInput(said, field="objectives", limit=ENGINES_MAX)
    cheapest = min(found, key=lambda one: (one["per_hour"], one["simulated"]))
    gpus = formula(wanted, 1.0)
    return {
        "mean_per_s": round(wanted.images_per_day / 86_400, 3),
        "peak_per_s": wanted.peak_per_s,
        "formula": gpus,
        "formula_with_pool": math.ceil(gpus * (1 + POOL_OVERHEAD)),
        "kinds": found,
        "too_slow": {
            name: round(wanted.seconds_per_image / kind.speed, 3)
            for name, kind in known.items()
            if name not in able and name not in too_small
        },
        "too_small": too_small,  # by kind: the models that it can't hold
        "cheapest": cheapest["kind"],
        "why": _why(wanted, cheapest, gpus),
    }


def _too_large(kind: Kind) -> list[str]:
    """Models of the traffic that such a device can't hold."""
    needs, room = FleetPlan(()).needs, kind.models_gb * GB
    return [model for model in _MODELS if bytes_of(needs(model)) > room]


def formula(wanted: Wanted, speed: float) -> int:
    """Engines: peak x seconds / use, rounded up."""
    return math.ceil(
        wanted.peak_per_s * wanted.seconds_per_image / speed / wanted.utilization - 1e-9
    )


def erlang_c(servers: int, offered: float) -> float:
    """Chance that a job waits on so many servers; ``offered`` load in servers, below ``servers``.

    By the recursion of Erlang B, which needs no factorials.
    """
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    use = offered / servers
    return blocked / (1 - use + use * blocked)


def fewest_by_erlang(per_s: float, take_s: float, wait_s: float, attained: float) -> int:
    """Servers on which at least that share of jobs waits no longer (M/M/c, steady)."""
    offered = per_s * take_s
    servers = math.floor(offered) + 1
    while True:
        spare = servers - offered
        late = erlang_c(servers, offered) * math.exp(-spare / take_s * wait_s)
        if late <= 1 - attained + 1e-12:
            return servers
        servers += max(1, servers // 500)


def _for_kind(wanted: Wanted, name: str, kind: Kind, seed: int) -> dict[str, Any]:
    take_s = wanted.seconds_per_image / kind.speed
    wait_s = _tightest(wanted) - take_s
    erlang = fewest_by_erlang(wanted.peak_per_s, take_s, wait_s, wanted.attained)
    runs: dict[int, dict[str, Any]] = {}

    def meets(count: int) -> bool:
        if count not in runs:
            runs[count] = _simulated(wanted, name, kind, count, seed)
        return _is_met(wanted, runs[count])

    # Fewer than are always at work would do for a short peak, while relax waits it out; but not for
    # one that lasts.
    count = _fewest(meets, math.ceil(wanted.peak_per_s * take_s - 1e-9), erlang)
    figures = runs.get(count or 0, {})
    return {
        "kind": name,
        "speed": kind.speed,
        "formula": formula(wanted, kind.speed),
        "erlang_c": erlang,
        "simulated": count,
        "utilisation": figures.get("utilisation"),
        "attained": {tier: of["attained"] for tier, of in figures.get("tiers", {}).items()},
        "wait_p95_s": {tier: of["wait_s"]["p95"] for tier, of in figures.get("tiers", {}).items()},
        "per_hour": round((count or 0) * kind.price_per_hour, 2),
        "per_1000_images_at_mean": round(
            (count or 0) * kind.price_per_hour * 24 / wanted.images_per_day * 1000, 2
        ),
    }


def _fewest(meets: Any, low: int, high: int) -> int | None:
    """The fewest above ``low`` that meet, to one per cent."""
    while not meets(high):
        low, high = high, math.ceil(high * 1.15) + 1
        if high > ENGINES_MAX:
            return None
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        if meets(middle):
            high = middle
        else:
            low = middle
    return high


def _simulated(wanted: Wanted, name: str, kind: Kind, count: int, seed: int) -> dict[str, Any]:
    peak_s = min(_PEAK_S, _PEAK_JOBS_MAX / wanted.peak_per_s)
    traffic = Traffic(
        images=max(1, round(wanted.peak_per_s * peak_s)),
        hours=peak_s / 3600,
        swing=0.0,
        bursts=0,
        batch={1: 1.0},
        models=_MODELS,
    )
    warm = tuple(reversed(_MODELS))  # the most used last: it is the last to make room
    fleet = FleetPlan(
        (Engines(name, count, warm=warm),), kinds={name: kind}, objectives=wanted.objectives
    )
    costs = Costs(wanted.seconds_per_image)
    return World(fleet, generate(traffic, seed), costs, seed).run().figures()


def _is_met(wanted: Wanted, figures: Mapping[str, Any]) -> bool:
    return all(of["attained"] >= wanted.attained for of in figures["tiers"].values())


def _tightest(wanted: Wanted) -> float:
    return min(wanted.objectives.values())


def _impossible(wanted: Wanted, kinds: Mapping[str, Kind]) -> InvalidInput:
    name, kind = max(kinds.items(), key=lambda pair: pair[1].speed)
    tier = min(wanted.objectives, key=lambda one: wanted.objectives[one])
    least_s = wanted.seconds_per_image / kind.speed
    said = (
        f"{tier} within {wanted.objectives[tier]:g} s is impossible: one image takes {least_s:.3g}"
        f" s on {name}, the fastest kind, and more devices don't make one picture faster"
    )
    return InvalidInput(said, field=f"objectives.{tier}", limit=round(least_s, 3))


def _why(wanted: Wanted, cheapest: Mapping[str, Any], gpus: int) -> str:
    speed = cheapest["speed"]
    busy = wanted.peak_per_s * wanted.seconds_per_image / speed
    return (
        f"At peak {busy:.0f} {cheapest['kind']}s are at work. By Erlang C {cheapest['erlang_c']}"
        f" are enough for the waits alone, and {cheapest['simulated']} were in the simulation, with"
        f" loading. With so many devices hardly anyone waits until nearly all are in use, so the"
        f" formula's {formula(wanted, speed)} ({gpus} A100s) is not for the waits: its"
        f" {1 - wanted.utilization:.0%} to spare are for machines that fail, bursts above the peak"
        " and models that are not warm."
    )
