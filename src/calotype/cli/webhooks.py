"""``calotype webhooks``: who is told of jobs, what was sent, and to have it sent again.

With or without a running server, which sends what is due. Setting one up is the tenant's to do, by
HTTP: only there its secret is told.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table
from calotype.cli.home import with_store

if TYPE_CHECKING:
    from calotype.jobs.store import JobStore
    from calotype.jobs.webhooks import Message, Webhook

Id = Annotated[str, typer.Argument(help="The webhook's id.", show_default=False)]

app = typer.Typer(help="Webhooks: list, messages, replay, enable, disable.", no_args_is_help=True)


@app.command("list")
def list_webhooks(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the webhooks of all tenants."""
    hooks = with_store(home, lambda store: store.webhooks.every())
    if as_json:
        print_json({"webhooks": [_body(hook) for hook in hooks]})
        return
    titles = ("id", "tenant", "url", "events", "disabled")
    print_table(
        titles,
        [(it.id, it.tenant, it.url, ", ".join(it.kinds), it.disabled_reason) for it in hooks],
    )


@app.command()
def messages(
    *,
    webhook: Id,
    state: Annotated[str | None, typer.Option(help="waiting, sent or given_up.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.")] = 50,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """List what was sent to a webhook, or has yet to be, newest first."""
    from calotype.jobs.webhooks import MessageState

    if state is not None and state not in [each.value for each in MessageState]:
        raise typer.BadParameter("waiting, sent or given_up", param_hint="--state")
    wanted = MessageState(state) if state else None

    async def look(store: JobStore) -> list[Message]:
        await store.webhooks.get(webhook)
        return await store.webhooks.messages(webhook, state=wanted, most=limit)

    found = with_store(home, look)
    rows = [
        (it.id, it.kind, it.job_id, it.state.value, str(it.tries), str(it.status or "-"), it.reason)
        for it in found
    ]
    titles = ("id", "event", "job", "state", "tries", "status", "reason")
    if as_json:
        print_json({"messages": [dict(zip(titles, row, strict=True)) for row in rows]})
    else:
        print_table(titles, rows)


@app.command()
def replay(
    *,
    webhook: Id,
    message: Annotated[
        str | None, typer.Option(help="Its id; else all that were given up.")
    ] = None,
    home: Home = None,
) -> None:
    """Have messages sent again, under their same ids."""

    async def again(store: JobStore) -> int:
        await store.webhooks.get(webhook)
        return await store.webhooks.replay(webhook, message_id=message, now=time.time())

    print(f"{with_store(home, again)} are sent again.")


@app.command()
def enable(*, webhook: Id, home: Home = None) -> None:
    """Switch a webhook on again."""
    with_store(home, lambda store: store.webhooks.enable(webhook, is_on=True))
    print(f"{webhook} is on.")


@app.command()
def disable(*, webhook: Id, home: Home = None) -> None:
    """Switch a webhook off: nothing is written for it, nothing sent to it."""
    with_store(
        home, lambda store: store.webhooks.enable(webhook, is_on=False, reason="by the operator")
    )
    print(f"{webhook} is off.")


def _body(hook: Webhook) -> dict[str, object]:
    return {
        "id": hook.id,
        "tenant": hook.tenant,
        "url": hook.url,
        "events": list(hook.kinds),
        "enabled": hook.disabled_at is None,
        "disabled_reason": hook.disabled_reason or None,
    }
