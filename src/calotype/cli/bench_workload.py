"""What is asked of every system of ``calotype bench engine``: the same requests, from one seed.

Pure: no clock, no files, chance from a seed only. The same seed gives the same requests at every
load; only their times of arrival move together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import Literal, TypeVar

from calotype.core.nouns import Sampler, Tier

T = TypeVar("T")
Mix = Literal["mixed", "alike"]

TIERS = (Tier.TURBO, Tier.FAST, Tier.FAST, Tier.RELAX, Tier.RELAX)  # a fifth is turbo
STEPS = (4, 8, 12, 20, 30, 50)
GUIDANCES = (1.0, 3.0, 5.0, 7.0)  # the first is off: one forward a step, not two
SAMPLERS = (Sampler.DDIM, Sampler.DPMPP_2M, Sampler.EULER, Sampler.EULER_A)
ALIKE_STEPS, ALIKE_GUIDANCE, ALIKE_SAMPLER = 20, 5.0, Sampler.DPMPP_2M

_COLOURS = ("red", "green", "blue", "yellow", "white", "purple", "orange", "grey")
_THINGS = ("house", "tent", "boat", "tree", "tower", "windmill", "bridge", "castle")
_PLACES = ("by the sea", "in the hills", "in a desert", "under a starry night", "in the snow")


@dataclass(frozen=True)
class Request:
    """One picture somebody asks for."""

    number: int  # 0, 1, 2 ... in its run
    at_s: float  # arrival, seconds from the beginning of the run
    tier: Tier
    prompt: str
    steps: int
    guidance: float  # 1.0: off
    sampler: Sampler
    seed: int
    lora: str  # name; empty: none


def workload(
    count: int,
    rate: float,
    seed: int,
    *,
    mix: Mix = "mixed",
    loras: Sequence[str] = (),
    tiers: Sequence[Tier] = TIERS,
) -> list[Request]:
    """``count`` requests that arrive as a Poisson process of ``rate`` a second; 0: all at once.

    Steps, guidance, samplers and tiers are dealt like cards, each value as often as any other;
    half of the requests have one of the ``loras``, if there are any. With "alike" only prompts,
    seeds and tiers differ: the best case of a server that batches whole requests.
    """
    chance = random.Random(seed)  # noqa: S311 - chance that can be repeated, not a secret
    gaps_s = [chance.expovariate(1.0) / rate if rate else 0.0 for _ in range(count)]
    dealt_tiers = _dealt(chance, tiers)
    prompts = _dealt(chance, [f"a {' '.join(words)}" for words in product(*_WORDS)])
    steps = _dealt(chance, STEPS)
    guidances = _dealt(chance, GUIDANCES)
    samplers = _dealt(chance, SAMPLERS)
    worn = _dealt(chance, [*loras, *[""] * len(loras)] or [""])
    requests = [
        Request(
            number=number,
            at_s=at_s,
            tier=next(dealt_tiers),
            prompt=next(prompts),
            steps=next(steps),
            guidance=next(guidances),
            sampler=next(samplers),
            seed=chance.randrange(2**32),
            lora=next(worn),
        )
        for number, at_s in enumerate(accumulate(gaps_s))
    ]
    return requests if mix == "mixed" else [_alike(request) for request in requests]


def turbo_over_relax(
    turbo: Sequence[Request], spacing_s: float, relax: Sequence[Request], backlog: int
) -> list[Request]:
    """Sparse turbo requests, ``spacing_s`` apart, among relax requests that leave no idle moment.

    The first ``backlog`` relax requests arrive at once, the others as they did, from then on. The
    turbo requests come first in the list, numbered from 0.
    """
    late_s = relax[backlog - 1].at_s if backlog else 0.0
    crowd = [replace(request, at_s=max(0.0, request.at_s - late_s)) for request in relax]
    sparse = [replace(one, at_s=spacing_s * (place + 1)) for place, one in enumerate(turbo)]
    return [replace(one, number=number) for number, one in enumerate([*sparse, *crowd])]


def _alike(request: Request) -> Request:
    return replace(
        request, steps=ALIKE_STEPS, guidance=ALIKE_GUIDANCE, sampler=ALIKE_SAMPLER, lora=""
    )


def _dealt(chance: random.Random, values: Sequence[T]) -> Iterator[T]:
    """The values in a random order, then all again in another, for ever."""
    while True:
        yield from chance.sample(values, len(values))


_WORDS = (_COLOURS, _THINGS, _PLACES)
