"""All models of one kind, by name, with their versions and aliases: which one a reference means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from calotype.core.errors import InvalidInput, ModelBroken
from calotype.core.nouns import AdapterInfo, ModelInfo
from calotype.core.references import (
    LATEST,
    STABLE,
    Reference,
    plain,
    reference,
    versioned,
)
from calotype.policy.canary import is_chosen
from calotype.pool.aliases import Alias
from calotype.pool.files import FileHashes
from calotype.pool.kinds import WORDS, ModelKind
from calotype.pool.parts import PartInfo
from calotype.pool.versions import IMMUTABLE, Record, Versions

Info = TypeVar("Info", ModelInfo, AdapterInfo, PartInfo)
# What is in a folder, under this name, with what is recorded of it; raises ModelBroken.
Read = Callable[[str, Path, Record], Info]

_SHOWN_CHARS = 100  # of a name that somebody typed


@dataclass(frozen=True)
class Entry(Generic[Info]):
    """One model that can be used."""

    name: str  # its own alone: NAME of a folder, NAME@VERSION of what was registered
    build: str
    info: Info
    record: Record | None = None  # of what was registered


@dataclass(frozen=True)
class Choice(Generic[Info]):
    """What a reference means now."""

    info: Info
    asked: str = ""  # the reference, where a version was chosen for it; empty: it is exact
    is_canary: bool = False  # given to this job to try it out


class Shelf(Generic[Info]):
    """Filled anew with each scan; nothing on it changes afterwards."""

    def __init__(self, kind: ModelKind) -> None:
        self.kind = kind
        self.broken: dict[str, str] = {}  # NAME, or NAME@VERSION, to the reason
        self._entries: dict[str, Entry[Info]] = {}  # by their own names
        self._versions: dict[str, list[Entry[Info]]] = {}  # by name, the oldest first
        self._aliases: dict[str, dict[str, Alias]] = {}

    def put(self, entry: Entry[Info]) -> None:
        """Add one. Its name is free, or this is another of its versions."""
        self._entries[entry.name] = entry
        known = self._versions.setdefault(plain(entry.name), [])
        known.append(entry)
        known.sort(key=lambda it: (it.record.added_at if it.record else "", it.build))

    def take_versions(self, versions: Versions, hashes: FileHashes, read: Read[Info]) -> None:
        """Add all that were registered and are as they were; the others are broken."""
        state = versions.state()
        taken = set(self._versions)
        for name, folder in versions.folders(self.kind):
            own = versioned(name, folder.name)
            try:
                if name in taken:
                    raise ModelBroken(f"there is another {WORDS[self.kind]} named {name!r}")
                record = versions.record(self.kind, name, folder)
                versions.check(folder, record, hashes)
                info = read(own, folder, record)
                if hashes.is_exact and info.build != record.version:
                    raise ModelBroken(f"{IMMUTABLE}: other files than were registered")
            except ModelBroken as error:
                self.broken[own] = error.detail
                continue
            title = record.title or (name if info.title == own else info.title)
            info = replace(info, title=title, licence=record.licence or info.licence)
            self.put(Entry(own, record.version, info, record))
            self._aliases[name] = state.of(self.kind, name)

    def has(self, name: str) -> bool:
        """Whether the name, without a version, is taken."""
        return name in self._versions

    def entries(self) -> Iterable[Entry[Info]]:
        """All of them, versions of one name together."""
        return [entry for known in self._versions.values() for entry in known]

    def aliases(self, name: str) -> dict[str, Alias]:
        """A name's aliases."""
        return self._aliases.get(name, {})

    def offered(self) -> list[Info]:
        """What can be named: for each name what it stands for alone, under that name."""
        found = []
        for name in self._versions:
            try:
                info = self.choose(name, field="name").info
            except InvalidInput:  # its stable version is broken
                continue
            found.append(replace(info, name=name))
        return found

    def choose(self, text: str, *, field: str, job_id: str = "") -> Choice[Info]:
        """What a reference means, to a job where there is one: it may be given a canary.

        Raises InvalidInput naming ``field``, with what there is.
        """
        if (exact := self._entries.get(text)) is not None:
            return Choice(exact.info)
        asked = reference(text)
        known = self._versions.get(asked.name, [])
        if not known:
            raise self._unknown(asked.name, text, field)
        alias = self.aliases(asked.name).get(asked.at or STABLE)
        if alias is not None:
            return self._aliased(asked, alias, text, field, job_id)
        if not asked.at or asked.at == LATEST:
            return Choice(known[-1].info, text)
        matching = [it for it in known if it.build.startswith(asked.at)]
        if asked.may_be_version and len(matching) == 1:
            return Choice(matching[0].info, text)
        raise self._unknown_version(asked, matching, field)

    def _aliased(
        self, asked: Reference, alias: Alias, text: str, field: str, job_id: str
    ) -> Choice[Info]:
        canary, place = alias.canary, f"{asked.name}@{asked.at or STABLE}"
        if canary is not None and job_id and is_chosen(job_id, place, canary.share):
            entry = self._entries.get(versioned(asked.name, canary.version))
            if entry is not None:  # a broken one is tried on nobody
                return Choice(entry.info, text, is_canary=True)
        own = versioned(asked.name, alias.version)
        if own not in self._entries:
            why = self.broken.get(own, "it was removed")
            raise InvalidInput(
                f"{place} is version {alias.version}, which can't be used: {why}",
                field=field,
                limit=[it.name for it in self._versions[asked.name]],
            )
        return Choice(self._entries[own].info, text)

    def _unknown(self, name: str, text: str, field: str) -> InvalidInput:
        reasons = [why for own, why in self.broken.items() if own == text or plain(own) == name]
        why = f" ({reasons[0]})" if reasons else ""
        return InvalidInput(
            f"there is no {WORDS[self.kind]} named {text[:_SHOWN_CHARS]!r}{why}",
            field=field,
            limit=sorted(self._versions),
        )

    def _unknown_version(
        self, asked: Reference, matching: list[Entry[Info]], field: str
    ) -> InvalidInput:
        what = "more than one version" if len(matching) > 1 else "no version or alias"
        return InvalidInput(
            f"{asked.name[:_SHOWN_CHARS]} has {what} {asked.at[:_SHOWN_CHARS]!r}",
            field=field,
            limit=[
                *sorted(self.aliases(asked.name)),
                *(it.build for it in self._versions[asked.name]),
            ],
        )
