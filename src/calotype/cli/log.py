"""``calotype log``: the hash log's signed head, proofs against it, and an auditor's check of both.

``check`` is for others: it needs the documents and the roots, and neither a home nor a network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table
from calotype.cli.verify import read_bounded
from calotype.core.errors import InvalidInput

if TYPE_CHECKING:
    from calotype.flow.log_proofs import LogProofs

Count = Annotated[
    int | None, typer.Option(min=0, help="Of the log when it had so many entries; else of now.")
]

app = typer.Typer(
    help="The hash log: its head, what is in it, and that nothing was changed.",
    no_args_is_help=True,
)


@app.command()
def head(*, count: Count = None, home: Home = None) -> None:
    """Print the log's head, signed: keep it somewhere else, to check the log by later."""
    _print(home, lambda proofs: proofs.head() if count is None else proofs.head_of(count))


@app.command()
def prove(
    *,
    picture: Annotated[str, typer.Argument(help="A file, or an image's id.", show_default=False)],
    count: Count = None,
    home: Home = None,
) -> None:
    """Print the proof that a picture is in the log."""
    if picture.startswith("img_"):
        _print(home, lambda proofs: proofs.of_image(picture, count))
    else:
        sha256 = _sha256(Path(picture))
        _print(home, lambda proofs: proofs.of_file(sha256, count))


@app.command()
def consistency(
    *,
    first: Annotated[
        int, typer.Argument(min=0, help="How many entries the kept head has.", show_default=False)
    ],
    count: Count = None,
    home: Home = None,
) -> None:
    """Print the proof that the log begins with its first entries as they were."""
    _print(home, lambda proofs: proofs.consistency(first, count))


@app.command()
def check(
    *,
    documents: Annotated[
        list[Path], typer.Argument(help="Heads and proofs, in any order.", show_default=False)
    ],
    picture: Annotated[
        list[Path] | None, typer.Option(help="A file that has to be in what they prove.")
    ] = None,
    roots: Annotated[
        Path | None, typer.Option(help="Whose signatures count, as PEM; else this home's.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Check heads and proofs against each other, offline. Exit code 1 unless all hold."""
    from calotype.provenance.log_proofs import audit

    findings = audit(
        {str(path): _parsed(path) for path in documents},
        {str(path): _sha256(path) for path in picture or ()},
        anchors_pem=read_bounded(roots).decode() if roots else _roots(home),
    )
    if as_json:
        print_json({"findings": [vars(each) for each in findings]})
    else:
        rows = [("good" if it.is_good else "BAD", it.name, it.says) for it in findings]
        print_table(("", "", "what it says"), rows)
    if not all(each.is_good for each in findings):
        raise typer.Exit(1)


def _print(home: Path | None, work: Callable[[LogProofs], Awaitable[dict[str, Any]]]) -> None:
    from calotype.cli.home import prepare_home, with_store
    from calotype.flow.identity import identity_of
    from calotype.flow.log_proofs import LogProofs
    from calotype.settings import Settings

    settings = Settings(home=home)
    prepare_home(settings)
    identity = identity_of(settings)
    print_json(with_store(home, lambda store: work(LogProofs(store.hash_log, identity))))


def _roots(home: Path | None) -> str:
    from calotype.flow.identity import trust_of
    from calotype.settings import Settings

    anchors_pem, _ = trust_of(Settings(home=home))
    if anchors_pem is None:
        raise InvalidInput(
            "this home has no certificate: name the roots to trust with --roots",
            field="roots",
            limit="a PEM file",
        )
    return anchors_pem


def _parsed(path: Path) -> Any:
    try:
        return json.loads(read_bounded(path))
    except (ValueError, RecursionError):
        return None  # a finding like any other


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bounded(path)).hexdigest()
