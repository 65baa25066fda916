"""Another version of a check takes the place of the one in force, while pictures are made.

It is loaded beside the old one, in threads of its own, and proven (``canaries``): labels as they
are mapped, every answer whole, each score a number from 0 to 1, all in CHECK_PROOF_S_MAX. Only then
is it in force, from one picture to the next. Until then, and where anything of it goes wrong, the
old one judges. One at a time; both are in the ledger meanwhile, and where there is no room for both
it is refused. What hangs can't be stopped, only left: it stays in the ledger until it comes back,
and no other is begun before.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from calotype.core import limits
from calotype.core.errors import TooMany
from calotype.core.messages import CheckSettled, LoadModel, Message, UseChecks
from calotype.core.picture_checks import CheckUse
from calotype.engine.checks.canaries import canaries
from calotype.engine.checks.places import Places, said
from calotype.engine.checks.running import Checks
from calotype.engine.checks.trials import Trials
from calotype.engine.room import Room
from calotype.engine.tensors import bytes_of


@dataclass(frozen=True)
class _Candidate:
    places: Places
    proof: Future[None]
    bytes: int  # that are kept for it


class Swaps:
    """Of one engine. All methods are for the loop's thread."""

    def __init__(
        self,
        checks: Checks,
        trials: Trials,
        room: Room,
        *,
        send: Callable[[Message], None],
        wake: Callable[[], None],
    ) -> None:
        """``wake`` is called from a thread when a proof is over, and ``step`` has work."""
        self._checks, self._trials, self._room = checks, trials, room
        self._send, self._wake = send, wake
        self._wanted: dict[str, CheckUse] = {}  # by name: what was asked for last
        self._waiting: dict[str, None] = {}  # names, in their order
        self._candidate: _Candidate | None = None
        self._left: list[Places] = []  # that hang
        self._thread = ThreadPoolExecutor(1, "proof")  # starts with the first

    def ask(self, command: UseChecks) -> None:
        """Have these be in force; what is asked for counts instead of all that was before."""
        self._trials.change(command.trials)
        self._wanted = {use.name: use for use in command.checks}
        self._waiting = dict.fromkeys(self._wanted)

    def expect(self, command: LoadModel) -> None:
        """A model comes: load what it needs; a version that was asked for is tried then."""
        self._checks.expect(command.name, command.checks)
        self._trials.expect(command.name, command.trials)
        names = [use.name for use in command.checks]
        self._waiting |= dict.fromkeys(name for name in names if name in self._wanted)

    def step(self) -> bool:
        """Take up what is proven, and begin the next; whether anything changed."""
        has_changed = self._take_up()
        while self._waiting and self._candidate is None:
            name = next(iter(self._waiting))
            del self._waiting[name]
            self._begin(self._wanted[name])
            has_changed = True
        return has_changed

    def settle(self) -> None:
        """Wait until all that was asked for is in force or refused."""
        self.step()
        while self._candidate is not None:
            wait([self._candidate.proof])
            self.step()

    @property
    def bytes(self) -> int:
        """What is kept for the one that is proven, beside what of it is there."""
        if (candidate := self._candidate) is None:
            return 0
        return max(0, candidate.bytes - bytes_of(candidate.places.tensors()))

    def _begin(self, use: CheckUse) -> None:
        current = self._checks.in_force(use.name)
        if current is None or current == use:
            return self._tell(use)
        self._left = [places for places in self._left if places.is_busy]
        if self._left:
            return self._tell(use, "an earlier one hasn't come back from its proof")
        try:
            needed = sum(_bytes_of(place) for place in use.places)
        except OSError as error:
            return self._tell(use, said(error))
        if not self._room.make(needed):
            what = f"version {use.build} of the check {use.name}, beside the one in force,"
            return self._refuse(use, self._room.refusal(what, needed))
        places = self._checks.placed(use)
        until_s = time.monotonic() + limits.CHECK_PROOF_S_MAX
        proof = self._thread.submit(lambda: places.prove(canaries(use), until_s))
        self._candidate = _Candidate(places, proof, needed)
        proof.add_done_callback(lambda _: self._wake())
        return None

    def _take_up(self) -> bool:
        """What became of the proof, if it is over."""
        if (candidate := self._candidate) is None or not candidate.proof.done():
            return False
        places, use, error = candidate.places, candidate.places.use, candidate.proof.exception()
        is_wanted = self._wanted.get(use.name) == use
        if error is None and self._room.free() < 0:  # it is larger than its files
            error = self._room.refusal(f"version {use.build} of the check {use.name}", 0)
        self._candidate = None
        if error is None and is_wanted:
            self._checks.swap(places)
            self._tell(use)
        elif is_wanted and isinstance(error, Exception):
            self._refuse(use, error)
        if places.is_busy:
            self._left.append(places)
        del candidate, places, error
        gc.collect()  # what failed, or judges no more, is full of cycles
        return True

    def _refuse(self, use: CheckUse, error: Exception) -> None:
        self._tell(use, said(error), is_full=isinstance(error, TooMany))

    def _tell(self, use: CheckUse, why_not: str = "", *, is_full: bool = False) -> None:
        current = self._checks.in_force(use.name)
        build = current.build if current is not None else ""
        self._send(CheckSettled(use.name, use.build, build, why_not, is_full))


def _bytes_of(use: CheckUse) -> int:
    """Of its weights as they lie on disk; raises OSError."""
    return sum(file.stat().st_size for file in Path(use.path).rglob("*.safetensors"))
