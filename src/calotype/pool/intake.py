"""Takes a model into the registry: staged, read as it will be, verified, then put in its place.

A file is copied, hard-linked, or (``link``) only pointed at. Whatever goes wrong on the way, and
if the process is killed, the registry is as it was.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from calotype.core import limits
from calotype.core.errors import InvalidInput, ModelBroken, OperatorError
from calotype.core.families import SINGLE_FILE
from calotype.core.nouns import AdapterInfo, ModelInfo
from calotype.core.references import check_name
from calotype.core.weights import SUFFIX
from calotype.files.headers import read_header
from calotype.files.weights import read_json
from calotype.pool.adapters import read_adapter
from calotype.pool.checkpoints import parts_in
from calotype.pool.files import FileHashes
from calotype.pool.fitting import layer_shapes
from calotype.pool.folders import INDEX, base_in, family_in, model_files, read_folder
from calotype.pool.kinds import ADAPTERS, WORDS, ModelKind
from calotype.pool.parts import PartInfo, read_part
from calotype.pool.recognise import LORA_FILE, Found, recognise
from calotype.pool.triggers import Told, beside, together, why_no_word, with_recorded
from calotype.pool.versions import FileRecord, Record, Versions

Mode = Literal["copy", "hard-link", "link"]
Judge = Callable[[AdapterInfo], None]
READ_ONLY = 0o444  # nobody changes such a file, so an engine may map it (engine.weights)
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Wish:
    """How something is to be registered."""

    name: str | None = None  # else as its file or folder is called
    kind: ModelKind | None = None  # None: whatever it is
    mode: Mode = "copy"
    title: str | None = None
    licence: str | None = None
    is_licence_accepted: bool = False
    source: str | None = None  # else its path
    config: Path | None = None  # a folder in diffusers' layout, for a checkpoint in one file
    triggers: tuple[str, ...] = ()  # words that switch a LoRA on, beside those it says itself
    judge: Judge = lambda _: None  # raises for an adapter that may not be registered


@dataclass(frozen=True)
class Added:
    """What became of it."""

    record: Record
    is_new: bool  # False: just this was registered before
    triggers: Told = field(default_factory=Told)  # of a LoRA, all that is said


def take_in(
    versions: Versions, path: Path, wish: Wish, *, taken: Mapping[ModelKind, Iterable[str]]
) -> Added:
    """Register what lies at a path; ``taken`` are names that belong to folders outside.

    Raises InvalidInput (a name), ModelBroken (what lies there), or OperatorError (disk full, no
    right to read or write).
    """
    found = recognise(path)
    name = _name(path, found, wish, taken)
    said = _said(found, wish)
    files = dict(found.files) | _configuration(found, wish.config)
    _check_room(versions.root, files.values(), wish.mode)
    try:
        with versions.stage() as stage:
            hashes = FileHashes()
            recorded = {
                target: _place(source, stage / target, wish.mode, hashes)
                for target, source in sorted(files.items())
            }
            info = _read(found.kind, stage, hashes)
            if isinstance(info, AdapterInfo):
                wish.judge(with_recorded(replace(info, name=name, title=wish.title or ""), said))
            parts = hashes.parts_of(stage / SINGLE_FILE)
            record = Record(
                kind=found.kind,
                name=name,
                version=info.build,
                added_at=datetime.now(UTC)
                .isoformat(timespec="microseconds")
                .replace("+00:00", "Z"),
                source=wish.source if wish.source is not None else str(path.absolute()),
                mode=wish.mode,
                title=wish.title,
                licence=wish.licence,
                is_licence_accepted=wish.is_licence_accepted,
                files=recorded,
                parts={part: digest.hex() for part, digest in parts.items()},
                triggers=list(said.words),
            )
            is_new = versions.put(stage, record)
    except OSError as error:
        raise _refused(error, versions.root) from error
    if not is_new:
        record = _known(versions, record, wish)
        said = replace(said, words=tuple(record.triggers))
    if not isinstance(info, AdapterInfo):
        return Added(record, is_new)
    told = with_recorded(info, said)
    return Added(record, is_new, Told(told.triggers, told.triggers_unread))


def _name(path: Path, found: Found, wish: Wish, taken: Mapping[ModelKind, Iterable[str]]) -> str:
    """What it is to be called; raises InvalidInput, also for what it is."""
    if wish.kind is not None and found.kind is not wish.kind:
        raise InvalidInput(
            f"{path.name} is a {WORDS[found.kind]}, not a {WORDS[wish.kind]}",
            field="kind",
            limit=found.kind.value,
        )
    name = check_name(wish.name if wish.name is not None else _name_of(path))
    if name in taken.get(found.kind, ()):
        raise InvalidInput(
            f"there is a {WORDS[found.kind]} named {name!r} in a folder outside the registry:"
            " use another name",
            field="name",
            limit="a name that is free",
        )
    return name


def _known(versions: Versions, record: Record, wish: Wish) -> Record:
    """What was recorded of the same before; raises InvalidInput for words that it hasn't."""
    name, version = record.name, record.version
    before = versions.record(record.kind, name, versions.folder(record.kind, name, version))
    if new := {*wish.triggers} - {*before.triggers}:
        raise InvalidInput(
            f"{name}@{version} is registered already, without {', '.join(sorted(new))}:"
            " a version's words are a part of it",
            field="trigger",
            limit=before.triggers,
        )
    return before


def _said(found: Found, wish: Wish) -> Told:
    """What is said of a LoRA's words outside its files; raises InvalidInput."""
    if found.kind is not ModelKind.LORA:
        if wish.triggers:
            raise InvalidInput(
                f"a {WORDS[found.kind]} has no words that switch it on",
                field="trigger",
                limit="lora",
            )
        return Told()
    most = limits.LORA_TRIGGERS_MAX
    if len(wish.triggers) > most:
        raise InvalidInput(f"{len(wish.triggers)} trigger words", field="trigger", limit=most)
    for word in wish.triggers:
        if why := why_no_word(word):
            raise InvalidInput(why, field="trigger", limit=limits.LORA_TRIGGER_CHARS_MAX)
    return together(Told(wish.triggers), beside(found.files[LORA_FILE]))


def _name_of(path: Path) -> str:
    path = path.absolute()
    return path.stem if path.suffix == SUFFIX else path.name


def _configuration(found: Found, config: Path | None) -> dict[str, Path]:
    """What a checkpoint in one file needs beside it, from such a model's folder.

    That is everything but weights; of parts that the checkpoint lacks, those too.
    """
    if not found.family:
        return {}
    if config is None:
        raise InvalidInput(
            f"a checkpoint in one file ({found.family}) has no configuration: name a model of that"
            " family that is here, or a folder in diffusers' layout",
            field="config",
            limit=found.family,
        )
    theirs = family_in(read_json(config / INDEX))
    if theirs.name != found.family:
        raise InvalidInput(
            f"the checkpoint is of {found.family}, and {config.name} of {theirs.name}",
            field="config",
            limit=found.family,
        )
    held = parts_in(read_header(found.files[SINGLE_FILE]), theirs)
    base = base_in(config, config.name)
    shapes = layer_shapes(held[theirs.denoiser].values(), is_fused=True)
    if base is not None and not base.shapes <= shapes:
        raise InvalidInput(
            f"the checkpoint's layers have other shapes than those of {config.name}: it needs the"
            f" configuration of another {found.family}",
            field="config",
            limit=found.family,
        )
    return {
        file.relative_to(config).as_posix(): file
        for file in model_files(config)
        if file.parent.name not in held or not _is_of_weights(file)
        if file.parent != config or not _is_of_weights(file)
    }


def _is_of_weights(file: Path) -> bool:
    return file.suffix == SUFFIX or f"{SUFFIX}.index." in file.name


def _check_room(root: Path, files: Iterable[Path], mode: Mode) -> None:
    """Refuse what is too large, or larger than the disk, before a byte is copied."""
    sizes = []
    for file in files:
        try:
            sizes.append(file.stat().st_size)
        except OSError as error:
            raise ModelBroken(
                f"{file.name} can't be read: {error.strerror}", field=file.name
            ) from error
    total = sum(sizes)
    if total > limits.MODEL_BYTES_MAX:
        raise ModelBroken(f"it has {total:,} bytes", field="path", limit=limits.MODEL_BYTES_MAX)
    check_free(root, total if mode == "copy" else 0)


def check_free(root: Path, wanted: int) -> None:
    """Raise OperatorError if the disk below ``root`` hasn't so many bytes."""
    there = next(it for it in (root, *root.parents) if it.exists())
    free = shutil.disk_usage(there).free
    if wanted > free:
        raise OperatorError(
            f"the disk of {there} has {free:,} bytes free, and {wanted:,} are needed",
            field="disk",
            limit=free,
        )


def _place(source: Path, target: Path, mode: Mode, hashes: FileHashes) -> FileRecord:
    """Bring one file into the stage; raises OSError, or ModelBroken if the copy isn't the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if mode == "link":
        target.symlink_to(source.absolute())
    elif mode == "hard-link":
        os.link(os.path.realpath(source), target)
    else:
        expected = _copy(source, target)
        if hashes.of(target).hex() != expected:
            raise ModelBroken(
                f"{source.name} reads differently once it is copied: the disk is at fault",
                field=source.name,
            )
        target.chmod(READ_ONLY)
    digest, status = hashes.of(target).hex(), target.stat()
    return FileRecord(bytes=status.st_size, mtime_ns=status.st_mtime_ns, sha256=digest)


def _copy(source: Path, target: Path) -> str:
    """Copy a file's bytes; the SHA-256 of what was read."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("xb") as writing:
        while block := reading.read(_BLOCK_BYTES):
            digest.update(block)
            writing.write(block)
    return digest.hexdigest()


def _read(kind: ModelKind, folder: Path, hashes: FileHashes) -> ModelInfo | AdapterInfo | PartInfo:
    """What was staged, as it will be read; raises ModelBroken."""
    if kind is ModelKind.BASE:
        return read_folder(folder, hashes)
    for adapter, of_kind in ADAPTERS.items():
        if kind is of_kind:
            return read_adapter(adapter, folder.name, folder, hashes)
    return read_part(kind, folder.name, folder, hashes)


def _refused(error: OSError, root: Path) -> OperatorError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OperatorError(
            f"the disk of {root} is full: nothing was added", field="disk", limit=error.strerror
        )
    if error.errno == errno.EXDEV:
        return OperatorError(
            f"{root} is on another disk than the model: hard links can't be made, copy it",
            field="hard-link",
            limit="the same disk",
        )
    named = f"{error.filename}: " if error.filename else ""
    return OperatorError(f"nothing was added: {named}{error.strerror}", field="path")
