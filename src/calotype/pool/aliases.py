"""What operators say of registered versions: aliases, canaries, pins. One small file holds it all.

Whoever changes it holds a lock meanwhile, and writes it whole: two processes can't lose each
other's changes, and a reader, who needs no lock, sees the state before or after. Every change
writes it, also that a version came or went, so a look at the file's time tells whether to read
anything anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype.core import limits
from calotype.core.errors import Conflict, InvalidInput, OperatorError
from calotype.core.references import STABLE
from calotype.files.private import write_private
from calotype.pool.kinds import ModelKind

STATE_FILE, LOCK_FILE = "state.json", "lock"
_LOOK_S = 0.02  # between two tries for the lock


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Canary(_Part):
    """A version that a share of an alias's jobs is given."""

    version: str
    share: float = Field(gt=0.0, le=1.0)


class Change(_Part):
    """An entry of an alias's history."""

    version: str  # what it stood for from then on
    at: str  # RFC 3339, UTC
    why: str  # "added", "promoted", "rolled back", "canary 5 %", "canary ended"


class Alias(_Part):
    """A word for a version, and what it stood for before."""

    version: str
    past: list[str] = Field(default_factory=list)  # the last at the end; a roll-back goes there
    canary: Canary | None = None
    history: list[Change] = Field(default_factory=list)  # the newest at the end


Aliases = dict[str, dict[str, Alias]]  # by "kind/name", then by word


class State(_Part):
    """All of it."""

    format: Literal[1] = 1
    changes: int = 0  # how often it was written
    aliases: Aliases = Field(default_factory=dict)
    pinned: list[str] = Field(default_factory=list)  # "kind/name@version", or "kind/name"

    def of(self, kind: ModelKind, name: str) -> dict[str, Alias]:
        """A name's aliases."""
        return self.aliases.get(f"{kind}/{name}", {})

    def alias(self, kind: ModelKind, name: str, word: str) -> Alias:
        """One of them; raises InvalidInput."""
        known = self.of(kind, name)
        if word not in known:
            raise InvalidInput(f"{name} has no alias {word!r}", field="alias", limit=sorted(known))
        return known[word]

    # Changes; each raises InvalidInput or Conflict, and then has changed nothing.

    def point(self, kind: ModelKind, name: str, word: str, version: str, why: str) -> None:
        """Let an alias stand for a version from now on; a canary of it ends."""
        known = self.aliases.setdefault(f"{kind}/{name}", {})
        if word not in known:
            if len(known) >= limits.ALIASES_MAX:
                raise InvalidInput(
                    f"{name} has {len(known)} aliases", field="alias", limit=limits.ALIASES_MAX
                )
            known[word] = Alias(version=version)
        elif (alias := known[word]).version != version:
            alias.past = [*alias.past, alias.version][-limits.ALIAS_PAST_MAX :]
            alias.version = version
        known[word].canary = None
        _note(known[word], why)

    def roll_back(self, kind: ModelKind, name: str, word: str) -> str:
        """Let an alias stand for what it stood for before: that version."""
        alias = self.alias(kind, name, word)
        if not alias.past:
            raise Conflict(f"{name}@{word} stood for nothing else before", field="alias")
        alias.version = alias.past.pop()
        alias.canary = None
        _note(alias, "rolled back")
        return alias.version

    def try_out(self, kind: ModelKind, name: str, word: str, version: str, share: float) -> None:
        """Give a share of an alias's jobs this version; 0 ends it."""
        alias = self.alias(kind, name, word)
        if not 0.0 <= share <= 1.0:
            raise InvalidInput(f"share is {share:g}", field="share", limit={"min": 0.0, "max": 1.0})
        if share and version == alias.version:
            raise Conflict(f"{name}@{word} stands for that version already", field="version")
        alias.canary = Canary(version=version, share=share) if share else None
        _note(alias, f"canary {version}, {100 * share:g} %" if share else "canary ended")

    def drop_alias(self, kind: ModelKind, name: str, word: str) -> None:
        """Forget an alias and its history. What a name alone stands for has to be something."""
        self.alias(kind, name, word)
        if word == STABLE:
            raise Conflict(f"a name alone stands for {name}@{STABLE}: it stays", field="alias")
        del self.aliases[f"{kind}/{name}"][word]

    def users(self, kind: ModelKind, name: str, version: str) -> list[str]:
        """What keeps a version from being removed: aliases, canaries, a pin."""
        found = []
        for word, alias in self.of(kind, name).items():
            if alias.version == version:
                found.append(f"{name}@{word} stands for it")
            if alias.canary is not None and alias.canary.version == version:
                found.append(f"it is the canary of {name}@{word}")
        if f"{kind}/{name}@{version}" in self.pinned:
            found.append("it is pinned")
        return found

    def forget(self, kind: ModelKind, name: str, version: str, *, is_last: bool) -> None:
        """A version is gone: nothing goes back to it."""
        for word, alias in [*self.of(kind, name).items()]:
            alias.past = [it for it in alias.past if it != version]
            if alias.canary is not None and alias.canary.version == version:
                alias.canary = None
            if alias.version == version:
                del self.aliases[f"{kind}/{name}"][word]
        if is_last:
            self.aliases.pop(f"{kind}/{name}", None)
        self.pinned = [it for it in self.pinned if it != f"{kind}/{name}@{version}"]


def read_state(root: Path) -> State:
    """What was written last; raises OperatorError if it can't be read."""
    file = root / STATE_FILE
    try:
        return State.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return State()
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise OperatorError(
            f"{file} can't be read: {' '.join(str(error).split())[:200]}", field=STATE_FILE
        ) from error


@contextmanager
def changing(root: Path) -> Iterator[State]:
    """The state, to be changed by nobody else meanwhile; written when the block ends well.

    Raises OperatorError if it can't be had or written.
    """
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / LOCK_FILE):
        state = read_state(root)
        yield state
        state.changes += 1
        write_private(root / STATE_FILE, state.model_dump_json(indent=1) + "\n")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a file's lock; it is free again if the process dies. Raises OperatorError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + limits.REGISTRY_LOCK_S_MAX
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"another process has held {file} for {limits.REGISTRY_LOCK_S_MAX:g} s",
                    limit=limits.REGISTRY_LOCK_S_MAX,
                )
            time.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take a file's lock if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(alias: Alias, why: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    entry = Change(version=alias.version, at=now, why=why)
    alias.history = [*alias.history, entry][-limits.ALIAS_PAST_MAX :]
