"""What this room raises when it can't judge. It never answers "allow" for want of an answer."""

from __future__ import annotations

from calotype.core.errors import OperatorError


class SafetyUnavailable(OperatorError):
    """A required check couldn't run: a prompt is refused, a picture held and not delivered."""

    kind = "safety-unavailable"
    title = "A safety check can't run now"
