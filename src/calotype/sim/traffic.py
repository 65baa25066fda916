"""Generated traffic: a day with its hours and bursts, many tenants, a few models, popular LoRAs.

Arrivals are a Poisson process whose rate changes each minute: a sine over the day (the quietest
hour at its begin), times bursts that begin at random. Tenants and LoRAs are drawn by Zipf's law:
the k-th has weight ``k ** -zipf``. A tenant has one tier for ever. All chance comes from the seed.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Generic, TypeVar

from calotype.core.errors import InvalidInput
from calotype.core.nouns import Tier
from calotype.sim.jobs import Asked

_MINUTE_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Traffic:
    """What the traffic is made of. Shares are relative: they need not add up to one."""

    images: int = 1_000_000
    hours: float = 24.0
    tenants: int = 1_000
    zipf: float = 1.0  # of tenants and LoRAs; 0: all alike
    swing: float = 0.7  # of the day: the busiest minute is (1 + swing) x the mean, before bursts
    bursts: int = 6  # over the whole time
    burst_factor: float = 2.5
    burst_s: float = 300.0
    tiers: Mapping[Tier, float] = field(
        default_factory=lambda: {Tier.TURBO: 0.1, Tier.FAST: 0.3, Tier.RELAX: 0.6}
    )
    models: Mapping[str, float] = field(
        default_factory=lambda: {"sdxl": 0.8, "sd3": 0.12, "flux": 0.08}
    )
    loras: int = 200
    lora_share: float = 0.17  # of jobs that use one; as in GenTD26
    steps: Mapping[int, float] = field(default_factory=lambda: {4: 0.1, 20: 0.2, 30: 0.6, 50: 0.1})
    sticks: float = 0.0  # of a tenant's jobs, those for the model that its last one used
    batch: Mapping[int, float] = field(  # images of a job
        default_factory=lambda: {1: 0.58, 2: 0.14, 4: 0.28}
    )

    def __post_init__(self) -> None:
        positive = {"images": self.images, "hours": self.hours, "tenants": self.tenants}
        for name, value in positive.items():
            if value <= 0:
                raise InvalidInput(f"{name} must be above 0, not {value}", field=name)
        for name, shares in (("tiers", self.tiers), ("models", self.models)):
            if not all(0 <= share < math.inf for share in shares.values()) or not any(
                shares.values()
            ):
                raise InvalidInput(f"{name} needs shares that add up to more than 0", field=name)


def generate(traffic: Traffic, seed: int) -> Iterator[Asked]:
    """Jobs in order of time, about as many images as asked for."""
    noise = random.Random(f"{seed}:traffic")
    tenants = _Drawn(range(traffic.tenants), _zipf(traffic.tenants, traffic.zipf))
    tier_of = _tiers(traffic, random.Random(f"{seed}:tiers"))
    loras = _Drawn(range(traffic.loras), _zipf(traffic.loras, traffic.zipf))
    models = _Drawn(tuple(traffic.models), tuple(traffic.models.values()))
    steps = _Drawn(tuple(traffic.steps), tuple(traffic.steps.values()))
    batch = _Drawn(tuple(traffic.batch), tuple(traffic.batch.values()))
    last: dict[int, str] = {}  # by tenant: the model of its last job
    for at_s in _times(traffic, random.Random(f"{seed}:times")):
        tenant = tenants.draw(noise)
        has_lora = traffic.loras > 0 and noise.random() < traffic.lora_share
        if tenant in last and traffic.sticks and noise.random() < traffic.sticks:
            model = last[tenant]
        else:
            model = last[tenant] = models.draw(noise)
        yield Asked(
            at_s=round(at_s, 3),
            tenant=f"t{tenant}",
            tier=tier_of[tenant],
            model=model,
            n=batch.draw(noise),
            steps=steps.draw(noise),
            loras=(f"lora-{loras.draw(noise)}",) if has_lora else (),
        )


class _Drawn(Generic[T]):
    """Draws values by weight."""

    def __init__(self, values: Sequence[T], weights: Sequence[float]) -> None:
        self._values = values
        self._sums = list(accumulate(weights))

    def draw(self, noise: random.Random) -> T:
        at = bisect(self._sums, noise.random() * self._sums[-1])
        return self._values[min(at, len(self._values) - 1)]


def _times(traffic: Traffic, noise: random.Random) -> Iterator[float]:
    """Times of arrivals, in seconds: a Poisson process, its rate constant within a minute."""
    rates = _rates(traffic, noise)
    mean_n = sum(n * share for n, share in traffic.batch.items()) / sum(traffic.batch.values())
    scale = traffic.images / mean_n / sum(rates) / _MINUTE_S
    for minute, rate in enumerate(rates):
        at_s = minute * _MINUTE_S
        while True:
            at_s += noise.expovariate(rate * scale)
            if at_s >= (minute + 1) * _MINUTE_S:
                break
            yield at_s


def _rates(traffic: Traffic, noise: random.Random) -> list[float]:
    """How busy each minute is, against the others."""
    minutes = max(1, round(traffic.hours * 60))
    bursts = [noise.uniform(0, minutes) for _ in range(traffic.bursts)]
    length = traffic.burst_s / _MINUTE_S
    rates = []
    for minute in range(minutes):
        day = 1 - traffic.swing * math.cos(2 * math.pi * minute / (24 * 60))
        is_burst = any(begin <= minute < begin + length for begin in bursts)
        rates.append(max(day, 0.01) * (traffic.burst_factor if is_burst else 1.0))
    return rates


def _tiers(traffic: Traffic, noise: random.Random) -> Sequence[Tier]:
    """Each tenant's tier, so that the jobs' shares come near those asked for.

    The largest tenants come first, and each goes where most is missing.
    """
    weights = _zipf(traffic.tenants, traffic.zipf)
    whole, wanted = sum(weights), sum(traffic.tiers.values())
    missing = {tier: share / wanted * whole for tier, share in traffic.tiers.items()}
    chosen = []
    for weight in weights:
        most = max(missing, key=lambda tier: missing[tier] * noise.uniform(0.8, 1.2))
        missing[most] -= weight
        chosen.append(most)
    return chosen


def _zipf(count: int, exponent: float) -> list[float]:
    return [(rank + 1) ** -exponent for rank in range(count)]
