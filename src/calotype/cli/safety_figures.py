"""``calotype safety eval``, ``attack`` and ``bench``: how well the checks do, in figures."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table
from calotype.core.limits import ATTACK_PICTURES_MAX

_ENOUGH = 20  # judgements, before times mean anything
Asked = Annotated[str, typer.Option("--set", help="Of prompts: first, second or third.")]


def evaluate(*, asked: Asked = "first", home: Home = None, as_json: AsJson = False) -> None:
    """Measure recall by category, and harmless prompts that are refused."""
    from calotype.safety.evaluate import evaluate as measured

    report = measured(_check(home), asked)
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


def attack(
    *,
    seed: Annotated[int, typer.Option(help="The same seed makes the same attacks.")] = 0,
    asked: Asked = "first",
    pictures: Annotated[
        int,
        typer.Option(
            min=0,
            max=ATTACK_PICTURES_MAX,
            help="Of each attack's texts, how many the embedded model draws, to be judged.",
        ),
    ] = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Attack the prompt check by disguises and searches, and say how often each one passed.

    With --pictures also how often the picture passed: by itself, of a sample of all texts, refused
    or not; and both together. The embedded model can draw nothing but its own scenes: what passes
    is one of those, and shows nothing of the wish.
    """
    from calotype.safety.evaluate import attack as attacked
    from calotype.safety.evaluate import report as told

    check = _check(home)
    found = attacked(check, seed, asked)
    report = {"version": check.version, "asked": asked, "seed": seed, "attacks": told(found)}
    if pictures:
        from calotype.flow.attack_pictures import judged
        from calotype.flow.rules import engine_env
        from calotype.flow.safeguards import setup_of
        from calotype.settings import Settings

        settings = Settings(home=home)
        drawn = judged(found, seed, setup_of(settings), pictures, engine_env(settings))
        for name, row in drawn.pop("attacks").items():
            report["attacks"][name] |= row
        report |= drawn
    if as_json:
        print_json(report)
        return
    rows = [
        [name, *_row(row), *((_of(row["after"]), _of(row["both"])) if pictures else ())]
        for name, row in report["attacks"].items()
    ]
    more = ["picture alone", "both"] if pictures else []
    print_table(["attack", "passed", "share", "95 %", *more], rows, report["version"])


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


def _check(home: Any) -> Any:
    from calotype.flow.safeguards import prompt_check
    from calotype.settings import Settings

    return prompt_check(Settings(home=home))


def _of(row: dict[str, Any]) -> str:
    count, share, range_ = _row(row)
    return f"{count} {share} ({range_})"


def _row(row: dict[str, Any]) -> list[str]:
    share = row["count"] / row["of"] if row["of"] else 0.0
    return [f"{row['count']}/{row['of']}", f"{share:.1%}", f"{row['low']:.1%} to {row['high']:.1%}"]
