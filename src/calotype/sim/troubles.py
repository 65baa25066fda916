"""What happens to the engines of a schedule: they come, die (told late, or never), stall, load
models or fail to, warm or lose one by themselves, are taken away after notice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Any

from calotype.core.events import (
    EngineGone,
    EngineNotice,
    EnginePaused,
    EngineResumed,
    EngineUp,
    LoadFailed,
    ModelGone,
    ModelWarmed,
    PolicyEvent,
)
from calotype.sim.books import Books

BUSY_S = 60.0  # in which jobs and troubles come


class Troubles(ABC):
    """Of each of the books' engines; who plays the schedule calls the method of what is due."""

    def __init__(self, noise: Random) -> None:
        self._noise, self._now = noise, 0.0
        self._books = Books()

    @abstractmethod
    def _later(self, delay_s: float, what: str, *about: Any) -> None:
        """Have something happen."""

    @abstractmethod
    def _tell(self, event: PolicyEvent) -> None:
        """Tell the line."""

    def _delay_s(self) -> float:
        """Of a message: mostly short, now and then very long."""
        return self._noise.expovariate(20.0 if self._noise.random() < 0.9 else 0.2)

    def _on_up(self, name: str) -> None:
        engine = self._books.engines[name]
        if engine.is_up:
            return
        engine.life += 1
        engine.is_up = True
        self._later(self._delay_s(), "warm_told", name, engine.life)

    def _on_warm_told(self, name: str, life: int) -> None:
        """The server hears of an engine; of its last end, it may not have."""
        engine = self._books.engines[name]
        if engine.life != life or not engine.is_up:
            return
        engine.is_known, engine.is_paused, engine.known_life = True, False, life
        engine.models, engine.loading = engine.begins_with, ""
        was = list(self._books.running.pop(name, ()))
        self._books.running[name] = {}
        for job_id in () if engine.is_noticed else was:
            self._books.jobs[job_id].lost += 1
        engine.is_noticed = False
        budget = engine.budget_bytes
        rows, pinned = engine.rows_max, engine.pinned
        self._tell(EngineUp(name, engine.models, rows, budget_bytes=budget, pinned=pinned))

    def _on_loaded(self, name: str, life: int, model: str) -> None:
        engine = self._books.engines[name]
        if engine.known_life != life or not (engine.is_up and engine.is_known):
            return
        engine.loading = ""
        if model in engine.models:  # others left for the room alone
            self._tell(ModelWarmed(name, model))
        elif self._now < 2 * BUSY_S and self._noise.random() < 0.2:
            self._tell(LoadFailed(name, model, "no such file"))
        else:
            engine.models = (*engine.models, model)
            self._tell(ModelWarmed(name, model))

    def _on_die(self, name: str, life: int) -> None:
        if self._books.engines[name].life == life:
            self._lose(name, is_told=True)

    def _on_lose(self) -> None:
        self._lose(self._noise.choice(list(self._books.engines)), is_told=True)

    def _on_mute(self) -> None:
        """It dies and comes back, and nobody says that it died."""
        self._lose(self._noise.choice(list(self._books.engines)), is_told=False)

    def _lose(self, name: str, *, is_told: bool) -> None:
        engine = self._books.engines[name]
        if not engine.is_up:
            return
        engine.is_up = False
        if is_told:
            self._later(self._delay_s(), "gone_told", name, engine.life)
        self._later(10.0 + self._noise.random(), "up", name)

    def _on_gone_told(self, name: str, life: int) -> None:
        engine = self._books.engines[name]
        if engine.life != life or not engine.is_known:
            return
        engine.is_known = False
        was = self._books.running.pop(name, {})
        for job_id in () if engine.is_noticed else was:
            self._books.jobs[job_id].lost += 1
        self._tell(EngineGone(name, "lost"))

    def _on_pause(self) -> None:
        name = self._noise.choice(list(self._books.engines))
        engine = self._books.engines[name]
        if engine.is_known and not engine.is_paused:
            engine.is_paused = True
            self._tell(EnginePaused(name))
            self._later(8.0, "resume", name, engine.life)

    def _on_notice(self) -> None:
        """It will be taken away; it may be told too late to hand anything back."""
        name = self._noise.choice(list(self._books.engines))
        engine = self._books.engines[name]
        if engine.is_known and engine.is_up and not engine.is_noticed:
            engine.is_noticed = engine.is_paused = True
            goes_in_s = self._noise.random() * 45
            self._tell(EngineNotice(name, self._now + goes_in_s))
            self._later(goes_in_s, "die", name, engine.life)

    def _on_resume(self, name: str, life: int) -> None:
        engine = self._books.engines[name]
        if engine.is_known and engine.is_paused and engine.life == life:
            engine.is_paused = engine.is_noticed  # which nothing takes back
            self._tell(EngineResumed(name))

    def _on_warm(self) -> None:
        name, model = self._noise.choice(list(self._books.engines)), self._noise.choice("abc")
        engine = self._books.engines[name]
        if engine.is_known and not engine.budget_bytes and model not in engine.models:
            engine.models = (*engine.models, model)
            self._tell(ModelWarmed(name, model))

    def _on_cool(self) -> None:
        name = self._noise.choice(list(self._books.engines))
        engine = self._books.engines[name]
        in_use = {self._books.jobs[job].queued.model for job in self._books.running.get(name, ())}
        free = [model for model in engine.models if model not in in_use]
        if engine.is_known and name != "last" and free:
            gone = self._noise.choice(free)
            engine.models = tuple(model for model in engine.models if model != gone)
            self._tell(ModelGone(name, gone))
