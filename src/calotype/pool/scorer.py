"""A process that has a check score prompts: torch lives there alone. For commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.core.picture_checks import CheckUse

COMMAND = (sys.executable, "-m", "calotype.engine.checks.scoring")


def scores(use: CheckUse, prompts: Sequence[str]) -> list[dict[str, float]]:
    """What a check that reads says of each prompt, 0..1 by label.

    Raises OperatorError if it can't be loaded, gives no whole answer, or takes longer than
    SCORING_S_MAX.
    """
    asked = json.dumps({"use": asdict(use), "prompts": list(prompts)}).encode()
    try:
        done = subprocess.run(
            COMMAND, input=asked, capture_output=True, timeout=limits.SCORING_S_MAX, check=False
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise _failed(use, f"it took longer than {limits.SCORING_S_MAX:g} s") from error
    except ValueError as error:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _failed(use, f"its process ended: {lines[-1][:500] if lines else ''}") from error
    if "error" in answer:
        raise _failed(use, answer["error"])
    found: list[dict[str, float]] = answer["scores"]
    return found


def _failed(use: CheckUse, why: str) -> OperatorError:
    return OperatorError(f"{use.name} can't score prompts: {why}", field=f"checks.{use.name}")
