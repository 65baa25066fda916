"""What this room raises when it can't judge. It never answers "allow" for want of an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from calotype.core.errors import CalotypeError, OperatorError

Answer = TypeVar("Answer")


class SafetyUnavailable(OperatorError):
    """A required check couldn't run: a prompt is refused, a picture held and not delivered."""

    kind = "safety-unavailable"
    title = "A safety check can't run now"


def answered(what: str, ask: Callable[[], Answer]) -> Answer:
    """The answer of a check; whatever goes wrong in it is SafetyUnavailable: no answer allows."""
    try:
        return ask()
    except CalotypeError:
        raise
    except Exception as error:
        said = f"the {what} check failed: {type(error).__name__}: {error}"
        raise SafetyUnavailable(said, field=what) from error
