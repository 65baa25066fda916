"""What an operator installs beside Calotype, by name: entry points of an installed package."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from calotype.core.errors import OperatorError


def plugin(group: str, name: str, field: str) -> Any:
    """What the entry point gives when it is called without arguments.

    Raises OperatorError, with ``field``, for one that isn't installed or doesn't begin.
    """
    found = entry_points(group=group)
    if name not in found.names:
        raise OperatorError(
            f"no installed package has {name!r} among its {group}",
            field=field,
            limit=sorted(found.names),
        )
    try:
        return found[name].load()()
    except Exception as error:
        raise OperatorError(
            f"{name} of {group} can't begin: {type(error).__name__}: {error}", field=field
        ) from error
