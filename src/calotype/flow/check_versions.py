"""Which version of each check judges on which engine, and how another takes its place.

Every REGISTRY_LOOK_S the server looks whether ``safety.toml``, or what the registry's aliases stand
for, has changed. Then each engine is asked to go by the new versions: it proves them beside those
in force, swaps by itself, and says so. A version is in force here, so that engines that begin anew
load it, once all engines that work say that they have it. Where one can't take it the old one goes
on judging there, and what it said is to be read in readiness, log and audit trail.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from calotype.core import limits
from calotype.core.errors import OperatorError, StoreAway
from calotype.core.messages import CheckSettled, UseChecks
from calotype.core.picture_checks import CheckUse, Trial
from calotype.core.states import EngineState
from calotype.flow.registered import stamp_of, stands_for
from calotype.flow.safeguards import Safeguards, setup_of
from calotype.pool.pool import EnginePool
from calotype.pool.reports import EngineDown
from calotype.safety.builds import KnownBuilds
from calotype.safety.setup import SafetySetup
from calotype.safety.succession import succession
from calotype.settings import Settings

log = structlog.get_logger("calotype.safety")

SUBJECT, BY = "checks", "server"  # of the trail's entries
_GIVEN_UP = "engines ended while they proved it, and aren't asked for it again"
_ASKED = "it was asked to prove it, and hasn't answered yet"
_UP = (EngineState.READY, EngineState.SUSPECT, EngineState.DRAINING)

Note = Callable[[str, str, str, Mapping[str, Any]], Awaitable[None]]  # see ``Audit.note``


class CheckVersions:
    """The versions of one server's checks, by engine."""

    def __init__(
        self, settings: Settings, guards: Safeguards, pool: EnginePool, note: Note
    ) -> None:
        """``note`` adds an entry to the audit trail."""
        self._settings, self._guards, self._pool, self._note = settings, guards, pool, note
        self.builds = KnownBuilds()
        self._wanted: dict[str, CheckUse] = {it.use.name: it.use for it in guards.setup.checks}
        self._trials: tuple[Trial, ...] = guards.setup.trials
        self.builds.know(self._wanted.values())
        self._engines: dict[str, dict[str, CheckSettled]] = {}  # what each said of each check
        self._asked_s: dict[str, float] = {}  # when each was asked last, by the monotonic clock
        self._deaths: Counter[str] = Counter()  # of engines that were proving, by check
        self._said: tuple[bytes, Any] = (b"", None)
        self._stamp, self._said = self._look(), self._read()  # as they were gone by last
        self._glimpsed = self._stamp  # as it was last
        self._refused = ""  # why what is written down now isn't gone by
        self._waits: tuple[str, ...] = ()  # for the next start
        self._notes: deque[tuple[str, dict[str, Any]]] = deque(maxlen=limits.CHECK_NOTES_HELD_MAX)

    async def keep_up(self) -> None:
        """Look for changes, for ever."""
        while True:
            await asyncio.sleep(limits.REGISTRY_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Go by what has changed; what can't be read, or gone by, leaves all as it is."""
        try:
            stamp, before = self._look(), self._glimpsed
            self._glimpsed = stamp
            # The file of an editor may be half of one: what it says counts once it stays so.
            is_whole = stamp[0] == self._stamp[0] or stamp == before
            if stamp != self._stamp and is_whole:
                self._stamp = stamp
                said = await asyncio.to_thread(self._read)
                if said != self._said:
                    await self._change()
                self._said, self._refused = said, ""
        except OperatorError as error:
            if error.detail != self._refused:
                self._refused = error.detail
                self._tell("safety_refused", reason=error.detail)
        for engine, asked_s in [*self._asked_s.items()]:
            is_full = any(it.is_full for it in self._engines.get(engine, {}).values())
            if is_full and time.monotonic() - asked_s >= limits.CHECK_AGAIN_S:
                await self._ask(engine)
        await self._write_down()

    async def warm(self, engine: str) -> None:
        """An engine has begun: it has what was in force then, and is asked for what is wanted."""
        await self._ask(engine)

    def gone(self, engine: str) -> None:
        """An engine has ended; the next one of its name begins with what is in force.

        What it was proving may be why: past CHECK_DEATHS_MAX no engine is asked for that again.
        """
        said = self._engines.pop(engine, {})
        if self._asked_s.pop(engine, None) is not None:
            for name, use in self._in_force.items():
                wanted = self._wanted[name]
                if use == wanted or (name in said and said[name].wanted == wanted.build):
                    continue
                self._deaths[name] += 1
                if self._deaths[name] == limits.CHECK_DEATHS_MAX:
                    self._kept(engine, name, use.build, _GIVEN_UP)
        self._settle()

    def heard(self, engine: str, said: CheckSettled) -> None:
        """An engine says which version of a check it has in force."""
        self._engines.setdefault(engine, {})[said.name] = said
        wanted = self._wanted.get(said.name)
        if said.why_not and wanted is not None and wanted.build == said.wanted:
            self._kept(engine, said.name, said.build, said.why_not)
        self._settle()

    def told(self) -> dict[str, Any]:
        """What is in force, what is to be, and what each engine has, for readiness."""
        return {
            "refused": self._refused,
            "at_next_start": list(self._waits),
            "versions": {
                name: {
                    "in_force": use.build,
                    "wanted": self._wanted[name].build,
                    "why_not": _GIVEN_UP if self._is_given_up(name) else "",
                    "engines": {
                        engine: self._told_of(engine, name) for engine in sorted(self._asked_s)
                    },
                }
                for name, use in self._in_force.items()
            },
        }

    def _told_of(self, engine: str, name: str) -> dict[str, str]:
        said = self._engines.get(engine, {}).get(name)
        if said is not None and said.wanted == self._wanted[name].build:
            return {"in_force": said.build, "why_not": said.why_not}
        why_not = _GIVEN_UP if self._is_given_up(name) else _ASKED
        return {"in_force": said.build if said is not None else "", "why_not": why_not}

    @property
    def _in_force(self) -> dict[str, CheckUse]:
        """By name: what engines that begin load."""
        return {check.use.name: check.use for check in self._guards.setup.checks}

    def _is_given_up(self, name: str) -> bool:
        return self._deaths[name] >= limits.CHECK_DEATHS_MAX

    def _look(self) -> tuple[tuple[int, ...], tuple[int, int]]:
        """Of ``safety.toml`` and of the registry, another when it was written."""
        path = self._settings.safety_path
        try:
            about = path.stat() if path is not None else None
        except OSError:
            about = None
        written = (about.st_size, about.st_mtime_ns) if about is not None else ()
        return written, stamp_of(self._settings.models_folder)

    def _read(self) -> tuple[bytes, Any]:
        """What they say, of all that may count here; raises OperatorError.

        A file that is gone, or empty, has lost what it said: that isn't to say nothing.
        """
        path = self._settings.safety_path
        try:
            text = path.read_bytes() if path is not None else b""
        except OSError as error:
            raise OperatorError(f"{path} can't be read: {error}", field=str(path)) from error
        if self._said[0] and not text.strip():
            raise OperatorError(
                "safety.toml is gone or empty: what it said is gone by until the next start",
                field="safety",
            )
        return text, stands_for(self._settings.models_folder)

    async def _change(self) -> None:
        """Take over what is written down now; raises OperatorError, and then nothing is."""
        guards, where = self._guards, self._settings.safety_path or self._settings.home
        then = await asyncio.to_thread(setup_of, self._settings)
        found = succession(guards.setup, then, where)
        if policies := guards.adopt(_but_versions(found.setup, guards.setup)):
            self._tell("policies_changed", in_force=policies)
        self._waits = found.waits
        for check in found.setup.checks:
            before = self._wanted[check.use.name]
            if check.use != before:
                about = {"before": before.build, "wanted": check.use.build}
                self._tell("check_wanted", check=check.use.name, **about)
        self._wanted = {it.use.name: it.use for it in found.setup.checks}
        self._trials = found.setup.trials
        self.builds.know(self._wanted.values())
        for said in self._engines.values():  # what they have is known; to this they answer yet
            for name, one in said.items():
                said[name] = CheckSettled(name, "", one.build)
        self._deaths.clear()
        for health in self._pool.health():
            if health.state in _UP:
                await self._ask(health.name)
        self._settle()

    async def _ask(self, engine: str) -> None:
        """Have an engine go by what is wanted; it says of each check how that went."""
        if not self._wanted:
            return
        self._asked_s[engine] = time.monotonic()
        kept = {name: use for name, use in self._in_force.items() if self._is_given_up(name)}
        uses = tuple((self._wanted | kept).values())
        try:
            await self._pool.send(engine, UseChecks(uses, self._trials))
        except EngineDown:  # it is asked when it is back
            log.warning("engine_down", engine=engine, check_versions=True)

    def _settle(self) -> None:
        """What every engine that works has is in force, and loaded by those that begin."""
        up = [health.name for health in self._pool.health() if health.state in _UP]
        checks, setup = [], self._guards.setup
        for check in setup.checks:
            wanted = self._wanted[check.use.name]
            said = [self._engines.get(name, {}).get(check.use.name) for name in up]
            builds = {it and it.wanted == wanted.build and it.build for it in said}
            is_new = check.use != wanted and wanted.build in builds
            if is_new and builds <= {wanted.build, ""}:
                self._tell("check_in_force", check=wanted.name, version=wanted.build)
                checks.append(replace(check, use=wanted))
            else:
                checks.append(check)
        if tuple(checks) != setup.checks:
            self._guards.adopt(replace(setup, checks=tuple(checks)))

    def _kept(self, engine: str, name: str, build: str, reason: str) -> None:
        about = {"check": name, "wanted": self._wanted[name].build, "in_force": build}
        self._tell("check_kept", engine=engine, **about, reason=reason)

    def _tell(self, what: str, **about: Any) -> None:
        log.warning(what, **about)
        self._notes.append((what, about))

    async def _write_down(self) -> None:
        """In the audit trail, in order; while the store is away, it waits."""
        while self._notes:
            what, about = self._notes[0]
            try:
                await self._note(SUBJECT, what, BY, about)
            except StoreAway:
                return
            self._notes.popleft()


def _but_versions(then: SafetySetup, now: SafetySetup) -> SafetySetup:
    """The same with the versions of checks that are in force."""
    uses = {check.use.name: check.use for check in now.checks}
    return replace(then, checks=tuple(replace(it, use=uses[it.use.name]) for it in then.checks))
