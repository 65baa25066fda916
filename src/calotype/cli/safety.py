"""``calotype safety``: what the checks say and why, how well they do, and what there is of them.

It works on the lists, policies and classifiers of this installation, without a server.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli import (
    safety_checks,
    safety_export,
    safety_figures,
    safety_shadow,
    safety_thresholds,
    safety_train,
)
from calotype.cli.console import AsJson, Home, print_json, print_table

app = typer.Typer(help="What the checks say, and how well they do.", no_args_is_help=True)
hashes = typer.Typer(help="Lists of known pictures, by PDQ: add, pull, list.", no_args_is_help=True)
app.add_typer(hashes, name="hashes")
app.command()(safety_checks.checks)
app.command()(safety_train.train)
app.command()(safety_train.card)
app.command()(safety_shadow.shadow)
app.command()(safety_thresholds.thresholds)
app.command()(safety_export.export)
app.command("eval")(safety_figures.evaluate)
app.command()(safety_figures.attack)
app.command()(safety_figures.bench)


@app.callback()
def safety() -> None:
    """What the checks say, and how well they do."""


@hashes.callback()
def hash_lists() -> None:
    """Lists of known pictures, by PDQ: add, pull, list."""


def _setup(home: Any) -> Any:
    from calotype.flow.safeguards import setup_of
    from calotype.settings import Settings

    return setup_of(Settings(home=home))


@app.command()
def explain(
    text: Annotated[str, typer.Argument(help="The prompt.")],
    *,
    negative: Annotated[str, typer.Option(help="The negative prompt.")] = "",
    tenant: Annotated[str, typer.Option(help="By whose policy; else by the default one.")] = "",
    user: Annotated[str, typer.Option(help="Who of the tenant asks.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Say what the check makes of a prompt, by which policy, list, view or score."""
    from calotype.flow.safeguards import prompt_check
    from calotype.settings import Settings

    policy = _setup(home).policy(tenant, user)
    check = prompt_check(Settings(home=home)).under(policy)
    report = check.explain({"prompt": text, "negative_prompt": negative})
    if as_json:
        print_json(report)
        return
    print(report["verdict"], report["category"] or "", f"(policy {report['policy']})")
    rows = [
        [each["category"], each["check"], each["field"], f"{each['score']:.2f}", _found(each)]
        for each in report["checks"]
    ]
    print_table(["category", "check", "field", "score", "found"], rows)


def _found(check: dict[str, Any]) -> str:
    return "; ".join(f"{hit['term']} ({hit['view']})" for hit in check["found"])


@app.command()
def policies(*, home: Home = None, as_json: AsJson = False) -> None:
    """List the policies, who has them, and from which scores they block a picture."""
    setup = _setup(home)
    found = [
        {
            "version": each.version,
            "title": each.title,
            "is_enabled": each.is_enabled,
            "adults_only": each.adults_only,
            "pool": each.pool,
            "is_set_apart": not each.pool or each.pool in setup.pools,
            "tenants": [name for name, policy in setup.tenants.items() if policy == each.name],
            "is_default": each.name == setup.default,
            "needs": list(each.needs),
            "pictures": dict(each.pictures),
            "prompts_off": list(each.prompts_off),
        }
        for each in setup.policies.values()
    ]
    if as_json:
        print_json(found)
        return
    rows = [
        [
            each["version"],
            "yes" if each["is_enabled"] else "no",
            each["pool"] + ("" if each["is_set_apart"] else " (there is none)"),
            "everybody else" if each["is_default"] else ", ".join(each["tenants"]) or "nobody",
            ", ".join(f"{name} {limit:g}" for name, limit in each["pictures"].items()),
        ]
        for each in found
    ]
    print_table(["policy", "on", "pool", "for", "blocks from"], rows)


@hashes.command("add")
def add_hashes(
    file: Annotated[Path, typer.Argument(help="A hash of 64 hexadecimal digits a line.")],
    *,
    name: Annotated[str, typer.Option(help="Of the list; else the file's.")] = "",
    ordinary: Annotated[
        bool, typer.Option("--ordinary", help="It is no list of abuse: a match isn't severe.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; it is written down.")] = "",
    home: Home = None,
) -> None:
    """Take a list of known pictures in, in place of one of the same name."""
    from calotype.flow.list_severity import add

    name, is_severe = name or file.stem, not ordinary
    count = _listed(
        home,
        lambda store, folder: add(store, folder, file, name, is_severe=is_severe, reason=reason),
    )
    print(f"{count:,} hashes in {name}; a server that runs sees them in a minute")


@hashes.command("severity")
def set_severity(
    name: Annotated[str, typer.Argument(help="Of a list, as `list` shows it.")],
    said: Annotated[str, typer.Argument(help="severe or ordinary.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; it is written down.")],
    home: Home = None,
) -> None:
    """Say whether a match in a list is severe: a case and a suspended account, or neither."""
    from calotype.flow.list_severity import change

    if said not in ("severe", "ordinary"):
        raise typer.BadParameter("severe or ordinary", param_hint="SAID")
    is_severe = said == "severe"
    is_new = _listed(
        home, lambda store, folder: change(store, folder, name, is_severe=is_severe, reason=reason)
    )
    print(f"a match in {name} is {said}" + ("" if is_new else " already"))


def _listed(home: Any, work: Any) -> Any:
    from calotype.cli.home import with_store
    from calotype.settings import Settings

    folder = Settings(home=home).hashes_folder
    return with_store(home, lambda store: work(store, folder))


@hashes.command("pull")
def pull_hashes(
    name: Annotated[str, typer.Argument(help="Of an exchange in safety.toml.")],
    *,
    force: Annotated[bool, typer.Option(help="Take a list that is much shorter.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring a list up to date from a hash exchange; one that was cut off goes on where it was."""
    from calotype.safety.configuration import exchange
    from calotype.safety.hash_exchange import Puller
    from calotype.settings import Settings

    settings = Settings(home=home)
    puller = Puller(exchange(settings.safety_path, name), settings.hashes_folder)
    pulled = puller.pull(force=force)
    if as_json:
        print_json(asdict(pulled))
    elif pulled.is_new:
        print(f"{pulled.hashes:,} hashes in {name}; {pulled.changes:,} changes came")
    else:
        print(f"{pulled.hashes:,} hashes in {name}; nothing new")


@hashes.command("list")
def list_hashes(*, home: Home = None, as_json: AsJson = False) -> None:
    """List the lists of known pictures."""
    from calotype.safety.hash_lists import files_of, read
    from calotype.settings import Settings

    found = [
        {
            "name": one.name,
            "hashes": len(one.hashes),
            "is_severe": one.is_severe,
            "path": str(path),
        }
        for path in files_of(Settings(home=home).hash_lists)
        for one in (read(path),)
    ]
    if as_json:
        print_json(found)
    else:
        rows = [
            [str(it["name"]), f"{it['hashes']:,}", "severe" if it["is_severe"] else "ordinary"]
            for it in found
        ]
        print_table(["list", "hashes", "a match is"], rows)
