"""What each tenant may use of the faster tiers: stored, so that it can change while a server runs.

Knows nothing of what was used: who lets jobs in counts that.
"""

from __future__ import annotations

import math

from sqlalchemy import delete, insert, select

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.nouns import Budget, WhenSpent
from calotype.jobs import tables
from calotype.jobs.database import Database


class Budgets:
    """The budgets in one database, by tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, tenant: str) -> Budget | None:
        """The tenant's budget; None: it may use what it can get."""
        return (await self.every(tenant)).get(tenant)

    async def every(self, tenant: str | None = None) -> dict[str, Budget]:
        """All budgets, or that of one tenant if it has one; in order of tenants."""
        query = select(tables.budgets).order_by(tables.budgets.c.tenant)
        if tenant is not None:
            query = query.where(tables.budgets.c.tenant == tenant)
        async with self._database.reading() as conn:
            rows = (await conn.execute(query)).all()
        return {row.tenant: Budget(row.fast_s, WhenSpent(row.when_spent)) for row in rows}

    async def put(self, tenant: str, budget: Budget | None) -> None:
        """Give the tenant this budget from now on, or (None) take its away. Raises InvalidInput."""
        most = limits.KEY_NAME_CHARS_MAX
        if not 1 <= len(tenant) <= most:
            raise InvalidInput(
                f"tenant must have 1 to {most} characters", field="tenant", limit=most
            )
        if budget is not None and not (math.isfinite(budget.fast_s) and budget.fast_s >= 0):
            raise InvalidInput(
                f"a budget is a number of seconds from 0, not {budget.fast_s:g}",
                field="fast_seconds_per_month",
                limit={"min": 0},
            )
        async with self._database.writing() as conn:
            await conn.execute(delete(tables.budgets).where(tables.budgets.c.tenant == tenant))
            if budget is not None:
                values = {"fast_s": budget.fast_s, "when_spent": budget.when_spent.value}
                await conn.execute(insert(tables.budgets).values(tenant=tenant, **values))
