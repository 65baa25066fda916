"""A picture check whose lists may be swapped while it is in use: it looks every so often.

A list that can't be read is no list: the ones that were read before go on judging, and it is said.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.core.nouns import Verdict
from calotype.safety.hash_lists import files_of
from calotype.safety.pictures import PictureCheck, Scored
from calotype.safety.policies import Policy
from calotype.safety.setup import SafetySetup

Stamp = tuple[tuple[str, int, int], ...]  # of each file: its path, size, and when it was changed


class CurrentCheck:
    """Judges as ``PictureCheck`` does, by the lists as they are."""

    def __init__(
        self,
        lists: Sequence[Path],
        setup: SafetySetup | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises OperatorError if a list can't be read at first."""
        self._lists, self._setup, self._clock = tuple(lists), setup, clock
        self._stamp, self._looked_s = _stamp(self._lists), clock()
        self._check = PictureCheck.from_files(self._lists, setup)

    def judge(
        self, pixels: NDArray[np.uint8], scored: Scored, policy: Policy | None = None
    ) -> Verdict:
        """See ``PictureCheck.judge``."""
        return self._now().judge(pixels, scored, policy)

    def judge_input(self, pixels: NDArray[np.uint8]) -> Verdict:
        """See ``PictureCheck.judge_input``."""
        return self._now().judge_input(pixels)

    def _now(self) -> PictureCheck:
        now = self._clock()
        if now - self._looked_s < limits.LISTS_LOOKED_AT_S:
            return self._check
        self._looked_s = now
        try:
            stamp = _stamp(self._lists)
            if stamp != self._stamp:
                self._check = PictureCheck.from_files(self._lists, self._setup)
                self._stamp = stamp
        except (OSError, OperatorError) as error:
            print(f"the lists of known pictures: {error}", file=sys.stderr, flush=True)
        return self._check


def _stamp(lists: Sequence[Path]) -> Stamp:
    found = []
    for path in files_of(lists):
        about = path.stat()
        found.append((str(path), about.st_size, about.st_mtime_ns))
    return tuple(found)
