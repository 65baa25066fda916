"""``calotype safety train``: a picture check of an operator's own, from labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calotype.cli.catalogues import Reference, catalogue_of
from calotype.cli.console import AsJson, Home, print_json, print_table, say


def train(
    *,
    data: Annotated[
        list[Path],
        typer.Option(help="A folder of labels' folders, or a .jsonl of decisions; may be several."),
    ],
    name: Annotated[str, typer.Option(help="Of the check, in the registry.")],
    encoder: Annotated[
        Path | None,
        typer.Option(help="Folder of a vision model of transformers; else the embedded encoder."),
    ] = None,
    harmless: Annotated[
        list[str] | None,
        typer.Option(
            help="A label that says nothing bad; else those named harmless, normal, safe."
        ),
    ] = None,
    false_positives: Annotated[
        float, typer.Option(help="Share of harmless pictures; fewer are refused, 0 to 1.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same check.")] = 0,
    licence: Annotated[
        str, typer.Option(help="Of the check: that of pictures and encoder.")
    ] = "unknown",
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Train a picture check on labelled pictures, measure it, and register it as a version."""
    from calotype.flow.training import train as trained
    from calotype.safety.training.course import Wish

    wish = Wish(name, seed, false_positives, tuple(harmless or ()), licence)
    done = trained(catalogue_of(home, is_quick=True), data, wish, encoder=encoder, tell=say)
    record, card = done.added.record, done.card
    if as_json:
        print_json({"is_new": done.added.is_new, "version": record.version, "card": card})
        return
    rows = [["all", *_row(card["figures"]["all"])]]
    rows += [[label, *_row(row)] for label, row in card["figures"]["label"].items()]
    print_table(["pictures", "measured", "right", "found", "refused"], rows)
    for warning in card["warnings"]:
        say(f"note: {warning}")
    what = f"{record.kind}/{record.name}@{record.version}"
    print(what if done.added.is_new else f"{what} is registered already: the same content")
    say(
        f'to use it, name it in safety.toml: [checks.{record.name}] kind = "probe", '
        f'model = "{record.name}", and what its labels mean (docs/safety.md)'
    )


def card(
    reference: Reference,
    *,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the card of a trained check: pictures, thresholds, figures by slice, limits."""
    from calotype.core.errors import InvalidInput
    from calotype.files.weights import read_json
    from calotype.safety.training.card import page
    from calotype.safety.training.course import EVALUATION

    catalogue = catalogue_of(home, is_quick=True)
    named = catalogue.find(reference)
    file = catalogue.versions.folder(named.kind, named.name, named.version) / EVALUATION
    if not named.version or not file.is_file():
        raise InvalidInput(
            f"{reference} is no check that calotype safety train has made",
            field="reference",
            limit="a version of a trained check",
        )
    told = read_json(file)
    if as_json:
        print_json(told)
    else:
        print(page(told))


def _row(row: dict[str, Any]) -> list[str]:
    return [str(row["pictures"]), *(_share(row[kind]) for kind in ("right", "found", "refused"))]


def _share(one: dict[str, Any] | None) -> str:
    if one is None:
        return "-"
    share = one["count"] / one["of"]
    return f"{one['count']}/{one['of']} {share:.1%} ({one['low']:.1%} to {one['high']:.1%})"
