"""Tells the policy again what a recording server's line was told, and compares what it decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.core.limits import RECORD_LINE_BYTES_MAX
from calotype.policy.history import Replay


def replay(path: Path) -> dict[str, Any]:
    """Compare a whole recording, byte for byte; ``difference`` is the first line that differs.

    Raises InvalidInput, which names line and field, for a file that is no recording.
    """
    replayed, difference = Replay(), None
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(RECORD_LINE_BYTES_MAX), "")):
                if not line.endswith("\n"):
                    raise InvalidInput(f"line {number + 1}: it has no end", field="file")
                if difference := replayed.take(number + 1, line[:-1]):
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} can't be read: {error}", field="file") from None
    except InvalidInput as error:
        raise InvalidInput(f"{path.name}, {error.detail}", field=error.field) from None
    if not replayed.starts:
        raise InvalidInput(f"{path.name}: no server has recorded this", field="file")
    return {
        "starts": replayed.starts,
        "jobs": replayed.jobs,
        "events": replayed.events,
        "decisions": replayed.decisions,
        "identical": difference is None,
        "difference": vars(difference) if difference else None,
    }
