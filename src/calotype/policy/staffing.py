"""How many servers a line needs so that few wait longer than they may.

Many servers and one line by priority (M/M/c, nobody is interrupted): a job waits if all are at
work, with whatever, and then until those of its own and of heavier tiers are through. How often all
are at work is by Halfin and Whitt ("Heavy-traffic limits for queues with many exponential servers",
1981), which needs no sum over servers as Erlang's formula does, and takes a load of any size.
"""

from __future__ import annotations

import math

_HALVINGS = 40  # until the number is known: to 1e-12 of the first guess


def staffed(load: float, whole: float, job_s: float, wait_s: float, attained: float) -> float:
    """Servers, a real number, on which that share of jobs waits no longer than ``wait_s``.

    ``load`` is how many are at work on average for them and for those that go before them,
    ``whole`` for all, and ``job_s`` what a job takes: P(W > t) = P(W > 0) e^(-(c - load) t / job_s)
    with c servers. P(W > 0) is 1 / (1 + b F(b) / f(b)), where b = (c - whole) / sqrt(whole), and f
    and F are the normal density and distribution.
    """
    if load <= 0.0:
        return 0.0

    def late(spare: float) -> float:
        b = max(0.0, load + spare - whole) / math.sqrt(whole)
        density = math.exp(-b * b / 2.0) / math.sqrt(2.0 * math.pi)
        below = 0.5 * (1.0 + math.erf(b / math.sqrt(2.0)))
        return density / (density + b * below) * math.exp(-spare * wait_s / job_s)

    low, high = 0.0, 1.0
    while late(high) > 1.0 - attained:
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if late(middle) > 1.0 - attained else (low, middle)
    return load + high
