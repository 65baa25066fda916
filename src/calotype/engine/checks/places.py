"""Where a check runs: a folder of weights loaded in a thread of its own, and perhaps a second one.

A check is at one *place*, or at two (``CheckUse.standby``): another copy of the network, or another
network with the same labels. Where the first gives no answer (it can't be loaded, fails, hangs,
gives half an answer or no number) the second is asked of the same pictures. Both are in the
engine's process: that survives a bad file and a hang, and not the loss of process or device, from
which the job's next attempt, on another engine, is what helps.

What rests after failures is told by ``policy/breaker.py``. An answer that comes while one of two
places is down says so: it is judged more strictly.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from calotype.core import limits
from calotype.core.errors import CalotypeError
from calotype.core.picture_checks import CheckUse
from calotype.engine.checks.base import Check, CheckBroken, checked
from calotype.engine.tensors import tensors_of
from calotype.policy.breaker import Breakers, check

Load = Callable[[CheckUse, torch.device], Check]
Answers = list[dict[str, float]]  # of each picture: by "check:label"
_loading = threading.Lock()  # libraries that import as they go don't bear two loads at once


class Place:
    """One check at one place. What hangs can't be stopped, only left until it comes back."""

    def __init__(self, use: CheckUse, device: torch.device, load: Load) -> None:
        self._use, self._device, self._load = use, device, load
        self._check: Check | None = None
        self._asked: Future[Answers] | None = None  # the last question
        self.fault = ""  # why its last try gave no answer; "" if it did, or none was made
        threads = torch.get_num_threads()
        self._thread = ThreadPoolExecutor(1, f"check {use.name}", torch.set_num_threads, (threads,))

    @property
    def is_busy(self) -> bool:
        """Whether it hasn't answered the last question yet."""
        return self._asked is not None and not self._asked.done()

    def warm(self) -> Future[None]:
        """Load it, unless it is; what can't be loaded is tried again with the next picture."""
        return self._thread.submit(self._warm)

    def ask(self, given: Sequence[Any], count: int, within_s: float) -> Answers:
        """The scores of ``count`` pictures; raises CheckBroken, or what the check does."""
        if self.is_busy:
            raise CheckBroken("it hasn't come back from an earlier picture")
        asked = self.probe(given, count)
        try:
            return asked.result(within_s)
        except TimeoutError:
            self.fault = f"it took longer than {within_s:g} s"
            raise CheckBroken(self.fault) from None

    def probe(self, given: Sequence[Any], count: int) -> Future[Answers]:
        """Ask without waiting, to see whether it works again: ``fault`` will say."""
        self._asked = self._thread.submit(self._answer, given, count)
        return self._asked

    def prove(self, given: Sequence[Any], until_s: float) -> None:
        """Load it, and have it answer for all of these together, and for each alone.

        Raises CheckBroken, or what the check does, unless every answer is a whole one in time.
        """
        for some in (given, *([one] for one in given)):
            self.ask(some, len(some), max(until_s - time.monotonic(), 0.0))

    def tensors(self) -> Iterator[torch.Tensor]:
        """Its weights, if they are loaded."""
        for part in vars(self._check).values() if self._check is not None else ():
            if isinstance(part, torch.nn.Module):
                yield from tensors_of(part)

    def _loaded(self) -> Check:
        if self._check is None:
            with _loading:
                self._check = self._load(self._use, self._device)
        return self._check

    def _warm(self) -> None:
        try:
            self._loaded()
        except Exception as error:  # noqa: BLE001 - it is tried again, and told, with a picture
            self.fault = said(error)
            print(f"check {self._use.name}: {self.fault}", file=sys.stderr, flush=True)

    def _answer(self, given: Sequence[Any], count: int) -> Answers:
        try:
            with torch.inference_mode():
                answers = checked(self._use, self._loaded().scores(given), count)
        except Exception as error:
            self.fault = said(error)
            raise
        self.fault = ""
        return answers


class Places:
    """One check at all its places: the first that answers counts."""

    def __init__(self, use: CheckUse, device: torch.device, load: Load) -> None:
        self.use = use
        self._places = [Place(place, device, load) for place in use.places]
        self._keys = [check(f"{use.name}, place {at}") for at in range(len(self._places))]
        self._breakers = Breakers()
        self._probed_s = [time.monotonic()] * len(self._places)

    def warm(self) -> list[Future[None]]:
        """Load all of them."""
        return [place.warm() for place in self._places]

    def ask(self, given: Sequence[Any], count: int, until_s: float) -> tuple[Answers, str]:
        """The scores of ``count`` pictures, and what is wrong with another place ("": nothing).

        ``until_s``: when to give up, by the monotonic clock. Raises CheckBroken if none answers.
        """
        failed: dict[int, str] = {}
        for at in self._order():
            left_s = max(until_s - time.monotonic(), 0.0)
            try:
                share_s = left_s / (len(self._places) - len(failed))
                answers = self._places[at].ask(given, count, share_s)
            except Exception as error:  # noqa: BLE001 - the next place is asked
                failed[at] = said(error)
                self._breakers.failed(self._keys[at], failed[at], time.monotonic())
                continue
            self._breakers.succeeded(self._keys[at])
            return answers, self._others(at, given, count)
        raise CheckBroken("; ".join(failed.values()))

    def prove(self, given: Sequence[Any], until_s: float) -> None:
        """Load each place and have it answer; raises what ``Place.prove`` does."""
        for place in self._places:
            place.prove(given, until_s)

    @property
    def is_busy(self) -> bool:
        """Whether a place hasn't come back yet from what it was asked last."""
        return any(place.is_busy for place in self._places)

    def tensors(self) -> Iterator[torch.Tensor]:
        """The weights of all that are loaded."""
        for place in self._places:
            yield from place.tensors()

    def _order(self) -> list[int]:
        """Whom to ask: those that don't rest. If all do, all: when to try is the server's to say,
        and a place that stands alone has no breaker here at all."""
        every = list(range(len(self._places)))
        if len(every) == 1:
            return every
        now = time.monotonic()
        return [at for at in every if self._breakers.may_try(self._keys[at], now)] or every

    def _others(self, answered: int, given: Sequence[Any], count: int) -> str:
        """What is wrong with the places that weren't needed; now and then they are tried."""
        faults = []
        for at, place in enumerate(self._places):
            if at == answered or not place.fault:
                continue
            faults.append(place.fault)
            now = time.monotonic()
            is_due = now - self._probed_s[at] >= limits.BREAKER_OPEN_S_MIN
            if is_due and at > answered and not place.is_busy:
                self._probed_s[at] = now
                place.probe(given, count)
        return "; ".join(faults)


def said(error: Exception) -> str:
    """What went wrong, in words that fit a log."""
    if isinstance(error, CalotypeError):
        return error.detail[:500]
    return f"{type(error).__name__}: {error}"[:500]
