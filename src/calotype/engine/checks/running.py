"""Runs a model's checks on its pictures, and says what failed and why.

What can't be loaded is tried again with the next picture: it may have been mended, and a breaker in
the server sees to it that this isn't often. A check that hangs can't be stopped, only left: after
CHECK_S_MAX its pictures go unjudged, and so do all others until it has come back, unless it has a
second place (``places``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from calotype.core import limits
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.engine.checks.base import Check, Picture
from calotype.engine.checks.places import Load, Places, said
from calotype.engine.checks.recogniser import Ending


@dataclass
class Seen:
    """What a model's checks said of one picture."""

    scores: dict[str, float] = field(default_factory=dict)  # by "check:label"
    failed: dict[str, str] = field(default_factory=dict)  # checks that said nothing: why
    degraded: dict[str, str] = field(default_factory=dict)  # those with one of two places down: why


# Imported when first wanted: each brings a part of a library.
_CLASSES = {
    CheckKind.DOMAIN: ("domain", "DomainCheck"),
    CheckKind.CLASSIFIER: ("classifier", "ClassifierCheck"),
    CheckKind.CONCEPTS: ("concepts", "ConceptsCheck"),
    CheckKind.SHIELDGEMMA2: ("shieldgemma2", "ShieldGemma2Check"),
    CheckKind.LLAVAGUARD: ("llavaguard", "LlavaGuardCheck"),
    CheckKind.PROBE: ("probe", "ProbeCheck"),
    CheckKind.TEXT: ("texts", "TextCheck"),
    CheckKind.RECOGNISER: ("recogniser", "RecogniserCheck"),
}


def load_check(use: CheckUse, device: torch.device) -> Check:
    """Load one; raises CheckBroken, or what its library does."""
    module, name = _CLASSES[CheckKind(use.kind)]
    kind: Any = getattr(import_module(f"calotype.engine.checks.{module}"), name)
    check: Check = kind.load(use, device)
    return check


class Checks:
    """The checks of one engine; those that several models share are loaded once."""

    def __init__(self, device: torch.device, load: Load = load_check) -> None:
        self._device, self._load = device, load
        self._uses: dict[str, tuple[CheckUse, ...]] = {}  # by model
        self._places: dict[CheckUse, Places] = {}
        self._warming: list[Future[None]] = []

    def expect(self, model: str, uses: Sequence[CheckUse]) -> None:
        """Pictures of this model will come: load their checks meanwhile."""
        self._uses[model] = tuple(uses)
        for use in sorted(uses, key=lambda it: not it.reads):  # rows wait for these
            if use not in self._places:
                self._places[use] = Places(use, self._device, self._load)
            self._warming += self._places[use].warm()

    def settle(self) -> None:
        """Wait until all that is expected is loaded, or couldn't be."""
        wait(self._warming)
        self._warming.clear()

    def seen(self, model: str, pictures: Sequence[Picture]) -> list[Seen]:
        """What the model's checks say of each picture; never raises, nor waits past CHECK_S_MAX."""
        found = [Seen() for _ in pictures]
        until_s = time.monotonic() + limits.CHECK_S_MAX
        for use in self._uses.get(model, ()):
            if not use.reads:
                self._ask(use, lambda: pictures, found, until_s)
        return found

    def has_readers(self, model: str) -> bool:
        """Whether any of the model's checks reads the prompt, before the first step."""
        return any(use.reads for use in self._uses.get(model, ()))

    def read(self, model: str, prompt: str, ending: Callable[[], Ending]) -> Seen:
        """What these say of one prompt; never raises, nor waits past CHECK_S_MAX.

        ``ending`` gives what the model's text encoder made of it, or raises.
        """
        found = Seen()
        until_s = time.monotonic() + limits.CHECK_S_MAX
        for use in self._uses.get(model, ()):
            if use.reads:
                is_text = use.kind == CheckKind.TEXT
                given = (lambda: [prompt]) if is_text else (lambda: [ending()])
                self._ask(use, given, [found], until_s)
        return found

    def _ask(
        self,
        use: CheckUse,
        given: Callable[[], Sequence[Any]],
        found: Sequence[Seen],
        until_s: float,
    ) -> None:
        """Have a check say of each what it can."""
        begun_s = time.monotonic()
        try:
            answers, fault = self._places[use].ask(given(), len(found), until_s)
        except Exception as error:  # noqa: BLE001 - without its answer pictures are held
            reason = said(error)
            _log(use, f"{reason} ({time.monotonic() - begun_s:.1f} s)")
            for seen in found:
                seen.failed[use.name] = reason
            return
        if fault:
            _log(use, f"answered, but one of its places is down: {fault}")
        for seen, scores in zip(found, answers, strict=True):
            seen.scores |= scores
            if fault:
                seen.degraded[use.name] = fault

    def tensors(self) -> Iterator[torch.Tensor]:
        """The weights of all that are loaded."""
        for places in [*self._places.values()]:
            yield from places.tensors()


def _log(use: CheckUse, what: str) -> None:
    print(f"check {use.name}: {what}", file=sys.stderr, flush=True)
