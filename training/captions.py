"""Captions: what a person might type to get a scene, in very many forms.

A caption says some of a scene's attributes (all of them in two captions of five) and is silent on
the rest, so that half a prompt works too. ``said`` also tells which ones it says, for training the
text encoders. ``training.forms`` finds the wording. Knows nothing of pixels, tokens or models.
"""

from __future__ import annotations

import random
import re

from training.forms import Writer
from training.scenes import Scene
from training.statements import ATTRIBUTES, UNSAID, Said, ThingSaid

__all__ = ["ATTRIBUTES", "UNSAID", "WORDS_MAX", "Said", "ThingSaid", "caption", "said"]

WORDS_MAX = 44  # words and punctuation in a caption: 48 tokens hold them with both ends, typos too
FULL = 0.4  # share of captions that say everything


def caption(scene: Scene, rng: random.Random) -> str:
    """One of very many English captions that are true of ``scene``."""
    return said(scene, rng)[0]


def said(scene: Scene, rng: random.Random, *, everything: bool = False) -> tuple[str, Said]:
    """A caption and what it says. With ``everything``, only an empty sky may go unsaid.

    The caption has at most ``WORDS_MAX`` words and punctuation marks.
    """
    for attempt in range(100):
        chosen = _choose(scene, rng, everything=everything)
        text = _finish(Writer(chosen, rng, plain=attempt > 4).write(), rng)
        if len(re.findall(r"\w+|[^\w\s]", text)) <= WORDS_MAX:
            return text, chosen
    raise AssertionError(f"no caption of at most {WORDS_MAX} words for {scene}")


def _choose(scene: Scene, rng: random.Random, *, everything: bool) -> Said:
    """Which attributes to say; at least one."""
    keep = 1.0 if everything or rng.random() < FULL else rng.uniform(0.15, 0.95)
    while True:
        values = {
            name: getattr(scene, name) if rng.random() < keep else UNSAID for name in ATTRIBUTES
        }
        if values["light"] == "none" and rng.random() < 0.75:
            values["light"] = UNSAID  # few people say that there is nothing in the sky
        things = {
            thing.kind: ThingSaid(
                thing.colour if rng.random() < keep else UNSAID,
                thing.place if rng.random() < keep else UNSAID,
            )
            for thing in scene.things
            if rng.random() < keep + 0.2
        }
        if things or any(value != UNSAID for value in values.values()):
            return Said(**values, things=things)


def _finish(text: str, rng: random.Random) -> str:
    """Articles, spaces and letter case put right."""
    text = re.sub(r"\s+(?=[,.; ])|^\s+", "", text).strip(" ,")
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    case = rng.random()
    if case < 0.45:
        return text
    if case < 0.95:
        text = re.sub(r"(^|[.!] )([a-z])", lambda found: found[1] + found[2].upper(), text)
        return text if text.endswith((".", "!")) or rng.random() < 0.4 else text + "."
    return text.upper() if case < 0.98 else text.title()
