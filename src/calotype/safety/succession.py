"""What of a changed installation a running server can go by, and what waits for its next start.

Other versions of checks come in force one engine at a time, so they have to be the same checks: of
the same kind, with the same labels that mean the same. Policies, and who has which, count from the
next request on. The rest is wired at the start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calotype.core.errors import OperatorError
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.safety.setup import ConfiguredCheck, SafetySetup, check_names

# Kinds whose labels are in their configuration.
_TOLD = (CheckKind.CLASSIFIER, CheckKind.TEXT, CheckKind.PROBE, CheckKind.RECOGNISER)
WIRED = ("domains", "conduct", "matchers", "age", "pools")  # at the start


@dataclass(frozen=True)
class Succession:
    """What is to be in force once every engine has the versions of its checks."""

    setup: SafetySetup
    waits: tuple[str, ...]  # for the next start: fields of the setup, "checks.NAME"


def succession(now: SafetySetup, then: SafetySetup, where: Path) -> Succession:
    """What ``then``, read of the file ``where``, makes of the installation as it is.

    Raises OperatorError where that can't be in force together, or a version isn't the same check.
    """
    waits = [name for name in WIRED if getattr(now, name) != getattr(then, name)]
    others = {check.use.name: check for check in then.checks}
    checks = []
    for check in now.checks:
        other = others.pop(check.use.name, None)
        if other is None or _meaning(other) != _meaning(check):
            waits.append(f"checks.{check.use.name}")
            checks.append(check)
            continue
        if other.use != check.use:
            check_successor(check.use, other.use)
        checks.append(other)
    waits += [f"checks.{name}" for name in others]
    people = {name: getattr(then, name) for name in ("policies", "default", "tenants", "adults")}
    setup = replace(now, checks=tuple(checks), **people)
    check_names(setup, where)
    return Succession(setup, tuple(waits))


def check_successor(now: CheckUse, then: CheckUse) -> None:
    """Raise OperatorError for a version that scores other labels than the one in force, or reads
    what another text encoder makes."""
    if then.kind in _TOLD and (labels := _labels(then)) != sorted(now.labels):
        raise OperatorError(
            f"version {then.build} of the check {now.name} has the labels {', '.join(labels)}; "
            f"{', '.join(sorted(now.labels))} are mapped in safety.toml",
            field=f"checks.{now.name}.categories",
            limit=labels,
        )
    if then.kind == CheckKind.RECOGNISER and _encoders(then) != _encoders(now):
        raise OperatorError(
            f"version {then.build} of the check {now.name} was trained on another text encoder",
            field=f"checks.{now.name}.models",
            limit=_encoders(now),
        )


def _meaning(check: ConfiguredCheck) -> tuple[Any, ...]:
    use, has_standby = check.use, bool(check.use.standby)
    return use.kind, sorted(use.labels), check.categories, check.models, has_standby


def _labels(use: CheckUse) -> list[str]:
    named = _card(use).get("id2label")
    return sorted(map(str, named.values())) if isinstance(named, dict) else []


def _encoders(use: CheckUse) -> list[str]:
    named = _card(use).get("text_encoders")
    return sorted(map(str, named)) if isinstance(named, list) else []


def _card(use: CheckUse) -> Mapping[str, Any]:
    file = Path(use.path) / "config.json"
    try:
        said = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise OperatorError(f"{file} can't be read: {error}", field=use.name) from error
    return said if isinstance(said, dict) else {}
