"""``calotype models where``: what the running server's engines have warm, load and hold."""

from __future__ import annotations

from typing import Any

from calotype.cli.console import AsJson, Home, print_json, print_table, say
from calotype.core.errors import OperatorError


def where(*, as_json: AsJson = False, home: Home = None) -> None:
    """Show which models are warm, loading, staged or on disk on each engine of the server."""
    from calotype.cli.client import Client
    from calotype.cli.servers import find_server
    from calotype.settings import Settings

    server = find_server(Settings(home=home))
    if server is None:
        raise OperatorError("no server runs on this home folder: nothing is loaded anywhere")
    with Client(server) as client:
        told = client.where()
    if as_json:
        print_json(told)
    else:
        _print(told)


def _print(told: dict[str, Any]) -> None:
    engines = told["engines"]
    print_table(
        ("model", *(engine["name"] for engine in engines)),
        [
            (name, *(_place(engine, name, model["engines"]) for engine in engines))
            for name, model in told["models"].items()
        ],
        "Where models are",
    )
    print_table(
        ("engine", "state", "device", "memory", "what holds it", "staged", "torn"),
        [
            (
                engine["name"],
                engine["state"],
                engine["device"] or "",
                _memory(engine),
                ", ".join(
                    f"{line} {_size(count)}" for line, count in engine["bytes"].items() if count
                ),
                _staged(engine),
                _torn(engine),
            )
            for engine in engines
        ],
        "Engines",
    )
    counts = told["counts"]
    rate = counts["warm_hit_rate"]
    say(
        f"{'no job has come yet' if rate is None else f'{100 * rate:.1f} % of jobs came warm'}; "
        f"{counts['loads']} loads ({counts['loads_staged']} from copies), "
        f"{counts['evictions']} evictions, {counts['laid_anew']} times laid anew, "
        f"{counts['loads_failed']} failed"
    )


def _place(engine: dict[str, Any], name: str, places: dict[str, str]) -> str:
    place = places.get(engine["name"], "on disk")
    if place == "loading":
        return f"loading, about {engine['loading']['left_s']:.0f} s"
    return place


def _memory(engine: dict[str, Any]) -> str:
    held, budget = sum(engine["bytes"].values()), engine["budget_bytes"]
    return f"{_size(held)} of {_size(budget)}" if budget else _size(held)


def _staged(engine: dict[str, Any]) -> str:
    """Copies in host memory."""
    if not (budget := engine["staging_bytes"]):
        return ""
    return f"{_size(engine['staged_bytes'])} of {_size(budget)}"


def _torn(engine: dict[str, Any]) -> str:
    """The share of its free memory outside the largest block."""
    memory = engine["memory"]
    return f"{100 * memory['fragmentation']:.0f} %" if memory else ""


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
