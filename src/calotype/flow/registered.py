"""What a check of pictures is that safety.toml names in the registry: its files, verified.

Read when a server or a command starts; a server that runs looks whether aliases have moved
(``check_versions``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from calotype.core.errors import ModelBroken, OperatorError
from calotype.core.picture_checks import CheckUse
from calotype.core.references import STABLE, reference
from calotype.pool.aliases import STATE_FILE, Canary, read_state
from calotype.pool.kinds import ModelKind
from calotype.pool.versions import ROOT, Versions
from calotype.safety.configuration import said_in
from calotype.safety.setup import Find, Registered
from calotype.safety.succession import check_successor
from calotype.settings import Settings

log = structlog.get_logger("calotype.safety")

_KIND = ModelKind.CLASSIFIER


def stamp_of(models_folder: Path) -> tuple[int, int]:
    """Another whenever the registry was changed: its file's size, and when it was written."""
    try:
        about = (models_folder / ROOT / STATE_FILE).stat()
    except OSError:  # none yet
        return 0, 0
    return about.st_size, about.st_mtime_ns


def stands_for(models_folder: Path) -> dict[str, tuple[str, str, float]]:
    """What each alias of a check stands for: its version, its canary and the canary's share.

    Raises OperatorError if that can't be read.
    """
    found = {}
    for name, aliases in read_state(models_folder / ROOT).aliases.items():
        for word, alias in aliases.items() if name.startswith(f"{_KIND}/") else ():
            canary = alias.canary or Canary.model_construct(version="", share=0.0)
            found[f"{name}@{word}"] = alias.version, canary.version, canary.share
    return found


def registered(models_folder: Path) -> Find:
    """Who knows what is registered below this folder."""
    versions = Versions(models_folder / ROOT)

    def find(text: str) -> Registered:
        asked = reference(text)
        alias = versions.state().of(_KIND, asked.name).get(asked.at or STABLE)
        if alias is not None:
            found = _verified(versions, asked.name, alias.version)
            return Registered(*found, *_trial(versions, asked.name, alias.canary))
        matching = [
            it
            for it in versions.versions(_KIND, asked.name)
            if asked.at and it.startswith(asked.at)
        ]
        if not asked.may_be_version or len(matching) != 1:
            raise OperatorError(
                f"there is no classifier {text[:100]!r} in the registry",
                field="model",
                limit=sorted({name for name, _ in versions.folders(_KIND)}),
            )
        return Registered(*_verified(versions, asked.name, matching[0]))

    return find


def check_promotion(
    settings: Settings, name: str, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """Refuse that a check's aliases stand for versions that aren't the same check any more.

    ``before`` and ``after``: versions by alias. Raises OperatorError, as a server would that runs.
    """
    versions = Versions(settings.models_folder / ROOT)
    for check, said in said_in(settings.safety_path).checks.items():
        asked = reference(said.model)
        word = asked.at or STABLE
        if asked.name != name or word not in before or before[word] == after.get(word):
            continue
        now, then = (
            CheckUse(check, said.kind.value, str(folder), folder.name, tuple(said.categories))
            for folder in (versions.folder(_KIND, name, it) for it in (before[word], after[word]))
        )
        check_successor(now, then)


def _trial(versions: Versions, name: str, canary: Canary | None) -> tuple[tuple[str, str], float]:
    """What is tried, and its share of pictures; one that is broken is tried on nothing."""
    nothing = ("", ""), 0.0
    if canary is None:
        return nothing
    try:
        return _verified(versions, name, canary.version), canary.share
    except ModelBroken as error:
        log.warning("trial_left_out", check=name, version=canary.version, reason=error.detail)
        return nothing


def _verified(versions: Versions, name: str, version: str) -> tuple[str, str]:
    """Folder and build; every byte is read. Raises ModelBroken, an OperatorError."""
    folder = versions.folder(_KIND, name, version)
    versions.verify(folder, versions.record(_KIND, name, folder))
    return str(folder), version
