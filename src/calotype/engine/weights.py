"""Weights from files straight into the memory where they stay: header first, then every byte once.

Nothing is mapped. A mapped parameter would cost no copy, but a file that is cut short under it
ends the process (SIGBUS), one that is written to changes pictures without a word, the kernel may
drop its pages and read them again in mid-pass, and it begins wherever the file puts it: PyTorch's
own memory begins at multiples of 64 bytes, and products of weights that don't may round otherwise,
so a model's pictures would depend on how its file is laid out. ``docs/pool.md`` has what that
costs.

On a GPU the bytes go through pinned memory, two buffers a thread, each thread with a stream of its
own: one buffer is filled from the file while the other is on its way. That path has been read
carefully and never run: there was no GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from calotype.core.errors import ModelBroken
from calotype.core.headers import Header, Tensor
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
_THREADS = 4  # a disk answers several at once; more brought nothing
_PIECE_BYTES = 16 * 1024**2  # read at one time
_SPANS_MAX = 512  # tensors in one piece: the kernel takes 1,024
_ALIGNED = 64  # bytes, of what is converted: so its kernels see what they like
_HUGE_BYTES = 2 * 1024**2
_MADV_HUGEPAGE = 14
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
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
        found: dict[str, torch.Tensor] = {}
        chosen: list[tuple[Tensor, torch.dtype, torch.Tensor]] = []
        for name, tensor in header.tensors.items():
            dtype = _dtype(path, name, tensor)
            if (to := wanted(name, dtype)) is None:
                continue
            found[name] = _memory(tensor.shape, to, self._device)
            chosen.append((tensor, dtype, found[name].view(-1)))
        if self._device.type == "cuda":  # what had this memory before is done with it
            torch.cuda.current_stream(self._device).synchronize()
        pieces = [*_pieces(file, path.name, header, chosen)]
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

    def _fill(self, piece: _Piece) -> None:
        direct = [it.to.dtype == it.dtype and it.to.device.type == "cpu" for it in piece.spans]
        if all(direct):
            _read(piece, [_raw(span.to) for span in piece.spans])
        else:
            self._staging().fill(piece)
        with self._counting:
            self._done += sum(span.bytes for span in piece.spans)
            if self._progress is not None:
                self._progress(self._done, self._total)

    def _staging(self) -> _Staging:
        if not hasattr(self._own, "staging"):
            self._own.staging = _Staging(self._device)
        staging: _Staging = self._own.staging
        return staging


class _Staging:
    """One thread's memory between file and tensors, where bytes can't go there directly."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_gpu = device.type == "cuda"
        count = 2 if self._is_gpu else 1
        size = _PIECE_BYTES + _SPANS_MAX * _ALIGNED
        self._buffers = [
            torch.empty(size, dtype=torch.uint8, pin_memory=self._is_gpu) for _ in range(count)
        ]
        self._turn = 0
        self._stream = torch.cuda.Stream(device) if self._is_gpu else None
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
            for span, part in zip(piece.spans, parts, strict=True):
                span.to.copy_(part.view(span.dtype))
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for span, part in zip(piece.spans, parts, strict=True):
                there = part.view(span.dtype)
                if span.dtype != span.to.dtype:  # converted there: a copy does it on the host
                    there = there.to(self._device, non_blocking=True)
                span.to.copy_(there, non_blocking=True)
            self._sent[turn] = self._stream.record_event()


def _pieces(
    file: int,
    name: str,
    header: Header,
    chosen: Sequence[tuple[Tensor, torch.dtype, torch.Tensor]],
) -> Iterator[_Piece]:
    """What is read at one time: a part of a large tensor, or small ones that lie side by side."""
    begin = end = header.data_at
    spans: list[_Span] = []
    for tensor, dtype, memory in chosen:
        step = _PIECE_BYTES // dtype.itemsize
        for at in range(0, memory.numel(), step):
            span = _Span(memory[at : at + step], dtype)
            here = header.data_at + tensor.begin + at * dtype.itemsize
            is_full = end - begin + span.bytes > _PIECE_BYTES or len(spans) == _SPANS_MAX
            if spans and (here != end or is_full):
                yield _Piece(file, name, begin, tuple(spans))
                spans = []
            if not spans:
                begin = here
            spans.append(span)
            end = here + span.bytes
    if spans:
        yield _Piece(file, name, begin, tuple(spans))


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


def _memory(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of no particular values; a large one in huge pages, which come 512 at a time."""
    tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
    if device.type == "cpu" and _LIBC is not None and tensor.nbytes >= 2 * _HUGE_BYTES:
        begin = -(-tensor.data_ptr() // _HUGE_BYTES) * _HUGE_BYTES
        end = (tensor.data_ptr() + tensor.nbytes) // _HUGE_BYTES * _HUGE_BYTES
        # Advice: a kernel that can't, doesn't.
        _LIBC.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_HUGEPAGE)
    return tensor


def _dtype(path: Path, name: str, tensor: Tensor) -> torch.dtype:
    if tensor.dtype not in DTYPES:
        raise ModelBroken(
            f"{path.name}: {name} is of {tensor.dtype}", field=path.name, limit=[*DTYPES]
        )
    return DTYPES[tensor.dtype]
