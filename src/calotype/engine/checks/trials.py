"""Checks on trial: they look at real pictures beside the check in force, and nothing follows.

In a thread of their own, one for all, which takes one core at most and gives way; a picture's
answer never waits for them. What they say, or why they said nothing, is sent as a message of its
own. At most TRIALS_HELD_MAX pictures wait: while one hangs the others are told as unanswered.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from calotype.core import limits
from calotype.core.errors import CalotypeError
from calotype.core.messages import Message, TrialSeen
from calotype.core.picture_checks import CheckUse, Trial
from calotype.engine.checks.base import Check, Picture, checked
from calotype.engine.tensors import tensors_of
from calotype.policy.canary import is_chosen

_GIVES_WAY = 10  # nice value of the thread
_SAID_CHARS = 300


@dataclass(frozen=True)
class _Asked:
    trial: Trial
    row: str
    picture: Picture
    current: Mapping[str, float]  # by label, of the check in force; empty if it said nothing


class Trials:
    """The checks on trial of one engine."""

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

    def offer(self, model: str, row: str, picture: Picture, scores: Mapping[str, float]) -> None:
        """Have those of the model's trials that are due look at a picture; never waits or raises.

        ``scores``: what the checks in force gave it, by "check:label".
        """
        for trial in self._trials.get(model, ()):
            if not is_chosen(row, f"trial {trial.name}", trial.share):
                continue
            names = {label: trial.score_name(label) for label in trial.labels}
            is_whole = all(name in scores for name in names.values())
            current = {label: scores[name] for label, name in names.items()} if is_whole else {}
            asked = _Asked(trial, row, picture, current)
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
        try:
            if trial not in self._loaded:
                self._loaded[trial] = self._load(trial, self._device)
            with torch.inference_mode():
                [scores] = checked(trial, self._loaded[trial].scores([asked.picture]), 1)
        except Exception as error:  # noqa: BLE001 - it is on trial: that it fails is what is recorded
            said = error.detail if isinstance(error, CalotypeError) else repr(error)
            self._rests[trial] = (now + limits.TRIAL_REST_S, said[:_SAID_CHARS])
            return {}, said[:_SAID_CHARS]
        return {label: scores[trial.score_name(label)] for label in trial.labels}, ""

    def _tell(self, asked: _Asked, scores: dict[str, float], failed: str, took_s: float) -> None:
        trial = asked.trial
        said = TrialSeen(
            asked.row, trial.name, trial.build, dict(asked.current), scores, failed, took_s
        )
        self._send(said)
