"""``calotype safety``: what the prompt check says and why, how well it does, and attacks on it.

All of it works on the lists and the classifier of this installation, without a server.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table

app = typer.Typer(help="What the prompt check says, and how well it does.", no_args_is_help=True)
_ENOUGH = 20  # judgements, before times mean anything


@app.callback()
def safety() -> None:
    """What the prompt check says, and how well it does."""


def _check(home: Any) -> Any:
    from calotype.safety.prompts import PromptCheck
    from calotype.settings import Settings

    terms = Settings(home=home).blocklist
    return PromptCheck.from_file(terms) if terms else PromptCheck.default()


@app.command()
def explain(
    text: Annotated[str, typer.Argument(help="The prompt.")],
    *,
    negative: Annotated[str, typer.Option(help="The negative prompt.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Say what the check makes of a prompt, and which list, view or score it comes from."""
    report = _check(home).explain({"prompt": text, "negative_prompt": negative})
    if as_json:
        print_json(report)
        return
    print(report["verdict"], report["category"] or "")
    rows = [
        [each["category"], each["check"], each["field"], f"{each['score']:.2f}", _found(each)]
        for each in report["checks"]
    ]
    print_table(["category", "check", "field", "score", "found"], rows)


def _found(check: dict[str, Any]) -> str:
    return "; ".join(f"{hit['term']} ({hit['view']})" for hit in check["found"])


@app.command("eval")
def evaluate(*, home: Home = None, as_json: AsJson = False) -> None:
    """Measure recall by category, and harmless prompts that are refused."""
    from calotype.safety.evaluate import evaluate as measured

    report = measured(_check(home))
    if as_json:
        print_json(report)
        return
    rows = [
        [kind, name, *_row(row)]
        for kind in ("listed", "reworded")
        for name, row in report[kind].items()
    ]
    rows.append(["harmless", "looks bad", *_row(report["harmless that look bad"])])
    print_table(["prompts", "category", "refused", "share", "95 %"], rows, report["version"])
    for text in report["refused"]:
        print(f"refused, though harmless: {text}")


@app.command()
def attack(
    *,
    seed: Annotated[int, typer.Option(help="The same seed makes the same attacks.")] = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Attack the prompt check by disguises and searches, and say how often each one passed."""
    from calotype.safety.evaluate import attack as attacked

    report = attacked(_check(home), seed)
    if as_json:
        print_json(report)
        return
    rows = [[name, *_row(row)] for name, row in report["attacks"].items()]
    print_table(["attack", "passed", "share", "95 %"], rows, report["version"])


@app.command()
def bench(
    *,
    chars: Annotated[int, typer.Option(min=1, max=2000, help="Characters of a prompt.")] = 1000,
    rounds: Annotated[int, typer.Option(min=_ENOUGH, help="Prompts judged.")] = 1000,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Time the prompt check on this machine."""
    from calotype.safety.evaluate import speed

    report = speed(_check(home), chars, rounds)
    if as_json:
        print_json(report)
    else:
        print_table(["", "ms"], [[name, f"{value:.2f}"] for name, value in report.items()])


def _row(row: dict[str, Any]) -> list[str]:
    share = row["count"] / row["of"] if row["of"] else 0.0
    return [f"{row['count']}/{row['of']}", f"{share:.1%}", f"{row['low']:.1%} to {row['high']:.1%}"]
