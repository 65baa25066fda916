"""Records what checks on trial say of real pictures; nothing waits for it, nothing follows.

Kept in two files a check in the home folder, of which the older goes when the newer is full: at
most TRIAL_VERDICTS_KEPT_MAX. A server that is killed loses what it hadn't written yet, a second's
worth. What can't be kept is counted and told in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from calotype.core import limits
from calotype.core.errors import CalotypeError, InvalidInput, StoreAway
from calotype.core.messages import TrialSeen
from calotype.core.nouns import Job
from calotype.flow.safeguards import Safeguards
from calotype.jobs.store import JobStore
from calotype.safety.trials import TrialVerdict, category, read

log = structlog.get_logger("calotype.trials")

_NEWER, _OLDER = ".jsonl", ".before.jsonl"


@dataclass
class TrialRecord:
    """The files of one folder."""

    folder: Path

    def write(self, check: str, verdicts: list[TrialVerdict]) -> None:
        """Add to a check's newer file, and begin another once it is full; raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        newer = self.folder / f"{check}{_NEWER}"
        with newer.open("a", encoding="utf-8") as file:
            file.writelines(each.line() for each in verdicts)
        with newer.open("rb") as file:
            count = sum(1 for _ in file)
        if count >= limits.TRIAL_VERDICTS_KEPT_MAX // 2:
            newer.replace(self.folder / f"{check}{_OLDER}")

    def read(self, check: str = "") -> Iterator[TrialVerdict]:
        """What is kept of a check, or of all, the oldest first; a line cut off is left out."""
        for ending in (_OLDER, _NEWER):
            for path in sorted(self.folder.glob(f"{check or '*'}{ending}")):
                if ending == _NEWER and path.name.endswith(_OLDER):
                    continue
                for line in path.read_text(encoding="utf-8").splitlines():
                    try:
                        yield read(line)
                    except InvalidInput:
                        continue


class Trials:
    """What a server hears of checks on trial."""

    def __init__(self, folder: Path, store: JobStore, guards: Safeguards) -> None:
        """``folder``: where it is recorded."""
        self._record, self._store, self._guards = TrialRecord(folder), store, guards
        self._heard: deque[TrialSeen] = deque()
        self.dropped = 0  # since it was last told of
        self._meanings = guards.setup.mapping()

    def hear(self, seen: TrialSeen) -> None:
        """Take it to be recorded; with too many waiting it is counted and dropped."""
        if len(self._heard) >= limits.TRIAL_VERDICTS_HELD_MAX:
            self.dropped += 1
        else:
            self._heard.append(seen)

    async def record_for_ever(self) -> None:
        """Write what was heard, every so often, until it is cancelled."""
        while True:
            await asyncio.sleep(limits.TRIAL_WRITE_S)
            await self.record()

    async def record(self) -> None:
        """Write what was heard; while the store is away, it waits."""
        by_check: dict[str, list[TrialVerdict]] = {}
        reason = "there were too many"
        while self._heard:
            seen = self._heard.popleft()
            try:
                by_check.setdefault(seen.check, []).append(await self._verdict(seen))
            except StoreAway:
                self._heard.appendleft(seen)
                break
            except CalotypeError as error:  # its job is gone, say
                self.dropped, reason = self.dropped + 1, error.detail
        for check, verdicts in by_check.items():
            try:
                await asyncio.to_thread(self._record.write, check, verdicts)
            except OSError as error:
                self.dropped, reason = self.dropped + len(verdicts), str(error)
        if self.dropped:
            log.warning("trial_verdicts_dropped", count=self.dropped, reason=reason)
            self.dropped = 0

    async def _verdict(self, seen: TrialSeen) -> TrialVerdict:
        job_id, _, index = seen.row.split("/")
        job: Job = await self._store.get(job_id)
        policy = await asyncio.to_thread(self._guards.policy_of, job)
        meanings, reading = self._meanings.get(seen.check, {}), self._guards.setup.reading
        return TrialVerdict(
            check=seen.check,
            current=seen.current_build,
            build=seen.build,
            model=job.spec.model,
            job=job_id,
            image=int(index),
            policy=policy.version,
            now=category(seen.current, meanings, policy, reads=seen.check in reading),
            then=category(seen.scores, meanings, policy, reads=seen.check in reading),
            scores=seen.scores,
            failed=seen.failed,
            took_s=round(seen.took_s, 4),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
