"""What an operator can set about the line: weights, reserves, waits, floors, affinity.

Shares are fractions of the devices (0..1), times are seconds. Every bound's default is here or in
``core/limits.py``; the line itself has no number of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.core.nouns import TIER_WEIGHTS, Tier


@dataclass(frozen=True)
class Rules:
    """How tiers share the devices."""

    # Shares of device-seconds while all have work: whole numbers.
    weights: Mapping[Tier, int] = field(default_factory=lambda: dict(TIER_WEIGHTS))
    # Share of the devices that no other tier may fill while this one wants it. Whole rows only:
    # 0.05 of an engine with 4 rows is nothing, of 100 of them it is 20 rows.
    reserved: Mapping[Tier, float] = field(default_factory=dict)
    # Share of device-seconds a tier gets at least, whatever is reserved for others.
    floors: Mapping[Tier, float] = field(
        default_factory=lambda: {Tier.RELAX: limits.RELAX_SHARE_MIN}
    )
    # A job that waited this long is promoted; a tier that isn't here promotes nothing.
    wait_s_max: Mapping[Tier, float] = field(
        default_factory=lambda: {Tier.RELAX: limits.RELAX_WAIT_S_MAX}
    )
    # Device-seconds that promoted jobs may be ahead of their tier's share, for each engine.
    promoted_s_max: float = limits.PROMOTED_S_MAX
    # A job may be passed by so many others whose model is warm, and for so long, and no more.
    affinity_passes_max: int = limits.AFFINITY_PASSES_MAX
    affinity_s_max: float = limits.AFFINITY_S_MAX
    # Share of a device's free memory outside its largest free block: past it models are laid anew.
    fragmentation_max: float = limits.FRAGMENTATION_MAX

    def __post_init__(self) -> None:
        if set(self.weights) != set(Tier) or any(weight < 1 for weight in self.weights.values()):
            raise OperatorError("each tier needs a weight, a whole number from 1", field="weights")
        for name, shares in (("reserved", self.reserved), ("floors", self.floors)):
            if any(not 0.0 <= share <= 1.0 for share in shares.values()):
                raise OperatorError(f"{name}: a share is between 0 and 1", field=name)
        promised = sum(
            max(self.reserved.get(tier, 0.0), self.floors.get(tier, 0.0)) for tier in Tier
        )
        if promised > 1.0:
            raise OperatorError(
                f"reserved: with the floors, {promised:.0%} of the devices are promised",
                field="reserved",
                limit=1.0,
            )
