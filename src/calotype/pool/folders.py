"""Reads a diffusers folder: what it is, how it likes to be run, and a hash of what it holds.

Weights lie in the components' folders, or all in one ``model.safetensors`` beside them. Nothing is
loaded: only JSON and headers are read, and bytes are hashed. It knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from calotype.core.headers import Header
from calotype.core.nouns import ModelInfo, Sampler
from calotype.core.references import plain
from calotype.core.weights import is_inside
from calotype.files.headers import read_header
from calotype.files.weights import read_json, weights_of
from calotype.pool.components import (
    VAE,
    LoadedAs,
    components_of,
    has_weights,
    weights_by_part,
)
from calotype.pool.files import CARD, FileHashes, build_of, counting_in
from calotype.pool.fitting import Base, latent_channels, layer_shapes

INDEX = "model_index.json"
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


def read_folder(
    folder: Path, hashes: FileHashes, *, name: str | None = None, device: str = "cpu"
) -> ModelInfo:
    """The model in this folder, by the folder's name or another; raise ModelBroken saying why not.

    Reads every byte of it the first time (``hashes`` remembers). What its parts take is told for
    engines on this kind of device: "cpu", "cuda".
    """
    family, names = _parts(folder)
    card = _read_card(folder, family, name or folder.name)
    weights, headers = _weights(folder, family, names)
    parts = weights_by_part(family, weights, _single(folder), headers)
    if missing := [it for it in names if has_weights(it, family) and it not in parts]:
        raise ModelBroken(
            f"it has no weights of its {missing[0]}: there are no .safetensors files",
            field=missing[0],
        )
    build = build_of(folder, _files(folder, names), hashes, card.bits)
    loaded = LoadedAs(card.dtype, card.quantise, card.compile, device)
    try:
        components = components_of(folder, family, parts, loaded, hashes)
    except OSError as error:
        raise ModelBroken(f"a file can't be read: {error}") from error
    return ModelInfo(
        name=name or folder.name,
        family=family.name,
        path=str(folder),
        build=build,
        parameter_bytes=sum(
            tensor.bytes for held in parts.values() for tensor in held.tensors.values()
        ),
        components=components,
        **card.model_dump(),
    )


def base_of(model: ModelInfo) -> Base:
    """What adapters can be held against: the shapes of a model that was read."""
    found = base_in(Path(model.path), plain(model.name))
    assert found is not None
    return found


def base_in(folder: Path, name: str) -> Base | None:
    """The same, of a folder that may be one without weights (then None); raises ModelBroken."""
    family, names = _parts(folder)
    weights, headers = _weights(folder, family, names)
    parts = weights_by_part(family, weights, _single(folder), headers)
    denoiser, vae = parts.get(family.denoiser), parts.get(VAE)
    if denoiser is None:
        return None
    return Base(
        name=name,
        family=family.name,
        shapes=layer_shapes(denoiser.tensors.values(), is_fused=denoiser.is_shared),
        latent_channels=latent_channels(read_json(folder / VAE / "config.json"), vae.tensors)
        if vae
        else None,
    )


def model_files(folder: Path) -> list[Path]:
    """The files that a model in diffusers' layout is made of; raises ModelBroken."""
    _, names = _parts(folder)
    return _files(folder, names)


def family_in(index: Mapping[str, Any]) -> Family:
    """The family that a pipeline's index names; raises ModelBroken."""
    kind = index.get("_class_name")
    family = PIPELINES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ModelBroken(
            f"pipeline class {str(kind)[:100]!r} isn't supported ({', '.join(PIPELINES)})",
            field="_class_name",
            limit=[*PIPELINES],
        )
    return family


def _parts(folder: Path) -> tuple[Family, list[str]]:
    """A folder's family, and the names of its components."""
    index = read_json(folder / INDEX)
    family = family_in(index)
    return family, _components(folder, index, family)


def _weights(
    folder: Path, family: Family, names: Sequence[str]
) -> tuple[dict[str, list[Path]], dict[Path, Header]]:
    """The files of each component's own weights, and the headers of all of them."""
    single = _single(folder)
    weights = {}
    for name in names:
        if has_weights(name, family):
            weights[name] = weights_of(folder / name, may_lack=single is not None)
    files = [file for each in weights.values() for file in each]
    files += [single] if single is not None else []
    return weights, {file: read_header(file) for file in files}


def _single(folder: Path) -> Path | None:
    return folder / SINGLE_FILE if (folder / SINGLE_FILE).is_file() else None


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    """What pictures depend on: the index and the components' files, not cards and read-mes."""
    single = _single(folder)
    files = [folder / INDEX, *([single] if single is not None else [])]
    return [*files, *(file for name in names for file in counting_in(folder / name))]


def _components(folder: Path, index: dict[str, Any], family: Family) -> list[str]:
    """Names of the pipeline's parts: each is a folder; ``[null, null]`` marks one left out."""
    named = {
        name: what
        for name, what in index.items()
        if not name.startswith("_") and isinstance(what, list) and what != [None, None]
        if name not in UNUSED
    }
    for name in named:
        if not is_inside(name) or not (folder / name).is_dir():
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


def _defaults(folder: Path, family: Family, name: str) -> dict[str, Any]:
    """What a card needn't say: sizes from half to twice the model's own, and the family's ways."""
    size_px = _default_size_px(folder, family)
    half = size_px // 2 // family.size_px_multiple * family.size_px_multiple
    defaults = {
        "title": name,
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


def _read_card(folder: Path, family: Family, name: str) -> _Card:
    """``calotype.json`` over the defaults."""
    said = read_json(folder / CARD) if (folder / CARD).exists() else {}
    defaults = _defaults(folder, family, name)
    try:
        return _Card.model_validate({**defaults, **said}, context={"family": family})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "width, height"
        raise ModelBroken(f"{CARD}: {field}: {first['msg']}", field=field) from error
