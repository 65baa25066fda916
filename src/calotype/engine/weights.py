"""Weights from files to where they stay: header first, then each byte once, or not at all.

A file that nobody may write to is taken at its word: on a CPU, tensors that stay as they are in it
are *mapped*, and their bytes are the page cache's own. That copies nothing, and engines on one
machine that load the same file have it in memory once. All other files are *read*: one that is cut
short under a mapping ends the process (SIGBUS), and one that is written to would change pictures
without a word. The registry's own copies are read-only. Measured: ``docs/pool.md``.

Mapped weights begin wherever the file puts them, others at multiples of 64 bytes. That changed bits
for products of one row in float32 only, where they began at no multiple of 16 bytes (1,200 linear
layers and 288 convolutions tried, on 2 cores); no linear layer here sees a single row
(``buckets.steady``).

On a GPU the bytes go through pinned memory, two buffers a thread, each thread with a stream of its
own: one buffer is filled from the file while the other is on its way. Streams are made once, since
the allocator keeps what was freed for the stream that had it. That path has been read carefully and
never run: there was no GPU (``tests/gpu`` runs it where there is one).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch

from calotype.core.errors import ModelBroken
from calotype.core.headers import Tensor
from calotype.files.headers import read_header

Progress = Callable[[int, int], None]  # bytes read, and of how many
Wanted = Callable[[str, torch.dtype], torch.dtype | None]  # by name and dtype; None: not at all
DTYPES = {  # by their names in a header
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_THREADS = 4  # a disk answers several at once
_BUFFER_BYTES = 16 * 1024**2  # pinned memory comes in powers of two
_MAPPED_BYTES = 128 * 1024**2  # mapped at one time: between two a thread waits for Python's lock
_SPANS_MAX = 512  # tensors in one piece: the kernel takes 1,024
_ALIGNED = 64  # bytes, of what is converted: so its kernels see what they like
_PIECE_BYTES = _BUFFER_BYTES - _SPANS_MAX * _ALIGNED  # read at one time
_WRITABLE = 0o222  # by somebody
_POPULATE_READ = 22  # Linux 5.14: have these pages mapped, and wait for them
_LIBC: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class _Chosen:
    """A tensor that is wanted."""

    begin: int  # of its bytes in the file
    dtype: torch.dtype  # in the file
    memory: torch.Tensor  # (numbers,), where it stays


@dataclass(frozen=True)
class _Span:
    """A run of one tensor's numbers that lies in one piece."""

    to: torch.Tensor  # (numbers,), where they stay
    dtype: torch.dtype  # in the file

    @property
    def bytes(self) -> int:
        """In the file."""
        return int(self.to.numel() * self.dtype.itemsize)


@dataclass(frozen=True)
class _Piece:
    """Bytes of a file that are read at one time."""

    file: int  # descriptor
    name: str
    begin: int  # in the file
    spans: tuple[_Span, ...]  # one after the other
    is_mapped: bool = False  # they lie in the page cache, or will


class Reader:
    """Reads tensors in threads of its own; a context, at whose end nothing is read any more.

    ``progress`` is called from those threads, one at a time, after each piece.
    """

    def __init__(
        self, device: torch.device, progress: Progress | None = None, threads: int = _THREADS
    ) -> None:
        self._device, self._progress = device, progress
        self._pool = ThreadPoolExecutor(threads, "weights")
        self._futures: list[Future[None]] = []
        self._files: list[int] = []
        self._done = self._total = 0  # bytes
        self._counting = threading.Lock()
        self._own = threading.local()  # each thread's staging
        self._streams = iter(_streams(device, threads) if device.type == "cuda" else ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._device.type == "cuda":  # nothing is on its way to memory that may be another's now
            torch.cuda.synchronize(self._device)
        for file in self._files:
            os.close(file)

    def read(self, path: Path, wanted: Wanted) -> dict[str, torch.Tensor]:
        """Begin to read a file's tensors: they have memory now, and their values after ``wait``.

        Those that are of another dtype in the file are converted. Raises ModelBroken for anything
        but a whole safetensors file of dtypes that PyTorch has.
        """
        header = read_header(path)
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ModelBroken(f"{path.name} can't be read: {error.strerror}") from error
        self._files.append(file)
        mapped = self._map(file)
        found: dict[str, torch.Tensor] = {}
        to_read: list[_Chosen] = []
        to_map: list[_Chosen] = []
        for name, tensor in header.tensors.items():
            dtype, begin = _dtype(path, name, tensor), header.data_at + tensor.begin
            if (to := wanted(name, dtype)) is None:
                continue
            if mapped and tensor.numbers and to == dtype and begin % dtype.itemsize == 0:
                memory = torch.frombuffer(mapped, dtype=dtype, count=tensor.numbers, offset=begin)
                to_map.append(_Chosen(begin, dtype, memory))
            else:
                memory = torch.empty(tensor.numbers, dtype=to, device=self._device)
                to_read.append(_Chosen(begin, dtype, memory))
            found[name] = memory.view(tensor.shape)
        if self._device.type == "cuda":  # what had this memory before is done with it
            torch.cuda.current_stream(self._device).synchronize()
        pieces = [
            *_pieces(file, path.name, to_read, _PIECE_BYTES),
            *_pieces(file, path.name, to_map, _MAPPED_BYTES, is_mapped=True),
        ]
        with self._counting:
            self._total += sum(span.bytes for piece in pieces for span in piece.spans)
        self._futures += [self._pool.submit(self._fill, piece) for piece in pieces]
        return found

    def wait(self) -> None:
        """Until all that was begun is there; raises what went wrong first."""
        for future in self._futures:
            future.result()
        self._futures.clear()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _map(self, file: int) -> mmap.mmap | None:
        """The whole file, if it may be; what would be written to it here stays here."""
        status = os.fstat(file)
        if self._device.type != "cpu" or _LIBC is None or status.st_mode & _WRITABLE:
            return None
        return mmap.mmap(file, status.st_size, access=mmap.ACCESS_COPY)

    def _fill(self, piece: _Piece) -> None:
        if piece.is_mapped:
            _populate(piece)
            self._tell(piece)
            return
        direct = [it.to.dtype == it.dtype and it.to.device.type == "cpu" for it in piece.spans]
        if all(direct):
            _read(piece, [_raw(span.to) for span in piece.spans])
        else:
            self._staging().fill(piece)
        self._tell(piece)

    def _tell(self, piece: _Piece) -> None:
        with self._counting:
            self._done += sum(span.bytes for span in piece.spans)
            if self._progress is not None:
                self._progress(self._done, self._total)

    def _staging(self) -> _Staging:
        if not hasattr(self._own, "staging"):
            with self._counting:
                stream = next(self._streams, None)
            self._own.staging = _Staging(self._device, stream)
        staging: _Staging = self._own.staging
        return staging


class _Staging:
    """One thread's memory between file and tensors, where bytes can't go there directly."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None) -> None:
        """``stream`` is that of a GPU; None: it is none."""
        self._device, self._stream = device, stream
        is_gpu = stream is not None
        count = 2 if is_gpu else 1
        self._buffers = [
            torch.empty(_BUFFER_BYTES, dtype=torch.uint8, pin_memory=is_gpu) for _ in range(count)
        ]
        self._turn = 0
        self._sent: list[Any] = [None] * count  # events: the buffer is free again

    def fill(self, piece: _Piece) -> None:
        """Read a piece; on a GPU its last bytes may still be on their way when this returns."""
        turn = self._turn = (self._turn + 1) % len(self._buffers)
        if self._sent[turn] is not None:
            self._sent[turn].synchronize()
        parts, at = [], 0
        for span in piece.spans:
            parts.append(self._buffers[turn][at : at + span.bytes])
            at += -(-span.bytes // _ALIGNED) * _ALIGNED
        _read(piece, [_raw(part) for part in parts])
        if self._stream is None:
            there = [part.view(it.dtype) for it, part in zip(piece.spans, parts, strict=True)]
            torch._foreach_copy_([span.to for span in piece.spans], there)  # one wait for the lock
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for span, part in zip(piece.spans, parts, strict=True):
                there = part.view(span.dtype)
                if span.dtype != span.to.dtype:  # converted there: a copy does it on the host
                    there = there.to(self._device, non_blocking=True)
                span.to.copy_(there, non_blocking=True)
            self._sent[turn] = self._stream.record_event()


@cache
def _streams(device: torch.device, count: int) -> tuple[torch.cuda.Stream, ...]:
    """The streams of a reader's threads, always the same."""
    return tuple(torch.cuda.Stream(device) for _ in range(count))


def _pieces(
    file: int, name: str, chosen: Sequence[_Chosen], bytes_max: int, *, is_mapped: bool = False
) -> Iterator[_Piece]:
    """What is read at one time: a part of a large tensor, or small ones that lie side by side."""
    begin = end = 0
    spans: list[_Span] = []
    for one in chosen:
        step = bytes_max // one.dtype.itemsize
        for at in range(0, one.memory.numel(), step):
            span = _Span(one.memory[at : at + step], one.dtype)
            here = one.begin + at * one.dtype.itemsize
            is_full = end - begin + span.bytes > bytes_max or len(spans) == _SPANS_MAX
            if spans and (here != end or is_full):
                yield _Piece(file, name, begin, tuple(spans), is_mapped)
                spans = []
            if not spans:
                begin = here
            spans.append(span)
            end = here + span.bytes
    if spans:
        yield _Piece(file, name, begin, tuple(spans), is_mapped)


def _populate(piece: _Piece) -> None:
    """Have a piece of a mapping in memory, and wait for it."""
    first, last = piece.spans[0].to, piece.spans[-1].to
    begin = first.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    count = last.data_ptr() + last.nbytes - begin
    os.posix_fadvise(piece.file, piece.begin, count, os.POSIX_FADV_WILLNEED)  # all at once
    if not _LIBC.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(count), _POPULATE_READ):
        return
    if ctypes.get_errno() != errno.EINVAL:  # the file isn't as long any more, or its disk fails
        raise ModelBroken(f"{piece.name} can't be read: {os.strerror(ctypes.get_errno())}")
    for span in piece.spans:  # an older kernel: page by page
        _raw(span.to)[:: mmap.PAGESIZE].tobytes()


def _read(piece: _Piece, parts: list[memoryview]) -> None:
    """Fill all parts with the file's bytes from where the piece begins."""
    at = piece.begin
    while parts:
        try:
            count = os.preadv(piece.file, parts, at)
        except OSError as error:
            raise ModelBroken(f"{piece.name} can't be read: {error.strerror}") from error
        if not count:
            raise ModelBroken(f"{piece.name} was cut short while it was read")
        at += count
        while parts and count >= len(parts[0]):
            count -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][count:]


def _raw(tensor: torch.Tensor) -> memoryview:
    """The memory of a tensor (n,) on the CPU."""
    return memoryview(tensor.view(torch.uint8).numpy())


def _dtype(path: Path, name: str, tensor: Tensor) -> torch.dtype:
    if tensor.dtype not in DTYPES:
        raise ModelBroken(
            f"{path.name}: {name} is of {tensor.dtype}", field=path.name, limit=[*DTYPES]
        )
    return DTYPES[tensor.dtype]
