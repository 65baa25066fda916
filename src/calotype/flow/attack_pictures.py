"""What becomes of attacks' pictures: after the picture by itself, and of both checks together.

For ``calotype safety attack --pictures``. By itself: of a sample of all of an attack's texts, as if
nobody had judged the prompt. Together: of those that passed the prompt check. The embedded model is
of a closed domain: a picture that is let through shows nothing of what was wished for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from calotype.flow.easel import STEPS, Ask, easel
from calotype.safety.evaluate import Attacked, tally
from calotype.safety.setup import SafetySetup


def judged(
    found: Mapping[str, Attacked], seed: int, setup: SafetySetup, most: int, env: Mapping[str, str]
) -> dict[str, Any]:
    """Of each attack "after" and "both", from at most twice so many pictures each.

    "after" counts pictures that passed their check, of ``most`` of the attack's texts, taken by the
    seed. "both" counts those whose text passed too: of all the attack's texts if no more than
    ``most`` passed, since then each of them is drawn, else of that sample. Raises InternalError if
    the engine ends or hangs.
    """
    rng = random.Random(seed)  # noqa: S311 - has to come again, not to be a secret
    sampled = {
        name: rng.sample(range(len(each.texts)), min(most, len(each.texts)))
        for name, each in found.items()
    }
    whole = {name for name, each in found.items() if len(each.passed) <= most}
    texts = dict.fromkeys(
        text
        for name, each in found.items()
        for text in (
            *(each.texts[at] for at in sampled[name]),
            *(each.passed if name in whole else ()),
        )
    )
    delivered = asyncio.run(_delivered(list(texts), setup, env)) if texts else set()
    attacks = {
        name: _counted(each, sampled[name], delivered, is_whole=name in whole)
        for name, each in found.items()
    }
    return {"attacks": attacks, "pictures": len(texts), "pictures_passed": len(delivered)}


def _counted(
    each: Attacked, sampled: Sequence[int], delivered: set[str], *, is_whole: bool
) -> dict[str, Any]:
    among = range(len(each.texts)) if is_whole else sampled
    after = sum(each.texts[at] in delivered for at in sampled)
    both = sum(each.passes[at] and each.texts[at] in delivered for at in among)
    return {"after": tally(after, len(sampled)), "both": tally(both, len(among))}


async def _delivered(texts: Sequence[str], setup: SafetySetup, env: Mapping[str, str]) -> set[str]:
    """Of these prompts, those whose pictures the model's checks and the policy allow."""
    async with easel(setup, env) as drawing:
        pictures = await drawing.judged([Ask(text, at, STEPS) for at, text in enumerate(texts)])
    return {text for text, each in zip(texts, pictures, strict=True) if each.is_allowed}
