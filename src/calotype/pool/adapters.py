"""Which LoRAs and ControlNets there are: found, named, hashed, and the broken ones with the reason.

A LoRA is ``NAME/lora.safetensors`` or a bare ``NAME.safetensors``; a ControlNet is a folder in
diffusers' layout. What ``calotype.json`` beside it says is all that is known of it: nothing is
loaded.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype.core import limits
from calotype.core.errors import InvalidInput, ModelBroken
from calotype.core.nouns import AdapterInfo, AdapterKind, Sampler
from calotype.pool.folders import FileHashes, read_json

_CARD = "calotype.json"
_LORA_FILE = "lora.safetensors"
_CONTROL_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
_HEADER_BYTES_MAX = 16 * 1024 * 1024  # of a safetensors file
_BUILD_DIGITS = 16
_FOLDERS = {AdapterKind.LORA: "loras", AdapterKind.CONTROL: "controlnets"}
_WORDS = {AdapterKind.LORA: "LoRA", AdapterKind.CONTROL: "ControlNet"}

_Text = Annotated[str, Field(min_length=1, max_length=200)]


class _Card(BaseModel):
    """What ``calotype.json`` may say; all of it optional."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    title: _Text | None = None
    licence: _Text = "unknown"
    bases: Annotated[list[_Text], Field(max_length=100)] = Field(default_factory=list)
    steps: int | None = Field(default=None, ge=limits.STEPS_MIN, le=limits.STEPS_MAX)
    guidance: float | None = Field(default=None, ge=limits.GUIDANCE_MIN, le=limits.GUIDANCE_MAX)
    sampler: Annotated[Sampler, Field(strict=False)] | None = None
    control: Annotated[str, Field(max_length=40)] = ""


def embedded_adapters() -> Path:
    """The folder that holds those that ship with Calotype."""
    return Path(str(files("calotype"))) / "models"


class AdapterRegistry:
    """Adapters in ``loras`` and ``controlnets`` of given folders. Empty until ``scan``."""

    def __init__(self, homes: Sequence[Path]) -> None:
        """``homes``, and what is in them, need not exist."""
        self._homes = tuple(homes)
        self._hashes = FileHashes()
        self._found: dict[AdapterKind, dict[str, AdapterInfo]] = {kind: {} for kind in AdapterKind}
        self._broken: dict[str, str] = {}

    def scan(self) -> None:
        """Read all anew. Reads every byte the first time: call it off the event loop.

        Of two of one kind and name the first counts (earlier homes first), the other is broken.
        """
        found: dict[AdapterKind, dict[str, AdapterInfo]] = {kind: {} for kind in AdapterKind}
        broken: dict[str, str] = {}
        for kind, path in self._candidates():
            name = path.stem if path.is_file() else path.name
            if name in found[kind] or f"{_FOLDERS[kind]}/{name}" in broken:
                broken[str(path)] = f"there is another {_WORDS[kind]} named {name!r}"
                continue
            try:
                found[kind][name] = _read(kind, name, path, self._hashes)
            except ModelBroken as error:
                broken[f"{_FOLDERS[kind]}/{name}"] = error.detail
        self._found, self._broken = found, broken

    def list(self, kind: AdapterKind) -> Sequence[AdapterInfo]:
        """All of a kind that can be used."""
        return [*self._found[kind].values()]

    def get(self, kind: AdapterKind, name: str, *, field: str) -> AdapterInfo:
        """The adapter of this name; raises InvalidInput, with the names there are, if unknown."""
        known = self._found[kind]
        if name not in known:
            why = self._broken.get(f"{_FOLDERS[kind]}/{name}")
            raise InvalidInput(
                f"there is no {_WORDS[kind]} named {name[:100]!r}{f' ({why})' if why else ''}",
                field=field,
                limit=sorted(known),
            )
        return known[name]

    def broken(self) -> Mapping[str, str]:
        """What can't be used: ``loras/NAME`` (or the path, of a second) to reason."""
        return dict(self._broken)

    def _candidates(self) -> Iterator[tuple[AdapterKind, Path]]:
        for home in self._homes:
            for kind, folder in _FOLDERS.items():
                if not (home / folder).is_dir():
                    continue
                for path in sorted((home / folder).iterdir()):
                    is_bare = kind is AdapterKind.LORA and path.suffix == ".safetensors"
                    if not path.name.startswith(".") and (path.is_dir() or is_bare):
                        yield kind, path.absolute()


def _read(kind: AdapterKind, name: str, path: Path, hashes: FileHashes) -> AdapterInfo:
    folder = path if path.is_dir() else None
    card = _read_card(folder / _CARD) if folder else _Card()
    if kind is AdapterKind.CONTROL:
        whole = [path / file for file in _CONTROL_FILES]
        place = path
        read_json(whole[0])
    else:
        whole = [path / _LORA_FILE if folder else path]
        place = whole[0]
    _check_weights(kind, whole[-1])
    try:
        return AdapterInfo(
            kind=kind,
            name=name,
            path=str(place),
            build=_build(whole, hashes),
            bytes=whole[-1].stat().st_size,
            **card.model_dump(exclude={"title", "bases"}),
            title=card.title or name,
            bases=tuple(card.bases),
        )
    except OSError as error:
        raise ModelBroken(f"a file can't be read: {error}") from error


def _read_card(file: Path) -> _Card:
    if not file.exists():
        return _Card()
    try:
        return _Card.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelBroken(f"{_CARD}: {field}: {first['msg']}", field=field) from error


def _check_weights(kind: AdapterKind, file: Path) -> None:
    """Read a safetensors file's header: 8 bytes of its length, then JSON by tensors' names."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _HEADER_BYTES_MAX:
                raise ModelBroken(f"{file.name} is no safetensors file", limit=_HEADER_BYTES_MAX)
            names = json.loads(stream.read(length))
    except OSError as error:
        raise ModelBroken(f"{file.name} can't be read: {error.strerror}") from error
    except (struct.error, ValueError) as error:
        raise ModelBroken(f"{file.name} is no safetensors file") from error
    if not isinstance(names, dict) or not names:
        raise ModelBroken(f"{file.name} is no safetensors file")
    if kind is AdapterKind.LORA and not any("lora" in name.lower() for name in names):
        raise ModelBroken(f"{file.name} holds no LoRA: none of its tensors is named so")


def _build(whole: Sequence[Path], hashes: FileHashes) -> str:
    """SHA-256 over each file's name and digest."""
    digest = hashlib.sha256()
    for file in whole:
        digest.update(file.name.encode() + b"\0" + hashes.of(file))
    return digest.hexdigest()[:_BUILD_DIGITS]
