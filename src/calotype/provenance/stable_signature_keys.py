"""Where the decoders' marks lie: a folder each, by the id of its key.

``mark.json`` says what it is, ``extractor.safetensors`` reads it, ``decoder.safetensors`` has the
weights that draw it. The key's bits and the extractor are secrets, as whoever has both can put the
mark into other pictures; so none ships with Calotype. Old ones are kept, since pictures that they
marked are about for ever.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.files.private import write_private
from calotype.provenance.stable_signature import DecoderMark, Extractor, Floats, Layer

MARK, EXTRACTOR, DECODER = "mark.json", "extractor.safetensors", "decoder.safetensors"
_LAYERS_MAX = 16
_BROKEN = (OSError, SafetensorError, KeyError, ValueError, TypeError)


def load(folder: Path) -> tuple[DecoderMark, ...]:
    """The marks of a home (``folder``), newest first.

    Raises OperatorError for one that is damaged, and if there are more than DECODER_MARKS_MAX.
    """
    marks = sorted(_read_all(folder), key=lambda mark: mark.made_at, reverse=True)
    if len(marks) > limits.DECODER_MARKS_MAX:
        raise OperatorError(
            f"{folder} has more decoders' marks than can be looked for",
            limit=limits.DECODER_MARKS_MAX,
        )
    return tuple(marks)


def keep(
    folder: Path,
    run: Path,
    bits: Sequence[int],
    *,
    made_for: str,
    made_at: datetime,
    drawn_px: int = 0,
) -> DecoderMark:
    """Take over what a training left in ``run``, as a folder of ``folder`` by its key's id.

    Its ``mark.json`` comes last and the folder by a rename, so that there is all of it or nothing.
    Raises OperatorError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = _key_id((run / EXTRACTOR).read_bytes(), bits)
        about = {
            "version": 1,
            "key": key,
            "bits": "".join(map(str, bits)),
            "made_for": made_for,
            "made_at": made_at.isoformat(timespec="seconds"),
            "drawn_px": drawn_px,
        }
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))  # for its owner only
        for name in (EXTRACTOR, DECODER):
            shutil.copyfile(run / name, beside / name)
        write_private(beside / MARK, json.dumps(about, indent=1) + "\n")
        if (folder / key).exists():  # the same training, kept before
            shutil.rmtree(folder / key)
        beside.rename(folder / key)
    except OSError as error:
        raise OperatorError(f"{folder} can't be used: {error.strerror}") from error
    return read(folder / key)


def made_for(marks: Sequence[DecoderMark], components: Sequence[str]) -> DecoderMark | None:
    """The first of the marks that was made for one of these components."""
    return next((mark for mark in marks if mark.made_for in components), None)


def read(folder: Path) -> DecoderMark:
    """The mark in one folder; raises OperatorError if it is none, or damaged."""
    try:
        about: Mapping[str, Any] = json.loads((folder / MARK).read_text())
        bits = tuple(int(bit) for bit in about["bits"])
        if not limits.MARK_BITS_MIN <= len(bits) <= limits.MARK_BITS_MAX or set(bits) - {0, 1}:
            raise ValueError("it hasn't as many bits as a mark has")
        if not 0 <= about["drawn_px"] <= limits.SIZE_PX_MAX:
            raise ValueError("its model draws pictures of an impossible size")
        path = folder / EXTRACTOR
        if path.stat().st_size > limits.DECODER_EXTRACTOR_BYTES_MAX:
            raise ValueError(f"its extractor has over {limits.DECODER_EXTRACTOR_BYTES_MAX} bytes")
        if _key_id(path.read_bytes(), bits) != about["key"]:
            raise ValueError("its key's id isn't that of its bits and its extractor")
        return DecoderMark(
            key=about["key"],
            bits=bits,
            extractor=_extractor(path, len(bits)),
            made_for=str(about["made_for"]),
            made_at=str(about["made_at"]),
            drawn_px=int(about["drawn_px"]),
            decoder=str((folder / DECODER).absolute()),
        )
    except _BROKEN as error:
        raise OperatorError(f"{folder} isn't a decoder's mark: {error}") from error


def _read_all(folder: Path) -> list[DecoderMark]:
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if (path / MARK).is_file())
    return [read(path) for path in paths if not path.name.startswith(".")]


def _extractor(path: Path, bits: int) -> Extractor:
    with safe_open(path, framework="numpy") as file:
        tensors: dict[str, Floats] = {
            name: file.get_tensor(name).astype(np.float32)
            for name in file.keys()  # noqa: SIM118
        }
        strides = json.loads((file.metadata() or {})["strides"])
    if len(strides) > _LAYERS_MAX or not all(stride in (1, 2) for stride in strides):
        raise ValueError("its extractor has other layers than an extractor has")
    layers = tuple(
        Layer(tensors[f"conv{k}.weight"], tensors[f"conv{k}.bias"], stride)
        for k, stride in enumerate(strides)
    )
    inputs = 3
    for layer in layers:
        if layer.weight.shape != (len(layer.bias), inputs, 3, 3):
            raise ValueError(f"its extractor has weights of shape {layer.weight.shape}")
        inputs = len(layer.bias)
    head, bias = tensors["head.weight"], tensors["head.bias"]
    if head.shape != (bits, inputs) or bias.shape != (bits,):
        raise ValueError(f"its extractor reads {len(bias)} bits, and its key has {bits}")
    if not all(np.isfinite(each).all() for each in tensors.values()):
        raise ValueError("its extractor has weights that aren't numbers")
    return Extractor(layers, head, bias)


def _key_id(extractor: bytes, bits: Sequence[int]) -> str:
    digest = hashlib.sha256(bytes(bits) + hashlib.sha256(extractor).digest())
    return f"dmk_{digest.hexdigest()[:16]}"
