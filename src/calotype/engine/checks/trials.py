"""Checks on trial: they look at real pictures, or read real prompts, beside the check in force.

Nothing follows from it. In a thread of their own, one for all, which takes one core at most and
gives way; a picture's answer never waits for them. What they say, or why they said nothing, is sent
as a message of its own. At most TRIALS_HELD_MAX pictures wait: while one hangs the others are told
as unanswered.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from calotype.core import limits
from calotype.core.errors import CalotypeError
from calotype.core.messages import Message, TrialSeen
from calotype.core.picture_checks import CheckKind, CheckUse, Trial
from calotype.engine.checks.base import Check, Picture, checked
from calotype.engine.checks.recogniser import Ending
from calotype.engine.checks.running import Seen
from calotype.engine.tensors import tensors_of
from calotype.policy.canary import is_chosen

_GIVES_WAY = 10  # nice value of the thread
_SAID_CHARS = 300


@dataclass(frozen=True)
class _Asked:
    trial: Trial
    row: str
    given: Any  # a picture, a prompt, or what a text encoder made of one
    current: Mapping[str, float]  # by label, of the check in force; empty if it said nothing
    build: str  # of the check in force


class Trials:
    """The checks on trial of one engine. What is on trial is said by one thread."""

    def __init__(
        self,
        device: torch.device,
        send: Callable[[Message], None],
        load: Callable[[CheckUse, torch.device], Check],
    ) -> None:
        """``send`` is called from several threads."""
        self._device, self._send, self._load = device, send, load
        self._trials: dict[str, tuple[Trial, ...]] = {}  # by model
        self._loaded: dict[Trial, Check] = {}
        self._rests: dict[Trial, tuple[float, str]] = {}  # until when, by the clock; why
        self._waiting: deque[_Asked] = deque()
        self._changed = threading.Condition()
        self._is_busy = False
        self._thread: threading.Thread | None = None

    def expect(self, model: str, trials: Sequence[Trial]) -> None:
        """Pictures of this model will come."""
        self._trials[model] = tuple(trials)

    def change(self, trials: Sequence[Trial]) -> None:
        """These are on trial from now on, for all models; what isn't any more is forgotten."""
        self._trials = dict.fromkeys(self._trials, tuple(trials))
        for trial in [*self._loaded]:
            if trial not in trials:
                self._loaded.pop(trial, None)

    def offer(self, model: str, row: str, seen: Seen, picture: Picture) -> None:
        """Have those that are due look at a picture; never waits or raises.

        ``seen``: what the checks in force said.
        """
        for trial in self._due(model, row, seen):
            if not trial.reads:
                self._put(_asked(trial, row, picture, seen))

    def offer_words(
        self, model: str, row: str, seen: Seen, prompt: str, ending: Callable[[], Ending]
    ) -> None:
        """The same of those that read, and a prompt; see ``Checks.read``."""
        for trial in self._due(model, row, seen):
            if not trial.reads:
                continue
            try:
                given = prompt if trial.kind == CheckKind.TEXT else ending()
            except Exception as error:  # noqa: BLE001 - what the row's own checks say, too
                self._tell(_asked(trial, row, None, seen), {}, _said(error), 0.0)
            else:
                self._put(_asked(trial, row, given, seen))

    def _due(self, model: str, row: str, seen: Seen) -> list[Trial]:
        """Of checks that were asked: not every model needs each."""
        asked = seen.builds.keys() | seen.failed.keys()
        trials = [it for it in self._trials.get(model, ()) if it.name in asked]
        return [it for it in trials if is_chosen(row, f"trial {it.name}", it.share)]

    def _put(self, asked: _Asked) -> None:
        with self._changed:
            has_room = len(self._waiting) < limits.TRIALS_HELD_MAX
            if has_room:
                self._waiting.append(asked)
                self._start()
                self._changed.notify_all()
        if not has_room:
            self._tell(asked, {}, "it is still at earlier pictures", 0.0)

    def settle(self) -> None:
        """Wait until all that were taken are answered."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._is_busy)

    def tensors(self) -> Iterator[torch.Tensor]:
        """The weights of all that are loaded."""
        for check in [*self._loaded.values()]:
            for part in vars(check).values():
                if isinstance(part, torch.nn.Module):
                    yield from tensors_of(part)
        for asked in [*self._waiting]:
            if isinstance(asked.given, Ending):
                yield asked.given.embedding

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="trials", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        torch.set_num_threads(1)  # of this thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _GIVES_WAY)
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                asked = self._waiting.popleft()
                self._is_busy = True
            begun_s = time.perf_counter()
            scores, failed = self._answer(asked)
            self._tell(asked, scores, failed, time.perf_counter() - begun_s)

    def _answer(self, asked: _Asked) -> tuple[dict[str, float], str]:
        """The scores by label, or why there are none; it rests after that."""
        trial, now = asked.trial, time.monotonic()
        until, why = self._rests.get(trial, (0.0, ""))
        if now < until:
            return {}, f"it rests: {why}"
        if all(trial not in some for some in self._trials.values()):
            return {}, "it is on trial no more"
        try:
            check = self._loaded.get(trial)
            if check is None:
                check = self._loaded[trial] = self._load(trial, self._device)
            with torch.inference_mode():
                [scores] = checked(trial, check.scores([asked.given]), 1)
        except Exception as error:  # noqa: BLE001 - it is on trial: that it fails is what is recorded
            self._rests[trial] = (now + limits.TRIAL_REST_S, _said(error))
            return {}, _said(error)
        return {label: scores[trial.score_name(label)] for label in trial.labels}, ""

    def _tell(self, asked: _Asked, scores: dict[str, float], failed: str, took_s: float) -> None:
        trial = asked.trial
        current = dict(asked.current)
        self._send(
            TrialSeen(
                *(asked.row, trial.name, trial.build, current, scores),
                failed=failed,
                took_s=took_s,
                current_build=asked.build,
            )
        )


def _asked(trial: Trial, row: str, given: Any, seen: Seen) -> _Asked:
    names = {label: trial.score_name(label) for label in trial.labels}
    is_whole = all(name in seen.scores for name in names.values())
    current = {label: seen.scores[name] for label, name in names.items()} if is_whole else {}
    return _Asked(trial, row, given, current, seen.builds.get(trial.name, ""))


def _said(error: Exception) -> str:
    said = error.detail if isinstance(error, CalotypeError) else repr(error)
    return said[:_SAID_CHARS]
