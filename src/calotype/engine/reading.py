"""Whether a row may begin: what recognisers make of its prompt, before its first step.

It compares scores with numbers that came with the row, and decides nothing else: what a refusal
means is the server's to say. A recogniser that fails, hangs or gives half an answer refuses the
row, too.
"""

from __future__ import annotations

import math

from calotype.core.messages import RowRefused
from calotype.engine.checks.places import said
from calotype.engine.checks.recogniser import Ending
from calotype.engine.checks.running import Checks, Seen
from calotype.engine.rows import Row


def refusal(row: Row, checks: Checks) -> RowRefused | None:
    """Why no step of the row may be made; None if it may begin: then the row has the scores."""
    command = row.command
    if not checks.reads_first(command.model):
        return None
    row.read = _read(row, checks)
    is_past = any(
        score >= command.refused_from.get(name, math.inf) for name, score in row.read.scores.items()
    )
    if not row.read.failed and not is_past:
        return None
    seen = row.read
    return RowRefused(command.row, seen.scores, seen.failed, seen.degraded)


def _read(row: Row, checks: Checks) -> Seen:
    model = row.model
    try:
        ending = Ending(model.ending(row.conditions[-1]), model.contents)
    except Exception as error:  # noqa: BLE001 - without an embedding nobody can judge
        reason = said(error)
        return Seen(failed=dict.fromkeys(checks.reads_first(row.command.model), reason))
    return checks.read(row.command.model, ending)
