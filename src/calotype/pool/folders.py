"""Reads a diffusers folder: what it is, how it likes to be run, and a hash of what it holds.

Weights lie in the components' folders, or all in one ``model.safetensors`` beside them. Nothing is
loaded: only JSON is read, and bytes are hashed. It knows nothing of engines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.families import PIPELINES, SINGLE_FILE, UNUSED, Family
from calotype.core.nouns import ModelInfo, Sampler

_JSON_BYTES_MAX = 1024 * 1024  # of model_index.json, calotype.json and a component's config
_BUILD_DIGITS = 16  # hexadecimal, of the content hash
_CARD = "calotype.json"
_FLUX_PX = 1024  # a side, where its autoencoder doesn't say
_STEPS_SCHNELL = 4  # of a FLUX that was distilled to need few, and no guidance

_Size = Annotated[
    int,
    Field(ge=limits.SIZE_PX_MIN, le=limits.SIZE_PX_MAX, multiple_of=limits.SIZE_PX_MULTIPLE),
]


class _Card(BaseModel):
    """What ``calotype.json`` may say; all of it optional."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    title: str = Field(min_length=1, max_length=200)
    licence: str = Field(default="unknown", min_length=1, max_length=200)
    width: _Size
    height: _Size
    size_px_min: _Size
    size_px_max: _Size
    steps: int = Field(ge=limits.STEPS_MIN, le=limits.STEPS_MAX)
    guidance: float = Field(ge=limits.GUIDANCE_MIN, le=limits.GUIDANCE_MAX)
    sampler: Annotated[Sampler, Field(strict=False)]
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    quantise: Literal["", "int8", "fp8"] = ""
    compile: Annotated[tuple[Literal["denoiser", "vae"], ...], Field(strict=False)] = ()
    domain: str = Field(default="", max_length=100)

    @field_validator("width", "height", "size_px_min", "size_px_max")
    @classmethod
    def _fits_family(cls, value: int, info: ValidationInfo) -> int:
        family: Family = info.context["family"]  # type: ignore[index]  # we give it
        if value % family.size_px_multiple:
            raise ValueError(f"{family.name} needs a multiple of {family.size_px_multiple}")
        return value

    @field_validator("sampler")
    @classmethod
    def _suits_family(cls, value: Sampler, info: ValidationInfo) -> Sampler:
        family: Family = info.context["family"]  # type: ignore[index]  # we give it
        if value not in family.samplers:
            raise ValueError(f"{family.name} can be sampled with {', '.join(family.samplers)}")
        return value

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        for name in ("width", "height"):
            if not self.size_px_min <= getattr(self, name) <= self.size_px_max:
                raise ValueError(f"{name} isn't within size_px_min and size_px_max")
        return self

    @property
    def bits(self) -> str:
        """How it is loaded, as far as pictures depend on it; empty if nothing is said."""
        said = {"dtype": self.dtype, "quantise": self.quantise, "compile": sorted(self.compile)}
        return ";".join(f"{name}={it}" for name, it in said.items() if it and it != "auto")


def read_folder(folder: Path, hashes: FileHashes) -> ModelInfo:
    """The model in this folder, by the folder's name; raise ModelBroken saying what is wrong.

    Reads every byte of it the first time (``hashes`` remembers).
    """
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name")
    family = PIPELINES.get(kind) if isinstance(kind, str) else None
    if family is None:
        known = ", ".join(PIPELINES)
        raise ModelBroken(f"pipeline class {kind!r} isn't supported ({known})", field="_class_name")
    components = _components(folder, index, family)
    card = _read_card(folder, family)
    try:
        files = sorted(_files(folder, components), key=lambda file: _inside(folder, file))
        build = _build(folder, files, hashes, card.bits)
        parameter_bytes = sum(
            file.stat().st_size for file in files if file.suffix == ".safetensors"
        )
    except OSError as error:
        raise ModelBroken(f"a file can't be read: {error}") from error
    if parameter_bytes == 0:
        raise ModelBroken("it has no weights: there are no .safetensors files")
    return ModelInfo(
        name=folder.name,
        family=family.name,
        path=str(folder),
        build=build,
        parameter_bytes=parameter_bytes,
        **card.model_dump(),
    )


class FileHashes:
    """SHA-256 of files, computed again only when size or modification time changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, bytes]] = {}  # path -> size, mtime_ns, digest

    def of(self, file: Path) -> bytes:
        """The file's digest; raises OSError."""
        status = file.stat()
        known = self._known.get(str(file))
        if known and known[:2] == (status.st_size, status.st_mtime_ns):
            return known[2]
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
        self._known[str(file)] = (status.st_size, status.st_mtime_ns, digest)
        return digest


def _components(folder: Path, index: dict[str, Any], family: Family) -> list[str]:
    """Names of the pipeline's parts: each is a folder; ``[null, null]`` marks one left out."""
    named = {
        name: what
        for name, what in index.items()
        if not name.startswith("_") and isinstance(what, list) and what != [None, None]
        if name not in UNUSED
    }
    for name in named:
        if "/" in name or not (folder / name).is_dir():
            raise ModelBroken(f"component {name!r} has no folder", field=name)
    if family.denoiser not in named:
        raise ModelBroken(f"it names no {family.denoiser}", field=family.denoiser)
    return sorted(named)


def _default_size_px(folder: Path, family: Family) -> int:
    """Width and height the denoiser was made for: its latents are an eighth of the picture.

    FLUX's says nothing, but its autoencoder does, in pixels.
    """
    if family.name == "flux":
        size = read_json(folder / "vae" / "config.json").get("sample_size", _FLUX_PX)
        where, scale = "vae", 1
    else:
        size = read_json(folder / family.denoiser / "config.json").get("sample_size")
        where, scale = family.denoiser, limits.SIZE_PX_MULTIPLE
    if not isinstance(size, int) or isinstance(size, bool):
        raise ModelBroken(f"{where}/config.json: sample_size is {size!r}", field="sample_size")
    pixels = size * scale
    if not limits.SIZE_PX_MIN <= pixels <= limits.SIZE_PX_MAX:
        raise ModelBroken(
            f"{where}/config.json: sample_size {size} means {pixels} pixels",
            field="sample_size",
            limit=[limits.SIZE_PX_MIN, limits.SIZE_PX_MAX],
        )
    return pixels


def _defaults(folder: Path, family: Family) -> dict[str, Any]:
    """What a card needn't say: sizes from half to twice the model's own, and the family's ways."""
    size_px = _default_size_px(folder, family)
    half = size_px // 2 // family.size_px_multiple * family.size_px_multiple
    defaults = {
        "title": folder.name,
        "width": size_px,
        "height": size_px,
        "size_px_min": max(limits.SIZE_PX_MIN, half),
        "size_px_max": min(limits.SIZE_PX_MAX, 2 * size_px),
        "steps": family.steps,
        "guidance": family.guidance,
        "sampler": family.sampler,
    }
    if family.name == "flux":
        denoiser = read_json(folder / family.denoiser / "config.json")
        if not denoiser.get("guidance_embeds", False):
            defaults |= {"steps": _STEPS_SCHNELL, "guidance": 1.0}
    return defaults


def _read_card(folder: Path, family: Family) -> _Card:
    """``calotype.json`` over the defaults."""
    said = read_json(folder / _CARD) if (folder / _CARD).exists() else {}
    defaults = _defaults(folder, family)
    try:
        return _Card.model_validate({**defaults, **said}, context={"family": family})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "width, height"
        raise ModelBroken(f"{_CARD}: {name}: {first['msg']}", field=name) from error


def read_json(file: Path) -> dict[str, Any]:
    """A small JSON object; raise ModelBroken naming the file and what is wrong with it."""
    where = f"{file.parent.name}/{file.name}"
    try:
        if file.stat().st_size > _JSON_BYTES_MAX:
            raise ModelBroken(f"{where} is too large", limit=_JSON_BYTES_MAX)
        body = json.loads(file.read_bytes())
    except OSError as error:
        raise ModelBroken(f"{where} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelBroken(f"{where} isn't JSON: {error}") from error
    if not isinstance(body, dict):
        raise ModelBroken(f"{where} isn't a JSON object")
    return body


def _files(folder: Path, components: list[str]) -> Iterator[Path]:
    """What pictures depend on: the index and the components' files, not cards and read-mes."""
    yield folder / "model_index.json"
    if (folder / SINGLE_FILE).is_file():
        yield folder / SINGLE_FILE
    for name in components:
        for path in (folder / name).rglob("*"):
            is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.is_file() and not is_hidden:
                yield path


def _build(folder: Path, files: list[Path], hashes: FileHashes, bits: str) -> str:
    """SHA-256 over each file's path in the folder and its digest, in the order of the paths.

    Then ``bits``: how it is loaded, where the card says anything that changes its pictures.
    """
    whole = hashlib.sha256()
    for file in files:
        whole.update(_inside(folder, file).encode() + b"\0" + hashes.of(file))
    whole.update(bits.encode())
    return whole.hexdigest()[:_BUILD_DIGITS]


def _inside(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()
