"""``calotype watermark``: the keys of the mark that every picture gets, and decoders that mark."""

from __future__ import annotations

from pathlib import Path

import typer

from calotype.cli.console import AsJson, Home, print_json, print_table
from calotype.cli.watermark_train import train

app = typer.Typer(
    help="The keys of the invisible mark: list, rotate. Decoders that draw one: train, list.",
    no_args_is_help=True,
)
app.command()(train)


@app.command("keys")
def list_keys(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the keys by id, the one that marks first; secrets are never printed."""
    from calotype.provenance import watermark_keys

    ids = [key.id for key in watermark_keys.load(_folder(home))]
    if as_json:
        print_json({"keys": ids})
    else:
        print("\n".join(ids) or "no key yet: the first start of a server makes one")


@app.command()
def rotate(*, as_json: AsJson = False, home: Home = None) -> None:
    """Make a new key; a server marks with it from its next start on, and old marks are found on."""
    from calotype.provenance import watermark_keys

    key = watermark_keys.rotate(_folder(home))
    if as_json:
        print_json({"key": key.id})
    else:
        print(key.id)


@app.command()
def decoders(*, as_json: AsJson = False, home: Home = None) -> None:
    """List the marks that decoders draw, by key, the newest of this home first."""
    from calotype.flow.marked_decoders import marks_of
    from calotype.provenance.stable_signature import needed
    from calotype.settings import Settings

    marks = marks_of(Settings(home=home))
    rows = [
        {
            "key": mark.key,
            "bits": len(mark.bits),
            "bits_needed": needed(len(mark.bits), len(marks)),
            "made_for": mark.made_for,
            "made_at": mark.made_at,
        }
        for mark in marks
    ]
    if as_json:
        print_json({"decoders": rows})
    else:
        titles = [*rows[0]] if rows else ["key"]
        print_table(titles, [[str(it) for it in row.values()] for row in rows])


def _folder(home: Path | None) -> Path:
    from calotype.cli.home import prepare_home
    from calotype.settings import Settings

    settings = Settings(home=home)
    prepare_home(settings)
    return settings.secrets_folder / "watermark"
