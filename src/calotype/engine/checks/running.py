"""Runs a model's checks on its pictures, in a thread of their own, and says what failed and why.

What can't be loaded is tried again with the next picture: it may have been mended, and a breaker in
the server sees to it that this isn't often. A check that hangs can't be stopped, only left: after
CHECK_S_MAX its pictures go unjudged, and so do all others until it has come back.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from calotype.core import limits
from calotype.core.errors import CalotypeError
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.engine.checks.base import Check, CheckBroken, Picture, checked
from calotype.engine.tensors import tensors_of


@dataclass
class Seen:
    """What a model's checks said of one picture."""

    scores: dict[str, float] = field(default_factory=dict)  # by "check:label"
    failed: dict[str, str] = field(default_factory=dict)  # checks that said nothing: why


def load_check(use: CheckUse, device: torch.device) -> Check:
    """Load one; raises CheckBroken, or what its library does."""
    match CheckKind(use.kind):
        case CheckKind.DOMAIN:
            from calotype.engine.checks.domain import DomainCheck

            return DomainCheck.load(use)
        case CheckKind.CLASSIFIER:
            from calotype.engine.checks.classifier import ClassifierCheck

            return ClassifierCheck.load(use, device)
        case CheckKind.CONCEPTS:
            from calotype.engine.checks.concepts import ConceptsCheck

            return ConceptsCheck.load(use, device)
        case CheckKind.SHIELDGEMMA2:
            from calotype.engine.checks.shieldgemma2 import ShieldGemma2Check

            return ShieldGemma2Check.load(use, device)
        case CheckKind.LLAVAGUARD:
            from calotype.engine.checks.llavaguard import LlavaGuardCheck

            return LlavaGuardCheck.load(use, device)
        case CheckKind.PROBE:
            from calotype.engine.checks.probe import ProbeCheck

            return ProbeCheck.load(use, device)


class Checks:
    """The checks of one engine; those that several models share are loaded once."""

    def __init__(
        self,
        device: torch.device,
        load: Callable[[CheckUse, torch.device], Check] = load_check,
    ) -> None:
        self._device, self._load = device, load
        self._uses: dict[str, tuple[CheckUse, ...]] = {}  # by model
        self._loaded: dict[CheckUse, Check] = {}
        self._hanging: Future[list[Seen]] | None = None
        self._thread = ThreadPoolExecutor(1, "checks", _set_threads, (torch.get_num_threads(),))

    def expect(self, model: str, uses: Sequence[CheckUse]) -> None:
        """Pictures of this model will come: load their checks meanwhile."""
        self._uses[model] = tuple(uses)
        self._thread.submit(self._warm, self._uses[model])

    def seen(self, model: str, pictures: Sequence[Picture]) -> list[Seen]:
        """What the model's checks say of each picture; never raises, nor waits past CHECK_S_MAX."""
        uses = self._uses.get(model, ())
        if not uses:
            return [Seen() for _ in pictures]
        if self._hanging is not None and not self._hanging.done():
            return _unseen(uses, pictures, "it hasn't come back from an earlier picture")
        asked = self._thread.submit(self._run, uses, list(pictures))
        try:
            return asked.result(limits.CHECK_S_MAX)
        except TimeoutError:
            self._hanging = asked
            return _unseen(uses, pictures, f"it took longer than {limits.CHECK_S_MAX:g} s")

    def tensors(self) -> Iterator[torch.Tensor]:
        """The weights of all that are loaded."""
        for check in [*self._loaded.values()]:
            for part in vars(check).values():
                if isinstance(part, torch.nn.Module):
                    yield from tensors_of(part)

    def _warm(self, uses: Sequence[CheckUse]) -> None:
        for use in uses:
            try:
                self._check(use)
            except Exception as error:  # noqa: BLE001 - it is tried again, and told, with a picture
                print(f"check {use.name}: {_said(error)}", file=sys.stderr, flush=True)

    def _run(self, uses: Sequence[CheckUse], pictures: Sequence[Picture]) -> list[Seen]:
        found = [Seen() for _ in pictures]
        with torch.inference_mode():
            for use in uses:
                begun_s = time.perf_counter()
                try:
                    answers = checked(use, self._check(use).scores(pictures), len(pictures))
                    for seen, scores in zip(found, answers, strict=True):
                        seen.scores |= scores
                except Exception as error:  # noqa: BLE001 - without its answer pictures are held
                    took_s = time.perf_counter() - begun_s
                    reason = _said(error)
                    said = f"check {use.name}: {reason} ({took_s:.1f} s)"
                    print(said, file=sys.stderr, flush=True)
                    for seen in found:
                        seen.failed[use.name] = reason
        return found

    def _check(self, use: CheckUse) -> Check:
        if use not in self._loaded:
            self._loaded[use] = self._load(use, self._device)
        return self._loaded[use]


def _set_threads(count: int) -> None:
    torch.set_num_threads(count)  # a thread's own


def _unseen(uses: Sequence[CheckUse], pictures: Sequence[Picture], why: str) -> list[Seen]:
    return [Seen(failed={use.name: why for use in uses}) for _ in pictures]


def _said(error: Exception) -> str:
    if isinstance(error, CheckBroken | CalotypeError):
        return error.detail[:500]
    return f"{type(error).__name__}: {error}"[:500]
