"""``calotype watermark``: the keys of the mark that every picture gets."""

from __future__ import annotations

from pathlib import Path

import typer

from calotype.cli.console import AsJson, Home, print_json

app = typer.Typer(help="The keys of the invisible mark: list, rotate.", no_args_is_help=True)


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


def _folder(home: Path | None) -> Path:
    from calotype.cli.home import prepare_home
    from calotype.settings import Settings

    settings = Settings(home=home)
    prepare_home(settings)
    return settings.secrets_folder / "watermark"
