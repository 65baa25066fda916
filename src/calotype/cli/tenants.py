"""``calotype tenants``: what each tenant may use of the faster tiers, and what is left of it.

With or without a running server: it asks the store for a tenant's budget with each job.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table
from calotype.cli.home import with_store

if TYPE_CHECKING:
    from calotype.core.nouns import Budget
    from calotype.jobs.store import JobStore
    from calotype.policy.admit import Balance

    Tenants = dict[str, tuple[Budget, Balance] | None]

app = typer.Typer(help="Tenants and their budgets: list, set.")


@app.callback(invoke_without_command=True)
def tenants(context: typer.Context, *, as_json: AsJson = False, home: Home = None) -> None:
    """Show every tenant: its device-seconds in turbo and fast, used and left in this month.

    A month is 30 days, from the tenant's first job in it.
    """
    if context.invoked_subcommand is None:
        _show(with_store(home, _tenants), as_json=as_json)


@app.command("set")
def set_budget(
    *,
    tenant: Annotated[str, typer.Argument(help="As `calotype keys list` shows it.")],
    fast_seconds_per_month: Annotated[
        float | None, typer.Option(help="Device-seconds in turbo and fast, together.")
    ] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Take the budget away.")] = False,
    when_spent: Annotated[
        str | None,
        typer.Option(
            help="refuse (at first), or relax: its jobs then wait there, which costs none."
        ),
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Set a tenant's budget, from its next job on; what is left out stays as it is."""

    async def change(store: JobStore) -> Tenants:
        budget = None
        if not unlimited:
            old = await store.budgets.of(tenant)
            budget = _changed(old, fast_seconds_per_month, when_spent)
        await store.budgets.put(tenant, budget)
        return {tenant: (await _tenants(store)).get(tenant)}

    if unlimited and (fast_seconds_per_month is not None or when_spent is not None):
        raise typer.BadParameter("--unlimited stands alone", param_hint="--unlimited")
    _show(with_store(home, change), as_json=as_json)


def _changed(old: Budget | None, fast_s: float | None, when_spent: str | None) -> Budget:
    from calotype.core.errors import InvalidInput
    from calotype.core.nouns import Budget, WhenSpent

    if fast_s is None and (old is None or when_spent is None):
        raise InvalidInput(
            "say how much, with --fast-seconds-per-month or --unlimited",
            field="fast_seconds_per_month",
            limit={"min": 0},
        )
    names = [each.value for each in WhenSpent]
    if when_spent is not None and when_spent not in names:
        raise InvalidInput(
            f"--when-spent is {' or '.join(names)}, not {when_spent}",
            field="when_spent",
            limit=names,
        )
    then = old.when_spent if old else WhenSpent.REFUSE
    seconds = old.fast_s if fast_s is None and old else fast_s
    assert seconds is not None, "looked at above"
    return Budget(seconds, then if when_spent is None else WhenSpent(when_spent))


async def _tenants(store: JobStore) -> Tenants:
    """Every tenant that has a key or a budget, in order."""
    from calotype.flow.gate import balances

    budgeted = await balances(store)
    names = {key.tenant for key in await store.list_keys()} | set(budgeted)
    return {name: budgeted.get(name) for name in sorted(names)}


def _show(tenants: Tenants, *, as_json: bool) -> None:
    bodies = [_body(tenant, one) for tenant, one in tenants.items()]
    if as_json:
        print_json({"tenants": bodies})
        return
    titles = ("tenant", "fast seconds a month", "when spent", "used", "left", "renews")
    print_table(titles, [[_cell(value) for value in body.values()] for body in bodies])


def _body(tenant: str, one: tuple[Budget, Balance] | None) -> dict[str, Any]:
    budget, balance = one or (None, None)
    renews_at = balance.renews_at if balance else None
    return {
        "tenant": tenant,
        "fast_seconds_per_month": budget.fast_s if budget else None,
        "when_spent": budget.when_spent.value if budget else None,
        "used_s": round(balance.used_s, 3) if balance else None,
        "left_s": round(balance.left_s, 3) if balance else None,
        "renews_at": _time(renews_at) if renews_at is not None else None,
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
