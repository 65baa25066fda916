"""One policy, and how it is read."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype.core.errors import OperatorError
from calotype.safety.classifier import LABELS
from calotype.safety.lists import ALWAYS, CATEGORIES

FOLDER = Path(__file__).parent
SHIPPED = ("pg13", "mature", "enterprise")
MINOR, SEXUAL = "minor", "sexual"
EXTENDS_MAX = 8  # policies, one extending the next

Threshold = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
PoolName = Annotated[str, Field(pattern=r"^[a-z]{1,16}$")]  # a part of its files' names


class _Prompts(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    off: list[str] = []
    thresholds: dict[str, Threshold] = {}


class _File(BaseModel):
    """What a policy may say; all of it optional."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str = Field(default="", max_length=200)
    version: int = Field(default=1, ge=1)
    extends: str = ""
    is_enabled: bool = True
    adults_only: bool = False
    pool: PoolName | None = None
    coarse_previews: bool | None = None
    needs: list[Name] | None = None
    pictures: dict[Name, Threshold] = {}
    texts: dict[Name, Threshold] = {}
    review: dict[Name, Threshold] = {}
    prompts: _Prompts = _Prompts()


@dataclass(frozen=True)
class Policy:
    """What may be drawn for whom it applies to."""

    name: str
    number: int = 1  # counted up by whoever writes it
    title: str = ""
    is_enabled: bool = True
    adults_only: bool = False
    pool: str = ""  # its jobs' engines, and its pictures' store, are this pool's alone; "": common
    coarse_previews: bool = True  # of models that can draw anything: nobody judges previews
    needs: tuple[str, ...] = ()  # categories that an open model's checks have to cover
    pictures: Mapping[str, float] = field(default_factory=dict)  # blocked from this score on
    texts: Mapping[str, float] = field(default_factory=dict)  # the same, by checks that read
    review: Mapping[str, float] = field(default_factory=dict)  # seen by a person from this on
    prompts_off: tuple[str, ...] = ()  # categories of prompts that aren't refused
    prompt_thresholds: Mapping[str, float] = field(default_factory=dict)  # over the classifier's

    @property
    def version(self) -> str:
        """The policy as verdicts name it: name, number, and a hash of what it says."""
        said = {
            "pictures": dict(sorted(self.pictures.items())),
            "prompts": [sorted(self.prompts_off), dict(sorted(self.prompt_thresholds.items()))],
            "needs": sorted(self.needs),
            "adults_only": self.adults_only,
            "coarse_previews": self.coarse_previews,
        }
        for name, table in (("texts", self.texts), ("review", self.review)):
            said |= {name: dict(sorted(table.items()))} if table else {}
        said |= {"pool": self.pool} if self.pool else {}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{self.number}-{digest[:8]}"

    def limit(self, category: str, *, reads: bool) -> float | None:
        """From which score on a category blocks; None if it has no threshold.

        ``reads``: by a check that reads the prompt, for which a policy may have others.
        """
        usual = self.pictures.get(category)
        return self.texts.get(category, usual) if reads else usual


def shipped() -> dict[str, Policy]:
    """The policies that come with the package."""
    raws = {name: _load(FOLDER / f"{name}.toml") for name in SHIPPED}
    return read(raws, FOLDER)


def read(raws: Mapping[str, Mapping[str, Any]], where: Path) -> dict[str, Policy]:
    """Policies by name, from what their tables say; raises OperatorError naming what is wrong.

    Each may extend another of them. A threshold of its own takes the place of the other's.
    """
    files = {name: _checked(name, raw, where) for name, raw in raws.items()}
    return {name: _policy(name, files, where) for name in files}


def _policy(name: str, files: Mapping[str, _File], where: Path) -> Policy:
    chain = [name]
    while base := files[chain[-1]].extends:
        if base not in files or base in chain or len(chain) == EXTENDS_MAX:
            raise OperatorError(
                f"{where}: policy {chain[-1]} can't extend {base!r}",
                field=f"policies.{chain[-1]}.extends",
                limit=sorted(set(files) - set(chain)),
            )
        chain.append(base)
    own = files[name]
    pictures: dict[str, float] = {}
    texts: dict[str, float] = {}
    review: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    off: set[str] = set()
    needs: tuple[str, ...] = ()
    coarse, pool = True, ""
    for each in reversed(chain):
        said = files[each]
        pool = pool if said.pool is None else said.pool
        coarse = coarse if said.coarse_previews is None else said.coarse_previews
        pictures |= said.pictures
        review |= said.review
        texts |= said.texts
        thresholds |= said.prompts.thresholds
        off |= set(said.prompts.off)
        needs = needs if said.needs is None else tuple(said.needs)
    adults_only = any(files[each].adults_only for each in chain)
    if adults_only and not pool:
        raise OperatorError(
            f"{where}: policy {name} is for adults only, so it needs a pool of its own: extend "
            'mature, or say pool = "NAME"',
            field=f"policies.{name}.pool",
        )
    return Policy(
        name,
        own.version,
        own.title,
        own.is_enabled,
        adults_only=adults_only,
        pool=pool,
        coarse_previews=coarse,
        needs=needs,
        pictures=pictures,
        texts=texts,
        review=_below(review, pictures, name, where),
        prompts_off=tuple(sorted(off)),
        prompt_thresholds=thresholds,
    )


def _below(
    review: Mapping[str, float], pictures: Mapping[str, float], name: str, where: Path
) -> dict[str, float]:
    """From which scores on a person looks: below those that block, or nobody ever would."""
    for category, limit in review.items():
        if limit >= pictures.get(category, 0.0):
            raise OperatorError(
                f"{where}: policy {name}: {category} is blocked from "
                f"{pictures.get(category, 0.0):g} on, so a review from {limit:g} on never comes",
                field=f"policies.{name}.review.{category}",
                limit={"below": pictures.get(category, 0.0)},
            )
    return dict(review)


def _checked(name: str, raw: Mapping[str, Any], where: Path) -> _File:
    try:
        said = _File.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise OperatorError(
            f"{where}: policy {name}: {place}: {first['msg']}", field=f"policies.{name}.{place}"
        ) from error
    may_be_off = CATEGORIES[1:]
    if wrong := set(said.prompts.off) - set(may_be_off):
        raise OperatorError(
            f"{where}: policy {name} can't turn off {min(wrong)}",
            field=f"policies.{name}.prompts.off",
            limit=list(may_be_off),
        )
    if wrong := set(said.prompts.thresholds) - set(LABELS):
        raise OperatorError(
            f"{where}: policy {name}: the prompt classifier has no label {min(wrong)}",
            field=f"policies.{name}.prompts.thresholds",
            limit=list(LABELS),
        )
    for table, thresholds in (("pictures", said.pictures), ("texts", said.texts)):
        if ALWAYS in thresholds:
            raise OperatorError(
                f"{where}: policy {name}: {ALWAYS} is always blocked and has no threshold",
                field=f"policies.{name}.{table}.{ALWAYS}",
            )
    return said


def _load(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
