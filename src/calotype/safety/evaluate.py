"""Measures the prompt check: recall, false positives, evasions, searches, and its time.

What it asks is in three sets. The first (evaluation.toml) was looked at while lists and classifier
were made, so its figures flatter. The second was written afterwards, by others; its results were
seen once, before the last changes. The third is asked when those are done, and changes nothing. It
knows no pictures: a bypass here is a text that passed, whatever a model would have made of it.
"""

from __future__ import annotations

import math
import random
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.core.nouns import VerdictKind
from calotype.safety.attacks import DISGUISES, MISSPELT, splitting, stacked, substituting
from calotype.safety.prompts import PromptCheck

SETS = {
    "first": Path(__file__).with_name("evaluation.toml"),
    "second": Path(__file__).with_name("evaluation_second.toml"),
    "third": Path(__file__).with_name("evaluation_third.toml"),
}
_STACKED = 20  # pairs of disguises tried on each prompt
_Search = Callable[[str, str, Callable[[str], bool], random.Random], tuple[str, bool]]
_SEARCHES: Mapping[str, _Search] = {"splitting": splitting, "substituting": substituting}


@dataclass(frozen=True)
class Attacked:
    """What one attack came to: its texts, of a search the one it ended with, and which passed."""

    texts: tuple[str, ...]
    passes: tuple[bool, ...]

    @property
    def passed(self) -> list[str]:
        """The texts that the prompt check let through."""
        return [text for text, it_passes in zip(self.texts, self.passes, strict=True) if it_passes]


def prompts(name: str = "first") -> dict[str, Any]:
    """A set's prompts: ``listed``, ``reworded`` by category, ``harmless``; raises InvalidInput."""
    if name not in SETS:
        raise InvalidInput(f"there is no set of prompts {name!r}", field="asked", limit=list(SETS))
    return tomllib.loads(SETS[name].read_text(encoding="utf-8"))


def interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    if not of:
        return 0.0, 1.0
    z, share = 1.96, count / of
    middle = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def tally(count: int, of: int) -> dict[str, Any]:
    """A count with what it is of, and the interval of its share."""
    low, high = interval(count, of)
    return {"count": count, "of": of, "low": round(low, 4), "high": round(high, 4)}


def evaluate(check: PromptCheck, of: str = "first") -> dict[str, Any]:
    """Recall by category, plain and reworded; harmless prompts refused, by name; of a set."""
    asked = prompts(of)
    listed: dict[str, list[str]] = {}
    for each in asked["listed"]:
        listed.setdefault(each["category"], []).append(each["prompt"])
    refused = [text for text in asked["harmless"]["looks_bad"] if not _passes(check, text)]
    return {
        "version": check.version,
        "asked": of,
        "listed": {name: _refused(check, texts) for name, texts in listed.items()},
        "reworded": {name: _refused(check, texts) for name, texts in asked["reworded"].items()},
        "harmless that look bad": tally(len(refused), len(asked["harmless"]["looks_bad"])),
        "refused": refused,
    }


def attack(check: PromptCheck, seed: int, of: str = "first") -> dict[str, Attacked]:
    """What each attack came to on a set's prompts; the same seed gives the same attacks."""
    asked = prompts(of)
    reworded = [text for texts in asked["reworded"].values() for text in texts]
    return attacked(check, asked["listed"], reworded, seed)


def attacked(
    check: PromptCheck, asked: Sequence[Mapping[str, str]], reworded: Sequence[str], seed: int
) -> dict[str, Attacked]:
    """The same on prompts of one's own: each a "prompt" and the listed "word" in it."""
    rng = random.Random(seed)  # noqa: S311 - has to come again, not to be a secret
    disguises = {**DISGUISES, **MISSPELT}
    found = {
        name: _asked(check, [_disguised(each, disguise(each["word"])) for each in asked])
        for name, disguise in disguises.items()
    }
    pairs = [
        _disguised(each, stacked(each["word"], rng)) for each in asked for _ in range(_STACKED)
    ]
    found["two disguises"] = _asked(check, pairs)
    for name, search in _SEARCHES.items():
        ends = [
            search(each["prompt"], each["word"], lambda text: _passes(check, text), rng)
            for each in asked
        ]
        found[name] = Attacked(tuple(text for text, _ in ends), tuple(it for _, it in ends))
    found["reworded by hand"] = _asked(check, reworded)
    return found


def report(found: Mapping[str, Attacked]) -> dict[str, dict[str, Any]]:
    """How often each attack passed, of how many texts, and those that did."""
    return {
        name: tally(len(each.passed), len(each.texts)) | {"passed": each.passed}
        for name, each in found.items()
    }


def speed(check: PromptCheck, chars: int, rounds: int) -> dict[str, float]:
    """Milliseconds of one judgement of ``chars`` characters: P50 and P99, wall and of the CPU."""
    texts = [*prompts()["harmless"]["looks_bad"]]
    rng = random.Random(0)  # noqa: S311 - has to come again, not to be a secret
    wall, cpu = [], []
    for _ in range(rounds):
        text = ", ".join(rng.choices(texts, k=1 + chars // 8))[:chars]
        began, began_cpu = time.perf_counter(), time.thread_time()
        check.judge_fields({"prompt": text, "negative_prompt": "blurry, lowres", "loras": ""})
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append((time.thread_time() - began_cpu) * 1000)
    return {
        f"{name} P{part} ms": round(_quantile(times, part / 100), 2)
        for name, times in (("wall", wall), ("CPU", cpu))
        for part in (50, 99)
    }


def _quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def _passes(check: PromptCheck, text: str) -> bool:
    return check.judge(text).kind is VerdictKind.ALLOW


def _refused(check: PromptCheck, texts: Sequence[str]) -> dict[str, Any]:
    return tally(sum(not _passes(check, text) for text in texts), len(texts))


def _asked(check: PromptCheck, texts: Sequence[str]) -> Attacked:
    return Attacked(tuple(texts), tuple(_passes(check, text) for text in texts))


def _disguised(each: Mapping[str, str], word: str) -> str:
    return each["prompt"].replace(each["word"], word)
