"""What the commands about models share: the catalogue of a home, and how a model is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from calotype.pool.catalogue import Catalogue

Reference = Annotated[
    str,
    typer.Argument(
        help="NAME, NAME@ALIAS or NAME@VERSION; KIND/ before it where a name is of several.",
        show_default=False,
    ),
]


def catalogue_of(home: Path | None, *, is_quick: bool = False) -> Catalogue:
    """All models as a server with this home sees them, scanned."""
    from calotype.pool.catalogue import Catalogue
    from calotype.settings import Settings

    settings = Settings(home=home)
    catalogue = Catalogue(settings.models_folder, settings.home, is_quick=is_quick)
    catalogue.scan()
    return catalogue
