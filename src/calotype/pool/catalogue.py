"""All kinds of models together, as a server or a command sees them: scanned, found, watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.core.nouns import ModelInfo
from calotype.core.references import STABLE, plain, reference, versioned
from calotype.pool.adapters import AdapterRegistry, embedded_adapters
from calotype.pool.files import FileHashes, Unhashed
from calotype.pool.kinds import ADAPTERS, ModelKind
from calotype.pool.registry import ModelRegistry, embedded_folder
from calotype.pool.shelf import Entry, Shelf
from calotype.pool.versions import Versions
from calotype.pool.watch import Watch

Equip = Callable[[ModelInfo], ModelInfo]


@dataclass(frozen=True)
class Named:
    """What a reference names, in whatever kind it is found."""

    kind: ModelKind
    name: str  # without a version
    word: str  # the alias that it speaks of: ``stable`` where it says none
    version: str  # what it stands for; empty where that can't be used, or is no registered one
    entry: Entry[Any] | None  # the same


class Catalogue:
    """The embedded models, the registered ones, and those in the folders of a home.

    Empty until ``scan``.
    """

    def __init__(
        self,
        models_folder: Path,
        home: Path,
        *,
        device: str = "cpu",
        is_quick: bool = False,
        equip: Equip = lambda model: model,
    ) -> None:
        """Of ``device`` and ``equip`` see ``ModelRegistry``.

        ``is_quick``: nothing is hashed, so builds mean nothing and changed bytes aren't seen.
        """
        hashes = Unhashed() if is_quick else FileHashes()
        self.models = ModelRegistry(
            [embedded_folder()], models_folder, device=device, hashes=hashes, equip=equip
        )
        self.adapters = AdapterRegistry(
            [embedded_adapters(), home], self.versions, bases=self.models.bases, hashes=hashes
        )
        self._watch: Watch | None = None

    @property
    def versions(self) -> Versions:
        """What was registered."""
        return self.models.versions

    def scan(self) -> None:
        """Read all anew; slow the first time. Raises OperatorError if aliases can't be read."""
        if self._watch is None:
            folders = [*self.models.folders, *self.adapters.folders]
            self._watch = Watch(folders, self.versions.root)
        self.models.scan()
        self.adapters.scan()

    def refresh(self) -> bool:
        """Read anew if anything changed since; whether it did. For another thread than the loop's.

        Raises OperatorError, and then all stays as it was read before.
        """
        assert self._watch is not None, "scan comes first"
        if not self._watch.has_changed():
            return False
        self.scan()
        return True

    def shelf(self, kind: ModelKind) -> Shelf[Any]:
        """All of a kind."""
        for adapter, of_kind in ADAPTERS.items():
            if of_kind is kind:
                return self.adapters.shelf(adapter)
        return self.models.shelf if kind is ModelKind.BASE else self.models.parts(kind)

    def broken(self) -> Mapping[str, str]:
        """What can't be used, and why."""
        return {**self.models.broken(), **self.adapters.broken()}

    def taken(self) -> Mapping[ModelKind, Sequence[str]]:
        """Names that belong to folders outside the registry."""
        return {
            kind: [it.name for it in self.shelf(kind).entries() if it.record is None]
            for kind in ModelKind
        }

    def find(self, text: str) -> Named:
        """What ``[KIND/]NAME[@ALIAS|@VERSION]`` names; raises InvalidInput if that isn't one."""
        kinds, rest = self._kinds(text)
        name = plain(rest)
        found = [kind for kind in kinds if self._is_known(kind, name)]
        if not found:
            raise InvalidInput(
                f"there is no model of any kind named {rest[:100]!r}",
                field="reference",
                limit=sorted({plain(it.name) for kind in kinds for it in self._all(kind)}),
            )
        if len(found) > 1:
            raise InvalidInput(
                f"{name!r} is of more than one kind: say which",
                field="reference",
                limit=[f"{kind}/{rest}" for kind in found],
            )
        return self._named(found[0], rest)

    def _named(self, kind: ModelKind, text: str) -> Named:
        shelf, asked = self.shelf(kind), reference(text)
        aliases = shelf.aliases(asked.name)
        word = asked.at if asked.at in aliases or not asked.may_be_version else ""
        registered = self.versions.versions(kind, asked.name)
        try:
            own = shelf.choose(text, field="reference").info.name
        except InvalidInput:
            version = self._broken_version(kind, asked.name, asked.at, registered)
            if not version and asked.at and asked.at not in aliases:
                raise
            return Named(kind, asked.name, word or STABLE, version, None)
        entry = next(it for it in shelf.entries() if it.name == own)
        version = entry.record.version if entry.record is not None else ""
        return Named(kind, asked.name, word or STABLE, version, entry)

    def _broken_version(
        self, kind: ModelKind, name: str, at: str, registered: Sequence[str]
    ) -> str:
        """The one of a name's versions that is meant though it can't be used; empty if none is."""
        alias = self.versions.state().of(kind, name).get(at or STABLE)
        if alias is not None:
            return alias.version
        matching = [it for it in registered if at and it.startswith(at)]
        return matching[0] if len(matching) == 1 else ""

    def _kinds(self, text: str) -> tuple[list[ModelKind], str]:
        said, slash, rest = text.partition("/")
        if not slash:
            return [*ModelKind], text
        if said not in [*ModelKind]:
            raise InvalidInput(
                f"{said[:100]!r} is no kind of model", field="reference", limit=[*ModelKind]
            )
        return [ModelKind(said)], rest

    def _is_known(self, kind: ModelKind, name: str) -> bool:
        return self.shelf(kind).has(name) or name in {it for it, _ in self.versions.folders(kind)}

    def _all(self, kind: ModelKind) -> Sequence[Entry[Any]]:
        return [*self.shelf(kind).entries()]


def own_name(named: Named) -> str:
    """NAME@VERSION of what was registered, NAME of a folder outside."""
    return versioned(named.name, named.version) if named.version else named.name
