"""The shape of ``safety.toml``: what an operator may say, each part by its own model.

It reads files and checks shapes; what follows from what is said is for ``setup``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.core.picture_checks import CheckKind
from calotype.safety.ages import AUDIENCE, AgeSource
from calotype.safety.hash_exchange import Exchange
from calotype.safety.policies.policy import Name, PoolName

DEFAULT = "pg13"
S3 = "s3://"  # how the address of a bucket begins


class CheckSaid(BaseModel):
    """A check of pictures, or of prompts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: CheckKind = Field(strict=False)
    path: str = ""
    model: str = ""  # of the registry, instead of a path
    standby: str = ""
    models: list[str] = Field(default=[], max_length=limits.CHECK_MODELS_MAX)  # of a recogniser
    categories: dict[str, Name] = Field(min_length=1, max_length=1_000)


class _Exchange(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    url: str
    token_file: str = ""  # from where the file lies; read by nobody else, or it is refused
    ca_file: str = ""


class _Matcher(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    distance_max: float = Field(ge=0.0, allow_inf_nan=False)
    severe: bool = True


class AgeSaid(BaseModel):
    """Who is asked for ages."""

    model_config = ConfigDict(extra="forbid", strict=True)

    provider: str = ""  # a plug-in, instead of an address
    url: str = ""
    public_key: str = ""  # a file of PEM
    audience: str = AUDIENCE
    ca_file: str = ""


class PoolSaid(BaseModel):
    """Engines, and a store, that some policies have to themselves."""

    model_config = ConfigDict(extra="forbid", strict=True)

    engines: int = Field(ge=1, le=limits.POOL_ENGINES_MAX)
    store: str = Field(min_length=1, max_length=1_000)


@dataclass(frozen=True)
class Pool:
    """What is set apart for the jobs of some policies."""

    name: str
    engines: int  # of the installation's; they run nothing else
    store: str  # a folder, whole path, or s3://NAME/FOLDER: it holds nothing else


class Said(BaseModel):
    """All of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    default: str = DEFAULT
    tenants: dict[str, str] = {}
    adults: list[str] = []  # "tenant/user" whose age the operator has verified
    checks: dict[Name, CheckSaid] = {}
    exchanges: dict[Name, _Exchange] = {}
    matchers: dict[Name, _Matcher] = {}
    age: AgeSaid | None = None
    policies: dict[Name, dict[str, Any]] = {}
    pools: dict[PoolName, PoolSaid] = Field(default={}, max_length=limits.POOLS_MAX)
    conduct: dict[str, Any] = {}


def said_in(path: Path | None) -> Said:
    """What the file says; None says nothing. Raises OperatorError naming the place."""
    if path is None:
        return Said()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return Said.model_validate(raw)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OperatorError(f"{path} can't be read: {error}", field=str(path)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise OperatorError(f"{path}: {place}: {first['msg']}", field=place) from error


def pools(path: Path | None) -> dict[str, Pool]:
    """The pools that the file sets apart, by name; raises OperatorError."""
    return pools_in(said_in(path), path)


def pools_in(said: Said, path: Path | None) -> dict[str, Pool]:
    """The same of what was read; folders are named from where the file lies."""
    found = {}
    for name, pool in said.pools.items():
        store = pool.store.rstrip("/")
        if not store.startswith(S3) and path is not None:
            store = str((path.parent / Path(pool.store).expanduser()).absolute())
        found[name] = Pool(name, pool.engines, store)
    return found


def exchange(path: Path | None, name: str) -> Exchange:
    """A hash exchange that the file names; raises OperatorError for one that it doesn't."""
    said = said_in(path).exchanges
    if name not in said or path is None:
        raise OperatorError(
            f"{path or 'safety.toml'} names no exchange {name!r}",
            field=f"exchanges.{name}",
            limit=sorted(said),
        )
    found = said[name]
    ca_file = str(path.parent / found.ca_file) if found.ca_file else None
    return Exchange(name, found.url, _token(path.parent, found.token_file, name), ca_file)


def age_source(said: AgeSaid | None, folder: Path) -> AgeSource | None:
    """Whom to ask for ages; raises OperatorError. Files are named from the folder."""
    if said is None:
        return None
    if bool(said.provider) == bool(said.url):
        raise OperatorError("age: say an address, or a provider that is installed", field="age.url")
    if said.provider:
        return AgeSource(name=said.provider)
    file = folder / Path(said.public_key).expanduser()
    try:
        pem = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file} can't be read: {error}", field="age.public_key") from error
    ca_file = str(folder / said.ca_file) if said.ca_file else None
    return AgeSource(said.url, pem, said.audience, ca_file)


def _token(folder: Path, said: str, name: str) -> str:
    if not said:
        return ""
    field_name, file = f"exchanges.{name}.token_file", folder / Path(said).expanduser()
    try:
        if file.stat().st_mode & 0o077:
            raise OperatorError(f"{file} can be read by others: chmod 600", field=field_name)
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file} can't be read: {error}", field=field_name) from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise OperatorError(f"{file} isn't one token", field=field_name)
    return token
