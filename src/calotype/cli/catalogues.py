"""What the commands about models share: the catalogue of a home, and how a model is named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from calotype.core.nouns import ModelInfo
    from calotype.pool.catalogue import Catalogue

Reference = Annotated[
    str,
    typer.Argument(
        help="NAME, NAME@ALIAS or NAME@VERSION; KIND/ before it where a name is of several.",
        show_default=False,
    ),
]


def not_served(home: Path | None, models: Iterable[ModelInfo]) -> dict[str, list[str]]:
    """By model: which picture checks are missing, and how to get them; those lacking none not."""
    from calotype.flow.safeguards import setup_of
    from calotype.settings import Settings

    setup = setup_of(Settings(home=home))
    return {it.name: missing for it in models if (missing := setup.missing(it.domain))}


def catalogue_of(home: Path | None, *, is_quick: bool = False) -> Catalogue:
    """All models as a server with this home sees them, scanned."""
    from calotype.pool.catalogue import Catalogue
    from calotype.settings import Settings

    settings = Settings(home=home)
    catalogue = Catalogue(settings.models_folder, settings.home, is_quick=is_quick)
    catalogue.scan()
    return catalogue
