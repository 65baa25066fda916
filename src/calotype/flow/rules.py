"""From settings to the rules of the line, of admission and of engines; what two say together.

Raises OperatorError, with the setting as its field.
"""

from __future__ import annotations

from calotype.core.errors import OperatorError
from calotype.core.messages import ARENA_VARIABLE, MEMORY_VARIABLE, STAGING_VARIABLE
from calotype.core.nouns import Tier
from calotype.policy.admit import AdmitRules, TierLimits
from calotype.policy.rules import Rules
from calotype.settings import Settings


def line_rules(settings: Settings) -> Rules:
    """How tiers share the devices."""
    return Rules(
        weights=settings.weights,
        reserved=settings.reserved,
        floors={Tier.RELAX: settings.relax_share_min},
        wait_s_max={Tier.RELAX: settings.relax_wait_s_max},
        affinity_passes_max=settings.affinity_passes_max,
        affinity_s_max=settings.affinity_s_max,
        fragmentation_max=settings.fragmentation_max,
    )


def engine_env(settings: Settings) -> dict[str, str]:
    """What engines are told by their environment; what isn't set they find out themselves."""
    told = {
        "CALOTYPE_ENGINE_FOLDER": settings.home / "engine",
        "CALOTYPE_ENGINE_THREADS": settings.engine_threads,
        MEMORY_VARIABLE: settings.engine_memory_bytes,
        STAGING_VARIABLE: settings.engine_staging_bytes,
        ARENA_VARIABLE: int(settings.engine_arena),
    }
    return {name: str(value) if value else "" for name, value in told.items()}


def admit_rules(settings: Settings) -> AdmitRules:
    """Whom to let in."""
    for tier in settings.jobs_at_once:
        if tier not in settings.jobs_per_minute:
            raise OperatorError(
                f"setting jobs_at_once: {tier} has no jobs_per_minute to be an exception from",
                field="jobs_at_once",
                limit=sorted(settings.jobs_per_minute),
            )
    return AdmitRules(
        tiers={
            tier: TierLimits(
                jobs_per_minute=settings.jobs_per_minute.get(tier),
                burst=settings.jobs_at_once.get(tier, 1),
                unfinished_max=settings.unfinished_jobs_max.get(tier),
            )
            for tier in Tier
        },
        weights=settings.weights,
        queued_max=settings.queued_jobs_max,
        queued_per_tenant_max=settings.queued_jobs_per_tenant_max,
    )
