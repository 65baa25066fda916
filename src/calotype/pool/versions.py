"""The versions that were registered: each a folder, named by what it holds, never changed.

``<root>/<kind>/<name>/<version>/`` has the files as a loader reads them, and ``.version.json``:
where they came from, and each one's size, time and SHA-256. A version is staged under
``<root>/staging/`` and comes in by one rename, so it is there whole or not at all; what a killed
process left is swept with the next. What folders there are is all that counts: nothing else lists
them.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype.core import limits
from calotype.core.errors import InvalidInput, ModelBroken
from calotype.core.families import SINGLE_FILE
from calotype.core.references import STABLE, check_name
from calotype.files.weights import read_json
from calotype.pool.aliases import LOCK_FILE, State, changing, locked, read_state, try_lock
from calotype.pool.files import FileHashes
from calotype.pool.kinds import WORDS, ModelKind

ROOT = ".registry"  # in the models' folder: on the disk that has room for them
RECORD = ".version.json"  # hidden: it is no file of the model
_STAGING, _LOCK = "staging", ".lock"
IMMUTABLE = "immutable: content differs from what was registered"


class FileRecord(BaseModel):
    """One file as it was registered."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bytes: int = Field(ge=0)
    mtime_ns: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Record(BaseModel):
    """What is known of a version from when it was registered."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = 1
    kind: ModelKind = Field(strict=False)
    name: str
    version: str = Field(pattern=r"^[0-9a-f]{16}$")  # its build
    added_at: str  # RFC 3339, UTC
    source: str  # where it came from: a path, or a repository at a commit
    mode: Literal["copy", "hard-link", "link"]
    title: str | None = None  # over the card's
    licence: str | None = None  # the same
    is_licence_accepted: bool = False
    files: dict[str, FileRecord] = Field(min_length=1)  # by path in the folder
    parts: dict[str, str] = Field(default_factory=dict)  # digests of those in one file, by name
    triggers: list[str] = Field(  # of a LoRA: beside what its file says
        default_factory=list, max_length=limits.LORA_TRIGGERS_MAX
    )


class Versions:
    """All versions below one root, which need not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def state(self) -> State:
        """Aliases and pins; raises OperatorError."""
        return read_state(self.root)

    def folders(self, kind: ModelKind) -> Iterator[tuple[str, Path]]:
        """Name and folder of every version of a kind, by name and version."""
        for name in _folders(self.root / kind):
            for version in _folders(name):
                yield name.name, version

    def versions(self, kind: ModelKind, name: str) -> list[str]:
        """The versions of a name."""
        return [folder.name for folder in _folders(self.root / kind / name)]

    def folder(self, kind: ModelKind, name: str, version: str) -> Path:
        """Where a version lies, if it is there."""
        return self.root / kind / name / version

    # Reading.

    def record(self, kind: ModelKind, name: str, folder: Path) -> Record:
        """What is recorded of a version; raises ModelBroken."""
        try:
            record = Record.model_validate(read_json(folder / RECORD))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ModelBroken(f"{RECORD}: {field}: {first['msg']}", field=field) from error
        if (record.kind, record.name, record.version) != (kind, name, folder.name):
            raise ModelBroken(
                f"{RECORD} is of {record.kind}/{record.name}@{record.version}", field=RECORD
            )
        for file in record.files:
            if Path(file).is_absolute() or ".." in Path(file).parts:
                raise ModelBroken(f"{RECORD} names {file[:100]!r}", field=RECORD)
        return record

    def check(self, folder: Path, record: Record, hashes: FileHashes) -> None:
        """Have ``hashes`` know the recorded digests of files of the recorded size and time.

        Any other file is hashed. Raises ModelBroken for one that is gone, or isn't what it was.
        """
        for name, known in record.files.items():
            file = folder / name
            try:
                status = file.stat()
                if status.st_size != known.bytes:
                    raise ModelBroken(f"{IMMUTABLE}: {name}", field=name, limit=known.bytes)
                if (status.st_size, status.st_mtime_ns) == (known.bytes, known.mtime_ns):
                    stamp = (known.bytes, known.mtime_ns)
                    hashes.know(file, *stamp, bytes.fromhex(known.sha256))
                    for part, digest in record.parts.items() if name == SINGLE_FILE else ():
                        hashes.know(file, *stamp, bytes.fromhex(digest), part=part)
                _check_digest(name, hashes.of(file), known)
            except OSError as error:
                raise _lost(folder, name, error) from error

    def verify(self, folder: Path, record: Record) -> None:
        """Read every byte again; raises ModelBroken for the first file that isn't what it was."""
        for name, known in record.files.items():
            try:
                _check_digest(name, FileHashes().of(folder / name), known)
            except OSError as error:
                raise _lost(folder, name, error) from error

    # Changing.

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A new, empty folder to be filled; gone afterwards, unless it was put in its place."""
        staging = self.root / _STAGING
        staging.mkdir(parents=True, exist_ok=True)
        folder = staging / secrets.token_hex(8)
        lock = folder.with_suffix(_LOCK)
        with ExitStack() as held:
            with locked(self.root / LOCK_FILE):  # or another's sweep could come in between
                self._sweep()
                held.enter_context(locked(lock))
                folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)

    def put(self, stage: Path, record: Record) -> bool:
        """Register what was staged; False if it was registered before, which it then stays.

        A name's first version becomes its ``stable``. Raises InvalidInput when it has too many.
        """
        target = self.folder(record.kind, check_name(record.name), record.version)
        (stage / RECORD).write_text(record.model_dump_json(indent=1) + "\n")
        _sync(stage)
        with changing(self.root) as state:
            if target.exists():
                return False
            known = self.versions(record.kind, record.name)
            if len(known) >= limits.MODEL_VERSIONS_MAX:
                raise InvalidInput(
                    f"{record.name} has {len(known)} versions: remove some",
                    field="name",
                    limit=limits.MODEL_VERSIONS_MAX,
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            stage.rename(target)
            _sync_folder(target.parent)
            if STABLE not in state.of(record.kind, record.name):
                state.point(record.kind, record.name, STABLE, record.version, "added")
        return True

    def remove(self, kind: ModelKind, name: str, version: str, *, is_forced: bool) -> None:
        """Take a version out, at once and whole; engines that have it open keep it until they end.

        Raises InvalidInput if something still stands for it, unless it is forced.
        """
        folder = self.folder(kind, name, version)
        trash = self.root / _STAGING / secrets.token_hex(8)
        with changing(self.root) as state:
            if not folder.is_dir():
                raise InvalidInput(f"there is no {WORDS[kind]} {name}@{version}", field="reference")
            users = state.users(kind, name, version)
            others = [it for it in self.versions(kind, name) if it != version]
            if not others:  # the last may go though stable stands for it: the name goes with it
                users = [it for it in users if not it.startswith(f"{name}@{STABLE} ")]
            if users and not is_forced:
                raise InvalidInput(
                    f"{name}@{version} is in use: {'; '.join(users)}",
                    field="reference",
                    limit="a version that nothing stands for, or --force",
                )
            trash.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(trash)
            state.forget(kind, name, version, is_last=not others)
            if not others:
                with suppress(OSError):
                    folder.parent.rmdir()
        shutil.rmtree(trash, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes left that were killed; what is locked is still being filled."""
        staging = self.root / _STAGING
        for lock in sorted(staging.glob(f"*{_LOCK}")):
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # its owner was done meanwhile
                continue
            try:
                if try_lock(descriptor):
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
        for folder in _folders(staging):
            if not folder.with_suffix(_LOCK).exists():
                shutil.rmtree(folder, ignore_errors=True)  # on its way out


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(it for it in folder.iterdir() if it.is_dir())
    except FileNotFoundError:
        return []


def _check_digest(name: str, digest: bytes, known: FileRecord) -> None:
    if digest and digest.hex() != known.sha256:
        raise ModelBroken(f"{IMMUTABLE}: {name}", field=name, limit=known.sha256)


def _lost(folder: Path, name: str, error: OSError) -> ModelBroken:
    linked = " (it was added with --link)" if (folder / name).is_symlink() else ""
    return ModelBroken(f"{name} can't be read{linked}: {error.strerror}", field=name)


def _sync(folder: Path) -> None:
    """Bring a folder's files and names to the disk before it is given its name."""
    for base, _, files in os.walk(folder):
        for name in files:
            file = Path(base) / name
            if not file.is_symlink():
                _sync_folder(file)
        _sync_folder(Path(base))


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
