"""``calotype reports``: severe cases and their reports; nothing is sent unless a person does it.

With or without a running server. What is sealed is shown to two people together only, each with a
key of their own (``calotype keys create --scope cases``), and that is written down before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table, say
from calotype.cli.home import with_store

if TYPE_CHECKING:
    from calotype.core.nouns import Key
    from calotype.flow.cases import CaseBook
    from calotype.flow.reports import Reports, Unnumbered
    from calotype.jobs.cases import Case
    from calotype.jobs.store import JobStore

T = TypeVar("T")
Id = Annotated[str, typer.Argument(help="The case's id.", show_default=False)]
KeyFile = Annotated[
    Path | None, typer.Option(help="File with your key for cases; else you are asked for it.")
]

app = typer.Typer(
    help="Severe cases and their reports: list, show, send, retract.", no_args_is_help=True
)


@app.command("list")
def list_cases(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the cases, how far the report of each has come, and until when it is kept."""
    from calotype.flow.reports import unnumbered

    async def every(store: JobStore) -> list[tuple[Case, list[Unnumbered]]]:
        cases = await store.people.cases.every()
        return [(case, await unnumbered(store, case.id)) for case in cases]

    told = with_store(home, every)
    found = [case for case, _ in told]
    if as_json:
        print_json({"cases": [_body(case) | _open(others) for case, others in told]})
        return
    print_table(
        ("id", "kind", "category", "account", "job", "report", "kept until"),
        [
            (
                *(it.id, it.kind, it.category, f"{it.tenant}/{it.user}", it.job_id or "-"),
                *(it.state.value, it.kept_until.isoformat(timespec="minutes")),
            )
            for it in found
        ],
    )
    for case, others in told:
        _tell(case.id, others)


@app.command()
def show(
    *,
    case: Id,
    sealed: Annotated[
        Path | None,
        typer.Option(help="File to write what is sealed to; takes two people, and a reason."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it has to be seen; it is written down.")] = "",
    key_file: KeyFile = None,
    second_key_file: Annotated[
        Path | None, typer.Option(help="The other person's; else they are asked for it.")
    ] = None,
    home: Home = None,
) -> None:
    """Show a case: its report as it would be sent, and all that was done about it."""

    from calotype.files.private import write_private_bytes
    from calotype.flow.reports import unnumbered

    async def look(store: JobStore, reports: Reports, book: CaseBook) -> dict[str, Any]:
        found = await store.people.cases.get(case)
        trail = await store.people.audit.of(case)
        if sealed is not None:
            if not reason.strip():
                raise typer.BadParameter("say why it has to be seen", param_hint="--reason")
            one = await _key(store, key_file, "Your key")
            other = await _key(store, second_key_file, "The other person's key")
            data = await book.look(case, one, other, reason=reason)
            write_private_bytes(sealed, data)
        return {
            **_body(found),
            **_open(await unnumbered(store, case)),
            "document": (await reports.document(found)).decode(),
            "trail": [
                {"at": it.at.isoformat(), "kind": it.kind, "by": it.by, "said": it.data}
                for it in trail
            ],
        }

    print_json(_with(home, look))


@app.command()
def send(
    *,
    case: Id,
    key_file: KeyFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask again.")] = False,
    home: Home = None,
) -> None:
    """Send the report of a case, or go on with one that stopped half way."""
    from calotype.settings import REPORTS_TEST_HOST

    async def work(store: JobStore, reports: Reports, book: CaseBook) -> Case:
        key = await _key(store, key_file, "Your key")
        is_test = reports.url == REPORTS_TEST_HOST
        say(f"to {reports.url}{', the test host: it reaches nobody' if is_test else ''}")
        if not yes:
            typer.confirm(f"Send the report of {case}?", abort=True, err=True)
        return await reports.send(case, key)

    done = _with(home, work)
    print(f"{case} is reported to {done.host} under {done.report_id}.")


@app.command()
def retract(*, case: Id, key_file: KeyFile = None, home: Home = None) -> None:
    """Take a report back before it is finished, or have it never sent."""
    from calotype.flow.reports import unnumbered

    async def work(store: JobStore, reports: Reports, book: CaseBook) -> list[Unnumbered]:
        await reports.retract(case, await _key(store, key_file, "Your key"))
        return await unnumbered(store, case)

    others = _with(home, work)
    print(f"The report of {case} is retracted.")
    _tell(case, others)


async def _key(store: JobStore, path: Path | None, whose: str) -> Key:
    secret = typer.prompt(whose, hide_input=True, err=True) if path is None else _read(path)
    return await store.authenticate(secret.strip())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _with(home: Path | None, work: Callable[[JobStore, Reports, CaseBook], Awaitable[T]]) -> T:
    from calotype.flow.cases import CaseBook
    from calotype.flow.reports import Reports
    from calotype.flow.sealed import sealed_parts
    from calotype.settings import Settings

    settings = Settings(home=home)

    async def run(store: JobStore) -> T:
        _, sealed = sealed_parts(settings)
        book = CaseBook(store, sealed, kept_days=settings.kept_by_law_days)
        return await work(store, Reports(settings, store, book), book)

    return with_store(home, run)


def _tell(case: str, others: list[Unnumbered]) -> None:
    """Of reports that the service may have, and that only it can retract now."""
    for it in others:
        say(
            f"{case}: a report may be open at {it.host} without a number, since "
            f"{it.at.isoformat(timespec='minutes')}: its reference is {it.reference}; ask the "
            "service to retract it"
        )


def _open(others: list[Unnumbered]) -> dict[str, Any]:
    return {
        "unnumbered": [
            {"reference": it.reference, "host": it.host, "at": it.at.isoformat()} for it in others
        ]
    }


def _body(case: Case) -> dict[str, Any]:
    return {
        "id": case.id,
        "kind": case.kind,
        "tenant": case.tenant,
        "user": case.user,
        "job": case.job_id,
        "category": case.category,
        "check": case.check,
        "policy": case.policy,
        "sha256": case.file_sha256,
        "opened_at": case.opened_at.isoformat(),
        "kept_until": case.kept_until.isoformat(),
        "report": case.state.value,
        "report_id": case.report_id or None,
        "host": case.host or None,
        "unanswered": case.begun or None,
    }
