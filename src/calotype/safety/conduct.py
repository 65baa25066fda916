"""What a refusal means for whoever asked: whether it counts, whether it is severe, by which rule.

Data (``policies/conduct.toml``), which an operator's safety.toml can change. What nothing can say
is that a minor with anything sexual isn't severe, or leaves no case.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype.core import limits
from calotype.core.conduct import StrikeRule
from calotype.core.errors import OperatorError
from calotype.safety.lists import ALWAYS
from calotype.safety.policies.policy import FOLDER, Name

FILE = FOLDER / "conduct.toml"
ORDINARY, SEVERE = "repeated-refusals", "severe-refusal"  # rules as people are told them
HOUR_S = 3600.0

_Count = Annotated[int, Field(ge=1, le=limits.STRIKES_MAX)]
_Window = Annotated[float, Field(gt=0, le=limits.STRIKE_WINDOW_HOURS_MAX, allow_inf_nan=False)]
_Length = Annotated[float, Field(gt=0, le=limits.SUSPENDED_HOURS_MAX, allow_inf_nan=False)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    strikes: _Count
    tenant_strikes: _Count
    window_hours: _Window
    suspended_hours: _Length | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1)
    severe: list[Name]
    cases: list[Name]
    uncounted: list[Name]
    ordinary: _Rule
    severe_rule: _Rule


@dataclass(frozen=True)
class Conduct:
    """The rules of one installation."""

    severe: frozenset[str]
    cases: frozenset[str]
    uncounted: frozenset[str]
    ordinary: StrikeRule
    severe_rule: StrikeRule

    @classmethod
    def shipped(cls) -> Conduct:
        """Those that come with the package."""
        return cls.read({}, FILE)

    @classmethod
    def read(cls, said: Mapping[str, Any], where: Path) -> Conduct:
        """The shipped rules with what an operator says in their place, table by table.

        Raises OperatorError that names what is wrong.
        """
        raw = tomllib.loads(FILE.read_text(encoding="utf-8"))
        for name, value in said.items():
            is_table = isinstance(value, dict) and isinstance(raw.get(name), dict)
            raw[name] = raw[name] | value if is_table else value
        try:
            file = _File.model_validate(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(["conduct", *(str(part) for part in first["loc"])])
            raise OperatorError(f"{where}: {place}: {first['msg']}", field=place) from error
        return cls(
            severe=frozenset({*file.severe, *file.cases, ALWAYS}),
            cases=frozenset({*file.cases, ALWAYS}),
            uncounted=frozenset(file.uncounted) - {ALWAYS, *file.severe, *file.cases},
            ordinary=_rule(ORDINARY, file.ordinary),
            severe_rule=_rule(SEVERE, file.severe_rule),
        )

    def is_severe(self, category: str | None) -> bool:
        """Whether two people have to agree on it."""
        return category in self.severe

    def is_case(self, category: str | None) -> bool:
        """Whether it is kept for its legal term, and a report of it prepared."""
        return category in self.cases

    def rule(self, category: str | None) -> StrikeRule | None:
        """By which rule a refusal counts; None: it doesn't."""
        if category is None or category in self.uncounted:
            return None
        return self.severe_rule if self.is_severe(category) else self.ordinary


def _rule(name: str, said: _Rule) -> StrikeRule:
    suspended = said.suspended_hours
    return StrikeRule(
        name,
        said.strikes,
        said.tenant_strikes,
        said.window_hours * HOUR_S,
        None if suspended is None else suspended * HOUR_S,
    )
