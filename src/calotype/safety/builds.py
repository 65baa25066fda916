"""Which versions of a check may judge: those that are in force, or were when a picture was begun.

An engine says which version answered. Of one that nobody knows, or that isn't named, the answer is
none, so that its picture isn't judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from calotype.core import limits
from calotype.core.picture_checks import CheckUse


class KnownBuilds:
    """Of each check the newest CHECK_BUILDS_MAX; the version of a use itself is always known."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}  # by check, the newest at the end

    def know(self, uses: Iterable[CheckUse]) -> None:
        """These may judge from now on."""
        for use in uses:
            others = [build for build in self._known.get(use.name, ()) if build != use.build]
            self._known[use.name] = [*others, use.build][-limits.CHECK_BUILDS_MAX :]

    def judged(
        self, uses: Sequence[CheckUse], builds: Mapping[str, str], unchecked: Mapping[str, str]
    ) -> tuple[tuple[CheckUse, ...], dict[str, str]]:
        """The checks as they answered, and those whose answer is none: why.

        ``builds``: which version of each did, as the engine says; ``unchecked``: which didn't.
        """
        found, silent = [], dict(unchecked)
        for use in uses:
            build = builds.get(use.name, "")
            if build in (use.build, *self._known.get(use.name, ())):
                found.append(replace(use, build=build))
                continue
            found.append(use)
            which = f"version {build}" if build else "a version that it doesn't name"
            silent.setdefault(use.name, f"its engine asked {which}, which isn't in force")
        return tuple(found), silent
