"""A model's files: which of them count, what is in the small ones, and a hash of them all.

What counts is what a loader reads: configurations, vocabularies, and of the weights those that
``core.weights`` chooses. Anything else in a folder may change without the model being another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from io import BufferedReader
from pathlib import Path

from calotype.core.errors import ModelBroken
from calotype.core.headers import Tensor
from calotype.core.weights import SUFFIX, is_index, weights_entry
from calotype.files.weights import ReadJson, names_in, read_json, weights_in

CARD = "calotype.json"
BUILD_DIGITS = 16  # hexadecimal, of a content hash
_READ = (".json", ".txt", ".model", ".spm", ".jinja")  # of what loaders read, beside weights
_INDEX = f"{SUFFIX}.index."
_BLOCK_BYTES = 1 << 20


class FileHashes:
    """SHA-256 of files, computed again only when size or modification time changed."""

    is_exact = True  # its digests are of bytes that were read, now or when they were recorded

    def __init__(self) -> None:
        # By path and part, which is empty for all of the file: size, mtime_ns, digest.
        self._known: dict[tuple[str, str], tuple[int, int, bytes]] = {}

    def of(self, file: Path) -> bytes:
        """The file's digest; raises OSError."""

        def digest(stream: BufferedReader) -> bytes:
            return hashlib.file_digest(stream, "sha256").digest()

        return self._digest(file, "", digest)

    def of_part(self, file: Path, part: str, data_at: int, tensors: Mapping[str, Tensor]) -> bytes:
        """The digest of some of a file's tensors, which begin at ``data_at``; raises OSError.

        Of names, types, shapes and bytes: two files that have a part in common agree on it.
        """

        def digest(stream: BufferedReader) -> bytes:
            whole = hashlib.sha256()
            for name, tensor in sorted(tensors.items()):
                whole.update(json.dumps([name, tensor.dtype, tensor.shape]).encode())
                stream.seek(data_at + tensor.begin)
                left = tensor.bytes
                while left and (block := stream.read(min(left, _BLOCK_BYTES))):
                    whole.update(block)
                    left -= len(block)
            return whole.digest()

        return self._digest(file, part, digest)

    def know(self, file: Path, size: int, mtime_ns: int, digest: bytes, *, part: str = "") -> None:
        """Believe a digest that was computed when the file had this size and time."""
        self._known[str(file), part] = (size, mtime_ns, digest)

    def parts_of(self, file: Path) -> dict[str, bytes]:
        """The parts of a file whose digests are known."""
        return {
            part: known[2]
            for (name, part), known in self._known.items()
            if name == str(file) and part
        }

    def _digest(self, file: Path, part: str, compute: Callable[[BufferedReader], bytes]) -> bytes:
        status = file.stat()
        known = self._known.get((str(file), part))
        if known and known[:2] == (status.st_size, status.st_mtime_ns):
            return known[2]
        with file.open("rb") as stream:
            digest = compute(stream)
        self._known[str(file), part] = (status.st_size, status.st_mtime_ns, digest)
        return digest


class Unhashed(FileHashes):
    """Stands in where a look must be quick and nobody asks for a build: no byte is read."""

    is_exact = False

    def _digest(self, file: Path, part: str, compute: Callable[[BufferedReader], bytes]) -> bytes:
        """Nothing, for a file that is there; raises OSError."""
        file.stat()
        return b""


def counting(names: Collection[str], read: ReadJson, where: str) -> list[str]:
    """Of a component's files those that count, in order; of pickles nothing is said.

    Raises as ``weights_in``.
    """
    weights = weights_in(names, read, where, may_lack=True)
    entry = weights_entry(names)
    small = [it for it in names if it.endswith(_READ) and _INDEX not in it and it != CARD]
    index = [entry] if entry is not None and is_index(entry) else []
    return sorted({*small, *index, *weights})


def counting_in(folder: Path) -> list[Path]:
    """The files of a component's folder that count. Raises as ``weights_in``."""
    names = counting(names_in(folder), lambda name: read_json(folder / name), folder.name)
    return [folder / name for name in names]


def build_of(folder: Path, files: Iterable[Path], hashes: FileHashes, bits: str = "") -> str:
    """SHA-256 over each file's path in the folder and its digest, in the order of the paths.

    Then ``bits``: how it is loaded, where the card says anything that changes its pictures. The
    first 16 hexadecimal digits; raises ModelBroken if a file can't be read.
    """
    whole = hashlib.sha256()
    named = sorted((file.relative_to(folder).as_posix(), file) for file in files)
    try:
        for name, file in named:
            whole.update(name.encode() + b"\0" + hashes.of(file))
    except OSError as error:
        raise ModelBroken(f"a file can't be read: {error}") from error
    whole.update(bits.encode())
    return whole.hexdigest()[:BUILD_DIGITS]
