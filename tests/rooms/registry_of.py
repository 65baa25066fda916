"""A registry of versions in a folder, as its tests use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calotype.pool.catalogue import Catalogue
from calotype.pool.intake import Added, Wish, take_in
from calotype.pool.kinds import ModelKind

BASE = ModelKind.BASE


def catalogue_of(home: Path, *, is_quick: bool = False) -> Catalogue:
    catalogue = Catalogue(home / "models", home, is_quick=is_quick)
    catalogue.scan()
    return catalogue


def add(home: Path, path: Path, **wish: Any) -> Added:
    catalogue = catalogue_of(home, is_quick=True)
    return take_in(catalogue.versions, path, Wish(**wish), taken=catalogue.taken())


def files_below(home: Path) -> list[str]:
    root = home / "models" / ".registry"
    return sorted(str(it.relative_to(root)) for it in root.rglob("*") if it.is_file())
