"""What a check of pictures is that safety.toml names in the registry: its files, verified.

Read once, when a server or a command starts; an alias that moves meanwhile counts from the next
start on, as all that safety.toml says does.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from calotype.core.errors import ModelBroken, OperatorError
from calotype.core.references import STABLE, reference
from calotype.pool.aliases import Canary
from calotype.pool.kinds import ModelKind
from calotype.pool.versions import ROOT, Versions
from calotype.safety.setup import Find, Registered

log = structlog.get_logger("calotype.safety")

_KIND = ModelKind.CLASSIFIER


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
