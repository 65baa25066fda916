"""What a file itself shows of where it came from: its claim, its mark, and how it looks.

Reads strangers' files, so a server has it done in a finishing process. It asks no store and no log;
``flow.verify`` says what follows. Nothing that is in a file makes it raise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.core.errors import InvalidInput
from calotype.delivery import inputs
from calotype.provenance.detection import Mark, detect
from calotype.provenance.stable_signature import DecoderFound, DecoderMark, find
from calotype.provenance.verification import Report, verify
from calotype.provenance.watermark import MarkKey
from calotype.safety import phash


@dataclass(frozen=True)
class Seen:
    """What was seen. ``grey`` is None if the file can't be read as a picture."""

    sha256: str  # of the file
    claim: Report
    mark: Mark | None = None
    grey: NDArray[np.uint8] | None = None  # height x width
    phashes: tuple[int, ...] = ()  # as it is, mirrored, turned
    decoder: DecoderFound | None = None  # the mark of a decoder that drew it


def examine(
    data: bytes,
    *,
    keys: Sequence[MarkKey],
    anchors_pem: str | None,
    serials: Collection[str] | None = None,
    decoders: Sequence[DecoderMark] = (),
) -> Seen:
    """Look at a file. ``keys``: those of the mark, old ones too; ``decoders``: their marks.

    ``anchors_pem`` and ``serials``: see ``verification.verify``.
    """
    claim, sha256 = verify(data, anchors_pem=anchors_pem, serials=serials), _sha256(data)
    try:
        pixels = inputs.read(data, formats=inputs.DELIVERED)
    except InvalidInput:
        return Seen(sha256, claim)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    hashes = tuple(phash.hashes(phash.small(pixels)))
    mark, decoder = detect(pixels, keys), find(pixels, decoders)
    return Seen(sha256, claim, mark, grey, hashes, decoder)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
