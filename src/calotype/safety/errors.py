"""What this room raises when it can't judge. It never answers "allow" for want of an answer."""

from __future__ import annotations

from calotype.core.errors import OperatorError


class SafetyUnavailable(OperatorError):
    """A required check couldn't run: the picture is held, not delivered."""

    kind = "safety-unavailable"
    title = "The picture can't be judged now"
