"""Which models there are: folders and registered versions read, broken ones named with the reason.

A folder in the models' folder is a model by the folder's name, as it stands: whoever changes it has
changed the model. What was registered (``versions``) never changes, and can be named by alias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from calotype.core.errors import ModelBroken
from calotype.core.nouns import ModelInfo
from calotype.core.references import plain
from calotype.pool.files import FileHashes
from calotype.pool.fitting import Base
from calotype.pool.folders import base_of, read_folder
from calotype.pool.kinds import ModelKind
from calotype.pool.parts import PartInfo, read_part
from calotype.pool.shelf import Choice, Entry, Shelf
from calotype.pool.versions import ROOT, Versions

_PARTS = (ModelKind.VAE, ModelKind.CLASSIFIER)


def embedded_folder() -> Path:
    """The folder of the model that ships with Calotype."""
    return Path(str(files("calotype"))) / "models" / "vignette"


class ModelRegistry:
    """Models in given folders, registered ones, and those in folders of the models' home.

    Empty until ``scan``.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        home_models: Path,
        *,
        device: str = "cpu",
        hashes: FileHashes | None = None,
        equip: Callable[[ModelInfo], ModelInfo] = lambda model: model,
    ) -> None:
        """``folders`` are one model each; ``home_models`` holds more, and need not exist.

        What models take is told for engines on this kind of device: "cpu", "cuda". ``equip`` adds
        what each model needs beside what its folder says.
        """
        self._equip = equip
        self._folders = tuple(folders)
        self._home_models, self._device = home_models, device
        self.versions = Versions(home_models / ROOT)
        self._hashes = hashes or FileHashes()
        self._shelf = Shelf[ModelInfo](ModelKind.BASE)
        self._parts = {kind: Shelf[PartInfo](kind) for kind in _PARTS}
        self._broken: dict[str, str] = {}
        self._known: dict[str, ModelInfo] = {}  # also those that are gone since
        self._bases: dict[tuple[str, str], Base] = {}  # by name and build

    def scan(self) -> None:
        """Read all anew. Reads gigabytes the first time: call it off the event loop.

        Of two with the same name the first counts (given folders, then registered ones, then those
        of the home by name), and the other is broken.
        """
        shelf, broken = Shelf[ModelInfo](ModelKind.BASE), dict[str, str]()
        for folder in self._folders:
            self._add(folder.absolute(), shelf, broken)
        shelf.take_versions(
            self.versions,
            self._hashes,
            lambda name, folder, _: self._equip(
                read_folder(folder, self._hashes, name=name, device=self._device)
            ),
        )
        broken |= shelf.broken
        try:
            for folder in self._candidates():
                self._add(folder, shelf, broken)
        except OSError as error:
            broken[str(self._home_models)] = f"it can't be read: {error.strerror}"
        shelf.broken |= broken
        bases = self._bases_on(shelf)
        parts = {kind: Shelf[PartInfo](kind) for kind in _PARTS}
        for kind, part_shelf in parts.items():
            part_shelf.take_versions(
                self.versions,
                self._hashes,
                lambda name, folder, _, kind=kind: read_part(  # type: ignore[misc]
                    kind, name, folder, self._hashes, bases
                ),
            )
            broken |= {f"{kind}/{name}": why for name, why in part_shelf.broken.items()}
        self._shelf, self._parts, self._broken = shelf, parts, broken
        self._known |= {entry.name: entry.info for entry in shelf.entries()}

    def get(self, name: str) -> ModelInfo:
        """The model that a job was given, also when it is gone since, or that a reference means.

        Raises InvalidInput, with the names there are, if unknown.
        """
        known = self._known.get(name)
        return known if known is not None else self.choose(name).info

    def choose(self, reference: str, job_id: str = "") -> Choice[ModelInfo]:
        """What NAME, NAME@ALIAS or NAME@VERSION means now, to a job; raises InvalidInput."""
        return self._shelf.choose(reference, field="model", job_id=job_id)

    def list(self) -> Sequence[ModelInfo]:
        """All models that can be loaded, those of given folders first; of each every version."""
        return [entry.info for entry in self._shelf.entries()]

    def offered(self) -> Sequence[ModelInfo]:
        """What can be named: for each name what it stands for alone, under that name."""
        return self._shelf.offered()

    def pinned(self) -> tuple[str, ...]:
        """The models that operators want always warm, in the order they were pinned."""
        pins = [it.removeprefix(f"{ModelKind.BASE}/") for it in self.versions.state().pinned]
        return tuple(name for name in pins if name in self._known)

    def bases(self) -> Sequence[Base]:
        """What adapters can be held against."""
        return self._bases_on(self._shelf)

    @property
    def shelf(self) -> Shelf[ModelInfo]:
        """All base models, with their versions and aliases."""
        return self._shelf

    def parts(self, kind: ModelKind) -> Shelf[PartInfo]:
        """All autoencoders, or classifiers."""
        return self._parts[kind]

    def broken(self) -> dict[str, str]:
        """What can't be loaded: name (or path, of a second) to reason."""
        return dict(self._broken)

    @property
    def folders(self) -> Sequence[Path]:
        """Where models outside the registry are looked for."""
        return [*self._folders, self._home_models]

    def _add(self, folder: Path, shelf: Shelf[ModelInfo], broken: dict[str, str]) -> None:
        name = folder.name
        if shelf.has(name) or name in broken:
            broken[str(folder)] = f"there is another model named {name!r}"
            return
        try:
            if plain(name) != name:
                raise ModelBroken("its folder's name has an @, which is for versions")
            info = self._equip(read_folder(folder, self._hashes, device=self._device))
        except ModelBroken as error:
            broken[name] = error.detail
            return
        shelf.put(Entry(name, info.build, info))

    def _candidates(self) -> Iterator[Path]:
        if self._home_models.is_dir():
            for folder in sorted(self._home_models.iterdir()):
                if folder.is_dir() and not folder.name.startswith("."):
                    yield folder.absolute()

    def _bases_on(self, shelf: Shelf[ModelInfo]) -> Sequence[Base]:
        """Their headers are read once: builds stand for bytes."""
        known = self._bases if self._hashes.is_exact else {}
        self._bases = {
            key: known.get(key) or base_of(entry.info)
            for entry in shelf.entries()
            for key in ((entry.name, entry.build),)
        }
        return [*self._bases.values()]
