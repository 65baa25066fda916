"""``calotype certificates``: whose name pictures are signed in, and a new one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from calotype.cli.console import AsJson, Home, print_json
from calotype.core.errors import InvalidInput

if TYPE_CHECKING:
    from calotype.settings import Settings

app = typer.Typer(help="Who signs pictures: show, rotate.", no_args_is_help=True)


@app.command()
def show(*, as_json: AsJson = False, home: Home = None) -> None:
    """Show the numbers of the certificates whose pictures are ours, the one in use first."""
    from calotype.flow.identity import trust_of

    anchors_pem, serials = trust_of(_settings(home))
    if as_json:
        print_json({"serials": list(serials or ()), "anchors": anchors_pem})
    else:
        print("\n".join(serials or ["no certificate yet: the first start of a server makes one"]))


@app.command()
def rotate(*, home: Home = None) -> None:
    """Make a new development identity; a server signs with it from its next start on.

    The old one's keys are deleted; what it signed goes on being ours.
    """
    from calotype.provenance import certificates

    settings = _settings(home)
    if settings.certificate_chain is not None:
        raise InvalidInput(
            "the certificate is your own: name the new one in certificate_chain, and keep the old "
            "chain in the folder certificates_former",
            field="certificate_chain",
            limit="a development identity",
        )
    folder = settings.secrets_folder / "certificates"
    certificates.ensure_development(folder, now=datetime.now(UTC))
    certificates.rotate_development(folder, now=datetime.now(UTC))
    print("Pictures are signed by a new certificate from the server's next start on.")


def _settings(home: Path | None) -> Settings:
    from calotype.cli.home import prepare_home
    from calotype.settings import Settings

    settings = Settings(home=home)
    prepare_home(settings)
    return settings
