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
from weakref import WeakSet

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
    builds: dict[str, str] = field(default_factory=dict)  # which version answered, by check


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
    """The checks of one engine; those that several models share are loaded once.

    One version of each is in force, for all models. It is the one that was expected first, until
    another takes its place (``swaps``).
    """

    def __init__(self, device: torch.device, load: Load = load_check) -> None:
        self._device, self._load = device, load
        self._names: dict[str, tuple[str, ...]] = {}  # of its checks, by model
        self._places: dict[str, Places] = {}  # of what is in force, by name
        self._every = WeakSet[Places]()  # all that are loaded, or may yet be
        self._warming: list[Future[None]] = []

    def expect(self, model: str, uses: Sequence[CheckUse]) -> None:
        """Pictures of this model will come: load their checks meanwhile."""
        self._names[model] = tuple(use.name for use in uses)
        for use in sorted(uses, key=lambda it: not it.reads):  # rows wait for these
            if use.name not in self._places:
                self._places[use.name] = self.placed(use)
            self._warming += self._places[use.name].warm()

    def in_force(self, name: str) -> CheckUse | None:
        """The version of a check that judges now; None if no model here needs the check."""
        return self._places[name].use if name in self._places else None

    def placed(self, use: CheckUse) -> Places:
        """A version by itself, in force nowhere, and loaded by whoever asks it first."""
        places = Places(use, self._device, self._load)
        self._every.add(places)
        return places

    def swap(self, places: Places) -> None:
        """This version is in force from the next picture on; the old one goes once it is through.

        What it is asked, it answers.
        """
        self._places[places.use.name] = places

    def settle(self) -> None:
        """Wait until all that is expected is loaded, or couldn't be."""
        wait(self._warming)
        self._warming.clear()

    def seen(self, model: str, pictures: Sequence[Picture]) -> list[Seen]:
        """What the model's checks say of each picture; never raises, nor waits past CHECK_S_MAX."""
        found = [Seen() for _ in pictures]
        until_s = time.monotonic() + limits.CHECK_S_MAX
        for places in self._of(model):
            if not places.use.reads:
                self._ask(places, lambda: pictures, found, until_s)
        return found

    def has_readers(self, model: str) -> bool:
        """Whether any of the model's checks reads the prompt, before the first step."""
        return any(places.use.reads for places in self._of(model))

    def read(self, model: str, prompt: str, ending: Callable[[], Ending]) -> Seen:
        """What these say of one prompt; never raises, nor waits past CHECK_S_MAX.

        ``ending`` gives what the model's text encoder made of it, or raises.
        """
        found = Seen()
        until_s = time.monotonic() + limits.CHECK_S_MAX
        for places in self._of(model):
            if places.use.reads:
                is_text = places.use.kind == CheckKind.TEXT
                given = (lambda: [prompt]) if is_text else (lambda: [ending()])
                self._ask(places, given, [found], until_s)
        return found

    def _of(self, model: str) -> list[Places]:
        """Its checks as they are now: what is begun with one version is ended with it."""
        return [self._places[name] for name in self._names.get(model, ())]

    def _ask(
        self,
        places: Places,
        given: Callable[[], Sequence[Any]],
        found: Sequence[Seen],
        until_s: float,
    ) -> None:
        """Have a check say of each what it can."""
        begun_s, use = time.monotonic(), places.use
        try:
            answers, fault = places.ask(given(), len(found), until_s)
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
            seen.builds[use.name] = use.build
            if fault:
                seen.degraded[use.name] = fault

    def tensors(self) -> Iterator[torch.Tensor]:
        """The weights of all that are loaded, those too that judge no more, or not yet."""
        for places in [*self._every]:
            yield from places.tensors()


def _log(use: CheckUse, what: str) -> None:
    print(f"check {use.name}: {what}", file=sys.stderr, flush=True)
