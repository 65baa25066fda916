"""Where settings come from: variables of the environment, a file; and whose fault a wrong one is.

It knows the names of the settings from whoever asks, and not what they mean.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calotype.core.errors import OperatorError

ENV_PREFIX = "CALOTYPE_"
HOME_DEFAULT = "~/.calotype"
OTHER_VARIABLES = {  # of the same prefix, and no settings
    "CALOTYPE_CONFIG": "settings file to read in place of <home>/calotype.toml",
    "CALOTYPE_URL": "server that `calotype generate` talks to",
    "CALOTYPE_KEY": "API key that `calotype generate` and `calotype demo` use",
    "CALOTYPE_CHROMIUM": "browser that the tests of the page use",
}
FILE_NAME = "calotype.toml"  # in the home folder, unless CALOTYPE_CONFIG names another file


def absolute(path: Path) -> Path:
    """The path, with the home of ``~`` and the folder we are in written out."""
    return path.expanduser().absolute()


def check_variables(names: Collection[str]) -> None:
    """Refuse a variable of ours that is no setting (of these names).

    A misspelt one would otherwise leave its setting at the default, and nobody would know. An empty
    one says nothing, as with the settings themselves.
    """
    known = {f"{ENV_PREFIX}{name.upper()}" for name in names} | set(OTHER_VARIABLES)
    set_here = {name for name, value in os.environ.items() if value and name.startswith(ENV_PREFIX)}
    unknown = sorted(set_here - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else "correct or unset it"
        raise OperatorError(
            f"the environment has {', '.join(unknown)}, which is no setting; {hint}",
            field=unknown[0],
            limit=sorted(known),
            source="environment",
        )


def file_path(flags: dict[str, Any]) -> Path | None:
    """Return the settings file: the one CALOTYPE_CONFIG names, or that of the home folder."""
    if named := os.environ.get("CALOTYPE_CONFIG"):
        path = absolute(Path(named))
        if not path.is_file():
            raise OperatorError(
                f"CALOTYPE_CONFIG names {path}, and there is no such file", field="CALOTYPE_CONFIG"
            )
        return path
    home = flags.get("home") or os.environ.get("CALOTYPE_HOME") or HOME_DEFAULT
    path = absolute(Path(home)) / FILE_NAME
    return path if path.is_file() else None


def read_file(path: Path, names: Collection[str]) -> dict[str, Any]:
    """The settings of a file. Raises OperatorError, for a key that is none too."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OperatorError(
            f"the settings file {path} can't be read: {error}", source="file"
        ) from error
    unknown = sorted(values.keys() - set(names))
    if unknown:
        raise OperatorError(
            f"the settings file {path} has {unknown[0]}, which is no setting",
            field=unknown[0],
            limit=sorted(names),
            source="file",
        )
    return values


def fault_of(error: ValidationError, flags: dict[str, Any]) -> OperatorError:
    """Name the first setting at fault, and where its value came from."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    source, place = _source(name, flags)
    told = ".".join(str(part) for part in first["loc"] if part != "[key]")
    bounds = {bound: value for bound, value in first.get("ctx", {}).items() if bound != "error"}
    return OperatorError(
        f"setting {told} ({place}): {first['msg']}, not {first['input']!r}",
        field=name,
        limit=bounds or None,
        source=source,
    )


def _source(name: str, flags: dict[str, Any]) -> tuple[str, str]:
    if name in flags:
        return "flag", f"flag --{name.replace('_', '-')}"
    variable = f"{ENV_PREFIX}{name.upper()}"
    if os.environ.get(variable):
        return "environment", variable
    path = file_path(flags)
    if path is not None and name in tomllib.loads(path.read_text(encoding="utf-8")):
        return "file", str(path)
    return "default", "default"
