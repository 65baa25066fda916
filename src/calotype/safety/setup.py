"""An installation's safety, whole: its policies, who has which, its picture checks, its lists.

What an operator says is one file of TOML (``safety.toml`` in the home folder): which policy applies
to whom, policies of their own, and which classifiers look at pictures. Nothing has to be said for
the embedded model. It knows checks as data; it loads none.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from calotype.core.errors import OperatorError
from calotype.core.picture_checks import LABELS, OUTSIDE, CheckKind, CheckUse, Trial
from calotype.safety.ages import AgeSource
from calotype.safety.conduct import Conduct
from calotype.safety.configuration import (
    DEFAULT,
    CheckSaid,
    Pool,
    age_source,
    pools_in,
    said_in,
)
from calotype.safety.matchers import MatcherUse
from calotype.safety.policies import Policy, shipped
from calotype.safety.policies.policy import FOLDER, MINOR, SEXUAL, SHIPPED, read

HARMLESS = "harmless"  # what a label is mapped to that says nothing bad
_ENDINGS = {".json", ".safetensors", ".txt", ".model", ".jinja"}  # of files a check's answer needs


@dataclass(frozen=True)
class Registered:
    """What a name in the registry of models stands for, and what is tried in its place."""

    path: str  # of its folder
    build: str  # its version
    trial: tuple[str, str] = ("", "")  # the same of its canary; empty: there is none
    share: float = 0.0  # of the pictures that the canary looks at, 0..1


Find = Callable[[str], Registered]  # by NAME, NAME@ALIAS or NAME@VERSION; raises OperatorError


def no_registry(reference: str) -> Registered:
    """Where nobody says what is registered, nothing is."""
    raise OperatorError(f"there is no classifier {reference!r} in the registry", field="model")


@dataclass(frozen=True)
class ConfiguredCheck:
    """A check of pictures, or one that reads prompts, and what its labels mean."""

    use: CheckUse
    categories: Mapping[str, str]  # label: category, or HARMLESS
    trial: Trial | None = None  # what is tried in its place
    models: tuple[str, ...] = ()  # by name, of whose prompts it is asked; empty: of all

    @property
    def covers(self) -> frozenset[str]:
        """The categories that it can find."""
        return frozenset(self.categories.values()) - {HARMLESS}


@dataclass(frozen=True)
class SafetySetup:
    """All that judging needs to know of an installation; plain data, so that it can be sent."""

    policies: Mapping[str, Policy]
    default: str = DEFAULT
    tenants: Mapping[str, str] = field(default_factory=dict)
    adults: frozenset[str] = frozenset()
    checks: tuple[ConfiguredCheck, ...] = ()  # of every picture, whatever the model
    domains: Mapping[str, ConfiguredCheck] = field(default_factory=dict)  # shipped, by name
    conduct: Conduct = field(default_factory=Conduct.shipped)  # what refusals add up to
    matchers: tuple[MatcherUse, ...] = ()  # plug-ins that know pictures, beside PDQ
    age: AgeSource | None = None  # who is asked whether people are of age
    pools: Mapping[str, Pool] = field(default_factory=dict)  # set apart for policies that name them

    @classmethod
    def from_file(cls, path: Path | None, find: Find = no_registry) -> SafetySetup:
        """What this file says; None says nothing. Raises OperatorError that names what is wrong.

        ``find`` knows the registry of models, for checks that are named there.
        """
        said = said_in(path)
        where = path or FOLDER
        for name in SHIPPED:
            if name in said.policies:
                raise OperatorError(
                    f"{where}: the policy {name} is shipped; extend it under another name",
                    field=f"policies.{name}",
                )
        raws = {name: tomllib.loads((FOLDER / f"{name}.toml").read_text()) for name in SHIPPED}
        policies = read(raws | said.policies, where)
        checks = tuple(_configured(name, each, where, find) for name, each in said.checks.items())
        domains = _domains()
        found = cls(
            policies,
            said.default,
            said.tenants,
            frozenset(said.adults),
            checks,
            domains,
            Conduct.read(said.conduct, where),
            tuple(
                MatcherUse(name, each.distance_max, each.severe)
                for name, each in said.matchers.items()
            ),
            age_source(said.age, where.parent),
            pools_in(said, path),
        )
        check_names(found, where)
        return found

    @classmethod
    def default_setup(cls) -> SafetySetup:
        """The shipped policies, and no check but the domain's."""
        return cls(shipped(), domains=_domains())

    def policy(self, tenant: str, user: str = "", *, is_adult: bool = False) -> Policy:
        """The policy of a person's requests; a policy for adults only of those who are known to be.

        They are known by the operator, or ``is_adult``. Others of the tenant get the default.
        """
        policy = self.policies[self.tenants.get(tenant, self.default)]
        if policy.adults_only and not (is_adult or f"{tenant}/{user}" in self.adults):
            return self.policies[DEFAULT]
        return policy

    def in_force(self) -> list[Policy]:
        """The policies that somebody has, the default first, each once; everybody's always."""
        names = dict.fromkeys([self.default, DEFAULT, *self.tenants.values()])
        return [self.policies[name] for name in names]

    def judging(self) -> list[Policy]:
        """Those of them that a picture can be judged by.

        Everybody's is none where all have others, none of them of adults only or of a pool: that is
        whose pictures fall back to it. So checks may have categories that it has no threshold for.
        """
        named = dict.fromkeys([self.default, *self.tenants.values()])
        apart = any(self.policies[it].adults_only or self.policies[it].pool for it in named)
        return [each for each in self.in_force() if apart or each.name in named]

    def uses(self, domain: str, model: str = "") -> tuple[CheckUse, ...]:
        """What every picture of a model goes through: of this domain ("": open), and this name."""
        of_domain = (self.domains[domain].use,) if domain else ()
        name = model.partition("@")[0]  # a version's text encoder is the check's to compare
        others = [each for each in self.checks if not each.models or name in each.models]
        return of_domain + tuple(each.use for each in others)

    def refused_from(self, uses: Sequence[CheckUse], policy: Policy | None) -> dict[str, float]:
        """From which scores of what reads the prompt first no step is made, by their names.

        A minor with anything sexual isn't among them: that is judged with the picture.
        """
        policy, found = policy or self.policies[self.default], {}
        for use in uses:
            for label, category in self.mapping().get(use.name, {}).items() if use.reads else ():
                limit = policy.limit(category, reads=True)
                if category not in (HARMLESS, MINOR) and limit is not None:
                    found[use.score_name(label)] = limit
        return found

    @property
    def reading(self) -> frozenset[str]:
        """The names of checks that read prompts, and look at nothing."""
        return frozenset(each.use.name for each in self.checks if each.use.reads)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Checks that look at pictures beside those in force; nothing follows from them."""
        return tuple(each.trial for each in self.checks if each.trial is not None)

    def missing(self, domain: str) -> list[str]:
        """What stands between a model of this domain and being served, in words; empty: nothing."""
        if domain:
            known = ", ".join(self.domains) or "none"
            return [] if domain in self.domains else [f"there is no domain {domain!r} ({known})"]
        looking = [each for each in self.checks if not each.use.reads]
        covered = frozenset[str]().union(*(each.covers for each in looking))
        needs = dict.fromkeys(need for policy in self.in_force() for need in policy.needs)
        return [
            f"no picture check finds {need!r}: {HOW.get(need, HOW_ANY)}"
            for need in needs
            if need not in covered
        ]

    def mapping(self) -> dict[str, Mapping[str, str]]:
        """By check, what its labels mean."""
        every = (*self.domains.values(), *self.checks)
        return {each.use.name: each.categories for each in every}

    @property
    def version(self) -> str:
        """Hash of checks and their meaning: first 8 hex digits of SHA-256."""
        return self.version_with(())

    def version_with(self, uses: Sequence[CheckUse]) -> str:
        """The same with these versions in place of the checks of their names."""
        judged = {use.name: use for use in uses}
        every = (*self.domains.values(), *self.checks)
        said = [
            [
                *(use.name, use.kind, use.build, use.standby_build),
                dict(sorted(each.categories.items())),
                *each.models,
            ]
            for each in every
            for use in (judged.get(each.use.name, each.use),)
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]


HOW_ANY = "put a classifier's folder into the home folder and name it in safety.toml"
HOW = {
    "sexual": (
        "put the folder of Falconsai/nsfw_image_detection, ShieldGemma 2 or another classifier "
        "into the home folder and name it under [checks] in safety.toml (recipes: docs/safety.md)"
    ),
    "violence": (
        "put the folder of ShieldGemma 2, LlavaGuard or another classifier that knows violence "
        "into the home folder and name it under [checks] in safety.toml (recipes: docs/safety.md)"
    ),
}


def build_of(folder: Path) -> str:
    """Content hash of a check's files: first 16 hex digits of SHA-256; raises OSError."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _ENDINGS:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + digest)
    return whole.hexdigest()[:16]


def _domains() -> dict[str, ConfiguredCheck]:
    """The domain checks that ship with the package, by the name that a model's card has."""
    folder = Path(str(files("calotype"))) / "models" / "checks"
    found = {}
    for path in sorted(folder.iterdir()):
        kind = CheckKind.DOMAIN
        use = CheckUse(path.name, kind.value, str(path), build_of(path), LABELS[kind])
        found[path.name] = ConfiguredCheck(use, {OUTSIDE: OUTSIDE})
    return found


def _configured(name: str, said: CheckSaid, where: Path, find: Find) -> ConfiguredCheck:
    place = f"checks.{name}"
    if said.kind is CheckKind.DOMAIN:
        raise OperatorError(f"{where}: {place}: a domain check comes with its model", field=place)
    _check_models(said, place, where)
    labels = LABELS.get(said.kind, tuple(said.categories))
    if set(labels) != set(said.categories):
        raise OperatorError(
            f"{where}: {place}: a check of this kind scores {', '.join(labels)}, each of which "
            "needs a category",
            field=f"{place}.categories",
            limit=list(labels),
        )
    if bool(said.path) == bool(said.model):
        raise OperatorError(
            f"{where}: {place}: say where it lies: a path, or a model of the registry",
            field=f"{place}.path",
        )
    registered = find(said.model) if said.model else None
    if registered is None:
        path, build = _place(said.path, f"{place}.path", where)
    else:
        path, build = registered.path, registered.build
    standby, standby_build = "", ""
    if said.standby:
        standby, standby_build = _place(said.standby, f"{place}.standby", where)
        if standby == path:
            raise OperatorError(
                f"{where}: {place}: a second place in the folder of the first is no second",
                field=f"{place}.standby",
            )
    use = CheckUse(
        *(name, said.kind.value, path, build, tuple(labels)),
        standby=standby,
        standby_build=standby_build,
    )
    meanings = dict(said.categories)
    return ConfiguredCheck(use, meanings, _trial(use, registered), tuple(said.models))


def _check_models(said: CheckSaid, place: str, where: Path) -> None:
    """A recogniser is of one text encoder: it has to say whose; other checks are of all models."""
    is_recogniser = said.kind is CheckKind.RECOGNISER
    if is_recogniser and not said.models:
        raise OperatorError(
            f"{where}: {place}: a recogniser names the models whose prompts it reads (models)",
            field=f"{place}.models",
        )
    if said.models and not is_recogniser:
        raise OperatorError(
            f"{where}: {place}: only a recogniser is of some models; others are of all",
            field=f"{place}.models",
        )


def _trial(use: CheckUse, registered: Registered | None) -> Trial | None:
    if registered is None or not registered.share:
        return None
    path, build = registered.trial
    return Trial(use.name, use.kind, path, build, use.labels, registered.share)


def _place(said: str, field_name: str, where: Path) -> tuple[str, str]:
    """The folder of a check's weights, from where the file lies, and the hash of what is in it."""
    folder = (where.parent / Path(said).expanduser()).absolute()
    if not (folder / "config.json").is_file():
        raise OperatorError(f"{where}: {field_name}: {folder} has no config.json", field=field_name)
    try:
        return str(folder), build_of(folder)
    except OSError as error:
        raise OperatorError(f"{where}: {field_name}: {error}", field=field_name) from error


def check_names(setup: SafetySetup, where: Path) -> None:
    """Refuse names of nothing: a policy nobody wrote, a category without a threshold."""
    for field_name, name in (("default", setup.default), *setup.tenants.items()):
        policy = setup.policies.get(name)
        if policy is None or not policy.is_enabled:
            why = "isn't turned on (is_enabled)" if policy else "isn't one"
            raise OperatorError(
                f"{where}: {field_name} names the policy {name!r}, which {why}",
                field="default" if field_name == "default" else f"tenants.{field_name}",
                limit=[each.name for each in setup.policies.values() if each.is_enabled],
            )
    usual = setup.policies[DEFAULT].pictures[SEXUAL]
    for policy in setup.in_force():
        is_open = SEXUAL in policy.prompts_off or policy.pictures.get(SEXUAL, 0.0) > usual
        if is_open and not policy.adults_only:
            raise OperatorError(
                f"{where}: policy {policy.name} allows more that is sexual than {DEFAULT}, so it "
                "has to say adults_only = true",
                field=f"policies.{policy.name}.adults_only",
            )
    for policy in setup.judging():
        for check in setup.checks:
            for category in sorted(check.covers - set(policy.pictures)):
                raise OperatorError(
                    f"{where}: policy {policy.name} has no threshold for {category!r}, to which "
                    f"{check.use.name} is mapped",
                    field=f"policies.{policy.name}.pictures.{category}",
                    limit=sorted(policy.pictures),
                )
