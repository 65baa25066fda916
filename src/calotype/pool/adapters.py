"""Which LoRAs and ControlNets there are: found, named, hashed, and the broken ones with the reason.

A LoRA is ``NAME/lora.safetensors`` or a bare ``NAME.safetensors``; a ControlNet is a folder in
diffusers' layout. Nothing is loaded: what ``calotype.json`` beside it leaves open is told from its
header, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.headers import Header
from calotype.core.nouns import AdapterInfo, AdapterKind
from calotype.files.headers import read_header
from calotype.files.weights import read_json
from calotype.pool.cards import read_card
from calotype.pool.files import FileHashes, build_of
from calotype.pool.fitting import Base, control_shapes, lora_family, lora_shapes, suited
from calotype.pool.kinds import ADAPTERS, WORDS
from calotype.pool.parts import CONFIG, part_files, tensors_in
from calotype.pool.recognise import CONTROLS, LORA_FILE, has_lora
from calotype.pool.shelf import Choice, Entry, Read, Shelf
from calotype.pool.triggers import Told, beside, in_header, together, with_recorded
from calotype.pool.versions import Record, Versions

_FOLDERS = {AdapterKind.LORA: "loras", AdapterKind.CONTROL: "controlnets"}

Bases = Callable[[], Sequence[Base]]  # the base models that are here


def embedded_adapters() -> Path:
    """The folder that holds those that ship with Calotype."""
    return Path(str(files("calotype"))) / "models"


class AdapterRegistry:
    """Adapters in ``loras`` and ``controlnets`` of given folders, and registered ones.

    Empty until ``scan``.
    """

    def __init__(
        self,
        homes: Sequence[Path],
        versions: Versions | None = None,
        *,
        bases: Bases = tuple,
        hashes: FileHashes | None = None,
    ) -> None:
        """``homes``, and what is in them, need not exist. ``bases`` is asked in each scan."""
        self._homes, self._versions, self._bases = tuple(homes), versions, bases
        self._hashes = hashes or FileHashes()
        self._shelves = {kind: Shelf[AdapterInfo](ADAPTERS[kind]) for kind in AdapterKind}
        self._broken: dict[str, str] = {}

    def scan(self) -> None:
        """Read all anew. Reads every byte the first time: call it off the event loop.

        Of two of one kind and name the first counts (earlier homes first), the other is broken;
        registered ones come before those of homes.
        """
        broken: dict[str, str] = {}
        bases, shelves = self._bases(), {}
        for kind in AdapterKind:
            shelf = Shelf[AdapterInfo](ADAPTERS[kind])
            if self._versions is not None:
                shelf.take_versions(
                    self._versions, self._hashes, _reader(kind, bases, self._hashes)
                )
                broken |= {f"{_FOLDERS[kind]}/{it}": why for it, why in shelf.broken.items()}
            self._scan_homes(kind, shelf, broken, bases)
            shelves[kind] = shelf
        self._shelves, self._broken = shelves, broken

    def list(self, kind: AdapterKind) -> Sequence[AdapterInfo]:
        """All of a kind that can be used: what each name alone stands for."""
        return self._shelves[kind].offered()

    def get(self, kind: AdapterKind, name: str, *, field: str, job_id: str = "") -> AdapterInfo:
        """The adapter of this name, alias or version; of a job, which may be given a canary.

        Raises InvalidInput, with the names there are, if unknown.
        """
        return self.choose(kind, name, field=field, job_id=job_id).info

    def choose(
        self, kind: AdapterKind, name: str, *, field: str, job_id: str = ""
    ) -> Choice[AdapterInfo]:
        """The same, and how it was chosen."""
        return self._shelves[kind].choose(name, field=field, job_id=job_id)

    def shelf(self, kind: AdapterKind) -> Shelf[AdapterInfo]:
        """All of a kind, with their versions and aliases."""
        return self._shelves[kind]

    def broken(self) -> Mapping[str, str]:
        """What can't be used: ``loras/NAME`` (or the path, of a second) to reason."""
        return dict(self._broken)

    @property
    def folders(self) -> Sequence[Path]:
        """Where adapters outside the registry are looked for."""
        return [home / folder for home in self._homes for folder in _FOLDERS.values()]

    def _scan_homes(
        self,
        kind: AdapterKind,
        shelf: Shelf[AdapterInfo],
        broken: dict[str, str],
        bases: Sequence[Base],
    ) -> None:
        for path in self._candidates(kind):
            name = path.stem if path.is_file() else path.name
            if shelf.has(name) or f"{_FOLDERS[kind]}/{name}" in broken:
                broken[str(path)] = f"there is another {WORDS[ADAPTERS[kind]]} named {name!r}"
                continue
            try:
                info = read_adapter(kind, name, path, self._hashes, bases)
                shelf.put(Entry(name, info.build, info))
            except ModelBroken as error:
                broken[f"{_FOLDERS[kind]}/{name}"] = error.detail
                shelf.broken[name] = error.detail

    def _candidates(self, kind: AdapterKind) -> Iterator[Path]:
        for home in self._homes:
            folder = home / _FOLDERS[kind]
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                is_bare = kind is AdapterKind.LORA and path.suffix == ".safetensors"
                if not path.name.startswith(".") and (path.is_dir() or is_bare):
                    yield path.absolute()


def read_adapter(
    kind: AdapterKind, name: str, path: Path, hashes: FileHashes, bases: Sequence[Base] = ()
) -> AdapterInfo:
    """The adapter at a path, a folder or a LoRA's bare file; raises ModelBroken.

    Where its card doesn't say for which bases it was made, those of ``bases`` that its shapes fit.
    """
    folder = path if path.is_dir() else None
    told: dict[str, Any] = read_card(folder).model_dump() if folder else {}
    title, said = told.pop("title", None), told.pop("bases", [])
    triggers = Told(tuple(told.pop("triggers", ())))
    if kind is AdapterKind.CONTROL:
        header = Header(tensors_in(path), {}, 0)
        place, whole = path, part_files(ADAPTERS[kind], path)
        fitting = _bases_of_control(read_json(path / CONFIG), header, bases)
    else:
        place = path / LORA_FILE if folder else path
        whole, header = [place], _lora_header(place)
        triggers = together(triggers, in_header(header.told), beside(place))
        family = lora_family(header)
        fitting = suited(lora_shapes(header), [family] if family else [], bases)
    return AdapterInfo(
        kind=kind,
        name=name,
        path=str(place),
        build=build_of(place if place.is_dir() else place.parent, whole, hashes),
        bytes=header.bytes,
        parameters=sum(tensor.numbers for tensor in header.tensors.values()),
        title=title or name,
        bases=tuple(said) or fitting,
        triggers=triggers.words,
        triggers_unread=triggers.unread,
        **({"licence": "unknown"} | told),
    )


def _lora_header(file: Path) -> Header:
    header = read_header(file)
    if not has_lora(header):
        raise ModelBroken(
            f"{file.name} holds no LoRA: none of its tensors is named so", field=file.name
        )
    if len(header.tensors) > limits.LORA_TENSORS_MAX:
        raise ModelBroken(
            f"{file.name} has {len(header.tensors)} tensors",
            field=file.name,
            limit=limits.LORA_TENSORS_MAX,
        )
    return header


def _bases_of_control(
    config: Mapping[str, Any], header: Header, bases: Sequence[Base]
) -> tuple[str, ...]:
    kind = config.get("_class_name")
    families = CONTROLS.get(kind, ()) if isinstance(kind, str) else ()
    return suited(control_shapes(header), families, bases)


def _reader(kind: AdapterKind, bases: Sequence[Base], hashes: FileHashes) -> Read[AdapterInfo]:
    def read(name: str, folder: Path, record: Record) -> AdapterInfo:
        info = read_adapter(kind, name, folder, hashes, bases)
        return with_recorded(info, Told(tuple(record.triggers)))

    return read
