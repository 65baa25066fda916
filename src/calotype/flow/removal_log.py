"""What was withdrawn or deleted, in files outside the database: no backup of that brings it back.

A line each, appended and never changed, on the disk before anybody is told that it is done. So a
database that was restored from before a removal is told of it at its next start. A file a year;
those of longer ago than REMOVALS_KEPT_YEARS go, since no such backup is restored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.files.private import append_private
from calotype.jobs.files import RemovalKind

log = structlog.get_logger("calotype.removal")

RELEASED = "released"
_KINDS = (RemovalKind.WITHDRAWN, RemovalKind.DELETED)  # what expires is due again by itself


@dataclass(frozen=True)
class Taken:
    """One picture that isn't to be delivered."""

    kind: RemovalKind
    by: str
    reason: str


class RemovalLog:
    """The files of one home; several processes may write to them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, image_id: str, kind: RemovalKind, by: str, reason: str) -> None:
        """Write a removal down, if it is of a kind that has to last. Raises OperatorError."""
        if kind in _KINDS:
            self._append(image_id, kind=kind.value, by=by, reason=reason)

    def released(self, image_id: str) -> None:
        """Write down that a withdrawn picture is given out again. Raises OperatorError."""
        self._append(image_id, kind=RELEASED)

    def standing(self) -> dict[str, Taken]:
        """What isn't to be delivered, by picture; what was deleted stays so. Raises OperatorError.

        A line that can't be read is told and passed over: a crash leaves a half one, of what nobody
        was told was done.
        """
        found: dict[str, Taken] = {}
        try:
            for path in sorted(self._folder.glob("*.jsonl")):
                if path.stem < str(datetime.now(UTC).year - limits.REMOVALS_KEPT_YEARS):
                    path.unlink()
                    continue
                with path.open(encoding="utf-8") as lines:
                    for number, line in enumerate(lines, 1):
                        if line.strip() and not _read(line, found):
                            log.error("removal_unreadable", file=path.name, line=number)
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"{self._folder} can't be read: {error}") from error
        return found

    def _append(self, image_id: str, **said: str) -> None:
        now = datetime.now(UTC)
        line = json.dumps({"image": image_id, "at": now.isoformat(), **said})
        try:
            append_private(self._folder / f"{now.year}.jsonl", line)
        except OSError as error:
            raise OperatorError(f"{self._folder} can't be written: {error.strerror}") from error


def _read(line: str, found: dict[str, Taken]) -> bool:
    """Take a line into account; False if it is none."""
    try:
        said = json.loads(line)
        image_id, kind = str(said["image"]), said["kind"]
        taken = None if kind == RELEASED else Taken(RemovalKind(kind), said["by"], said["reason"])
    except (ValueError, KeyError, TypeError):
        return False
    known = found.get(image_id)
    if known is not None and known.kind is RemovalKind.DELETED:
        return True
    if taken is not None:
        found[image_id] = taken
    else:
        found.pop(image_id, None)
    return True
