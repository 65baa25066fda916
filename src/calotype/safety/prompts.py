"""Judges prompts by lists of words. A first line of defence: it stops asking, not ingenuity.

What it can't see is written in text.py; the picture's own check comes after it. It knows nothing
of who asks. No classifier and no clock: the same text and lists give the same verdict.
"""

from __future__ import annotations

from pathlib import Path

from calotype.core.nouns import Verdict, VerdictKind
from calotype.safety.lists import ALWAYS, Lists
from calotype.safety.match import Matcher
from calotype.safety.text import read

CHECK = "blocklist"
_NEGATIVE = "negative_prompt"

_DETAILS = {
    ALWAYS: "sexual content involving minors",
    "sexual": "sexual content",
    "violence": "gore or graphic violence",
    "hate": "hateful content",
}


class PromptCheck:
    """Judges a prompt against the shipped lists, and an operator's additions."""

    def __init__(self, lists: Lists) -> None:
        self.version = lists.version
        self._categories = tuple(name for name in lists.block if name not in lists.off)
        others = {
            "minors": lists.minors,
            "suggestive": lists.suggestive,
            "undressing": lists.undressing,
        }
        self._matcher = Matcher(lists.block | others, harmless=lists.benign)

    @classmethod
    def default(cls) -> PromptCheck:
        """With the lists that ship with the package."""
        return cls(Lists.shipped())

    @classmethod
    def from_file(cls, path: Path) -> PromptCheck:
        """With the shipped lists and an operator's file (TOML, see blocklist.toml) on top.

        Raises OperatorError naming the file if it can't be read or holds something unknown.
        """
        return cls(Lists.shipped().extended(path))

    def judge(self, prompt: str, *, field: str = "prompt") -> Verdict:
        """BLOCK with a category, or ALLOW.

        In the field "negative_prompt" the words of sexual, violence and hate are welcome (they
        steer away from it), but taking clothes away isn't. Sexual content involving minors is
        refused in any field and can't be turned off.
        """
        category = self._category(self._matcher.hits(read(prompt)), is_negative=field == _NEGATIVE)
        if category is None:
            return Verdict(VerdictKind.ALLOW, CHECK, self.version)
        detail = f"The {field.replace('_', ' ')} asks for {_DETAILS[category]}."
        return Verdict(VerdictKind.BLOCK, CHECK, self.version, category, 1.0, detail)

    def _category(self, hits: set[str], *, is_negative: bool) -> str | None:
        # Words that are harmless alone, of a minor and of sex, aren't together.
        if ALWAYS in hits or ("minors" in hits and hits & {"sexual", "suggestive"}):
            return ALWAYS
        if is_negative:
            hits = {"sexual"} if "undressing" in hits else set()
        return next((name for name in self._categories if name in hits), None)
