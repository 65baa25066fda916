"""``calotype safety checks``: which checks there are, and which version of each judges where."""

from __future__ import annotations

from typing import Any

from calotype.cli.console import AsJson, Home, print_json, print_table


def checks(*, home: Home = None, as_json: AsJson = False) -> None:
    """List the checks, what a model that can draw anything lacks, and versions by engine.

    Of a running server it says which version is in force, which one is to be, and why an engine
    hasn't got that.
    """
    from calotype.flow.safeguards import setup_of
    from calotype.settings import Settings

    settings = Settings(home=home)
    setup = setup_of(settings)
    found: list[dict[str, Any]] = [
        {
            "name": each.use.name,
            "kind": each.use.kind,
            "build": each.use.build,
            "path": each.use.path,
            "categories": dict(each.categories),
        }
        for each in (*setup.domains.values(), *setup.checks)
    ]
    missing, running = setup.missing(""), _running(settings)
    if as_json:
        print_json({"checks": found, "missing": missing, "running": running})
        return
    rows = [
        [
            each["name"],
            each["kind"],
            each["build"],
            ", ".join(f"{label}: {category}" for label, category in each["categories"].items()),
        ]
        for each in found
    ]
    print_table(["check", "kind", "build", "labels"], rows)
    for each in missing:
        print(f"a model that can draw anything isn't served: {each}")
    if running is not None:
        _print(running)


def _running(settings: Any) -> dict[str, Any] | None:
    """What the server of this home says; None if none runs."""
    from calotype.cli.client import Client
    from calotype.cli.servers import find_server

    server = find_server(settings)
    if server is None:
        return None
    with Client(server) as client:
        said: dict[str, Any] | None = client.readiness().get("checks")
        return said


def _print(running: dict[str, Any]) -> None:
    rows = []
    for name, it in running["versions"].items():
        rows.append([name, "all", it["in_force"], it["wanted"], it["why_not"]])
        rows += [
            [name, engine, said["in_force"] or "needs none", it["wanted"], said["why_not"]]
            for engine, said in it["engines"].items()
        ]
    if rows:
        columns = ["check", "engine", "in force", "wanted", "why it isn't"]
        print_table(columns, rows, "Versions on the running server")
    if running["refused"]:
        print(f"the server goes by what was written before: {running['refused']}")
    if running["at_next_start"]:
        print(f"counts from the next start: {', '.join(running['at_next_start'])}")
