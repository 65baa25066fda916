"""A base model's separately loadable parts, from headers: which they are, and what each will take.

Two models that have a part in common share its id, and so its memory: its weights are the same
bytes, its configuration says the same, and it is loaded in the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calotype.core.families import Family
from calotype.core.headers import Header, Tensor
from calotype.core.nouns import Component
from calotype.files.weights import read_json
from calotype.pool.checkpoints import parts_in
from calotype.pool.files import BUILD_DIGITS, FileHashes

DENOISER, VAE = "denoiser", "vae"  # kinds, as ``core.families.COMPILED`` has them, too
_ENCODER = "text_encoder"
_FLOATS = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
_LOADED_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}  # of one number
AUTO = {"cpu": "fp32", "cuda": "fp16"}  # what the engine takes where a card leaves it open
Headers = Mapping[Path, Header]

# Of a configuration: where it came from, and with what it was written; nobody computes with these.
_UNSAID = ("_name_or_path", "_diffusers_version", "transformers_version", "torch_dtype", "dtype")


@dataclass(frozen=True)
class LoadedAs:
    """How a card, and the device, have a model loaded."""

    dtype: str = "auto"
    quantise: str = ""
    compile: tuple[str, ...] = ()
    device: str = "cpu"  # or "cuda"

    def said_of(self, kind: str) -> tuple[str, str, bool]:
        """What is said of a part: its dtype, how it is quantised, and whether it is compiled."""
        return (
            "fp32" if kind == VAE else self.dtype,  # half precision overflows in SDXL's
            self.quantise if kind == DENOISER else "",
            kind in self.compile,
        )

    def bytes_of(self, kind: str, tensors: Iterable[tuple[str, Tensor]]) -> int:
        """What a part's tensors take on the device."""
        dtype, quantise, _ = self.said_of(kind)
        return loaded_bytes(tensors, AUTO[self.device] if dtype == "auto" else dtype, quantise)


@dataclass(frozen=True)
class Weights:
    """A part's weights: its files, and its tensors in them."""

    files: Sequence[Path]
    tensors: Mapping[str, Tensor]
    data_at: int | None = None  # where tensors begin, of a file that holds other parts, too

    @property
    def is_shared(self) -> bool:
        """Whether it is one of several parts in one file."""
        return self.data_at is not None


def has_weights(name: str, family: Family) -> bool:
    """Whether a component of this name is one that has to have weights."""
    return name in (family.denoiser, VAE) or name.startswith(_ENCODER)


def weights_by_part(
    family: Family, own: Mapping[str, Sequence[Path]], single: Path | None, headers: Headers
) -> dict[str, Weights]:
    """Each part's weights: of its own folder, else those in the one file beside all folders.

    ``own`` has the files of each part that the model names, none where it has none of its own;
    ``headers`` those of all files.
    """
    in_one = parts_in(headers[single], family) if single is not None else {}
    found = {}
    for name in (family.denoiser, VAE, *(f"{_ENCODER}{end}" for end in ("", "_2", "_3"))):
        if name not in own:
            continue
        if files := own[name]:
            tensors = {key: it for file in files for key, it in headers[file].tensors.items()}
            found[name] = Weights(files, tensors)
        elif single is not None and name in in_one:
            found[name] = Weights([single], in_one[name], headers[single].data_at)
    return found


def components_of(
    folder: Path,
    family: Family,
    weights: Mapping[str, Weights],
    loaded: LoadedAs,
    hashes: FileHashes,
) -> tuple[Component, ...]:
    """The parts of the model in this folder; raises OSError, or ModelBroken for a configuration."""
    return tuple(
        Component(
            id=_id(folder / name, kind, held, loaded, hashes),
            kind=kind,
            bytes=loaded.bytes_of(kind, held.tensors.items()),
        )
        for name, held in weights.items()
        for kind in (_kind(name, family),)
    )


def number_bytes(dtype: str, device: str) -> int:
    """What one number takes on a device ("cpu", "cuda:0"), of a card's dtype or "auto"."""
    return _LOADED_BYTES[AUTO[device.partition(":")[0]] if dtype == "auto" else dtype]


def loaded_bytes(tensors: Iterable[tuple[str, Tensor]], dtype: str, quantise: str = "") -> int:
    """What tensors take in memory as ``dtype``; of 8-bit ones each output has a scale beside it.

    What isn't a number of a layer (positions, say) is left out: it is nothing beside them.
    """
    wide = _LOADED_BYTES[dtype]
    total = 0
    for name, tensor in tensors:
        if tensor.dtype not in _FLOATS:
            continue
        is_small = bool(quantise) and len(tensor.shape) == 2 and "block" in name
        total += tensor.numbers + wide * tensor.shape[0] if is_small else wide * tensor.numbers
    return total


def _kind(name: str, family: Family) -> str:
    if name == family.denoiser:
        return DENOISER
    return VAE if name == VAE else _ENCODER


def _id(folder: Path, kind: str, held: Weights, loaded: LoadedAs, hashes: FileHashes) -> str:
    """A hash of what it holds, of what its configuration says, and of how it is loaded."""
    whole = hashlib.sha256()
    if held.data_at is None:
        for file in held.files:
            whole.update(hashes.of(file))
    else:
        whole.update(hashes.of_part(held.files[0], folder.name, held.data_at, held.tensors))
    config = read_json(folder / "config.json")
    said = {key: value for key, value in config.items() if key not in _UNSAID}
    whole.update(json.dumps([said, *loaded.said_of(kind)], sort_keys=True).encode())
    return f"{kind}-{whole.hexdigest()[:BUILD_DIGITS]}"
