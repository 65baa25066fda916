"""Whether models came, went or changed since the last look: by names, sizes and times alone.

What was registered changes with one small file. Folders outside the registry are looked through;
while something there still changes from look to look (it is being copied), it isn't read yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from calotype.core import limits
from calotype.pool.aliases import STATE_FILE

_Stamp = tuple[int, int, int]  # inode, bytes, time of change in ns
_DEPTH = 3  # of a home of models: its models, their components, those's files


class Watch:
    """Looks at folders, and at a registry's state below ``root``."""

    def __init__(self, folders: Sequence[Path], root: Path) -> None:
        """Call ``has_changed`` once, after the first scan: what is there then is known."""
        self._folders, self._state_file = tuple(folders), root / STATE_FILE
        self._seen = self._look()  # at the last look
        self._read = self._seen  # when it was last said that something changed

    def has_changed(self) -> bool:
        """Look again: True once for each change that has come to rest."""
        now = self._look()
        is_at_rest = now[1] == self._seen[1]
        has_changed = now[0] != self._read[0] or (is_at_rest and now[1] != self._read[1])
        self._seen = now
        if has_changed:
            self._read = now
        return has_changed

    def _look(self) -> tuple[_Stamp | None, tuple[tuple[str, _Stamp], ...]]:
        try:
            stamp = _stamp(self._state_file.stat())
        except OSError:
            stamp = None
        found: list[tuple[str, _Stamp]] = []
        for folder in self._folders:
            for each in _files(folder, _DEPTH):
                found.append(each)
                if len(found) >= limits.WATCHED_FILES_MAX:
                    return stamp, tuple(found)
        return stamp, tuple(found)


def _files(folder: Path | str, depth: int) -> Iterator[tuple[str, _Stamp]]:
    """Every file in a folder, and in its folders; links to folders are followed, no deeper."""
    try:
        with os.scandir(folder) as entries:
            visible = sorted((it for it in entries if it.name[0] != "."), key=lambda it: it.name)
            for entry in visible:
                if entry.is_dir():
                    yield entry.path, (0, 0, 0)
                    if depth > 1:
                        yield from _files(entry.path, depth - 1)
                else:
                    yield entry.path, _stamp(entry.stat())
    except OSError:
        return  # gone meanwhile, or unreadable: the scan says so


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns
