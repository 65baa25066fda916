"""What passes take, in seconds and bytes: measured once for each size of picture, kept on disk.

A measurement is good for the weights, the machine and the software it was made with, so these name
the file it is in. Which batch sizes keep the bits is not kept: the proof is the promise of the same
pixels, a file that came from elsewhere must not break it, and it costs two passes of each size.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from calotype.core import limits
from calotype.core.cost import Curve
from calotype.engine.buckets import Denoise, Work
from calotype.engine.families.base import Model
from calotype.engine.forwards import Forwards
from calotype.engine.memory import peak_bytes

FOLDER_VARIABLE = "CALOTYPE_ENGINE_FOLDER"  # where engines keep what they measured
# Of timed passes. The quickest counts: what else the machine does only adds, by chance to one size
# and not to another, and on disk it would stay so. (With ten other processes on two cores medians
# made a pass of 4 take 2.8 times one of 2; undisturbed it is 1.7 times.)
_ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """What one size of picture costs on this machine."""

    buckets: tuple[int, ...]  # proven: the same bits in each
    pass_s: tuple[float, ...]  # of a pass in each
    pass_bytes: tuple[int, ...]  # that a pass in each needs, beside weights and rows
    image_s: float  # to encode a text and decode a picture
    decode_bytes: int  # that a decode needs

    @property
    def curve(self) -> Curve:
        """The passes' seconds, for the policy."""
        return Curve(self.buckets, self.pass_s)

    def bytes_of(self, bucket: int) -> int:
        """That a pass of so many forwards needs; one that fits no batch goes one by one."""
        for size, count in zip(self.buckets, self.pass_bytes, strict=True):
            if size >= bucket:
                return count
        return self.pass_bytes[0]

    def up_to(self, bucket: int) -> Measured:
        """Of the smaller batches only; ``bucket`` is the largest that stays."""
        count = self.buckets.index(bucket) + 1
        return replace(
            self,
            buckets=self.buckets[:count],
            pass_s=self.pass_s[:count],
            pass_bytes=self.pass_bytes[:count],
        )

    @property
    def room_bytes(self) -> int:
        """What the largest pass and a decode beside it need."""
        return max(self.pass_bytes) + self.decode_bytes


def measure(
    model: Model,
    denoise: Denoise,
    latents: torch.Tensor,
    sample: Forwards,
    buckets: tuple[int, ...],
    *,
    clock: Callable[[], float],
) -> Work[Measured]:
    """Time passes of each size, a text and a decode of one picture's latents.

    ``sample`` holds forwards for the largest pass. The sizes take turns, so that a machine that is
    busy for a moment is so for all of them.
    """
    passes = [partial(denoise, sample.take(*range(bucket))) for bucket in buckets]
    decode = partial(model.decode, latents)

    def timed(run: Callable[[], object]) -> float:
        begun_s = clock()
        run()
        return max(clock() - begun_s, 1e-6)  # no clock is so fine that a pass takes none

    rounds: list[list[float]] = []
    while not rounds or (len(rounds) < _ROUNDS and _sum(rounds) < limits.CURVE_S_MAX):
        rounds.append([])
        for one in passes:
            rounds[-1].append(timed(one))
            yield
    pass_bytes = []
    for one in passes:
        pass_bytes.append(peak_bytes(one, model.device))
        yield
    decode_bytes = peak_bytes(decode, model.device)  # also what warms it up
    yield
    return Measured(
        buckets,
        tuple(min(of_one) for of_one in zip(*rounds, strict=True)),
        tuple(pass_bytes),
        timed(partial(model.encode, "")) + timed(decode),
        decode_bytes,
    )


def _sum(rounds: list[list[float]]) -> float:
    return sum(sum(one) for one in rounds)


class CurveStore:
    """Measurements of earlier starts. Without a folder, or if it can't be used, there are none."""

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._folder, self._device = folder, device

    def get(
        self, model: Model, width: int, height: int, buckets: tuple[int, ...]
    ) -> Measured | None:
        """What was measured for these buckets, or None."""
        body = self._read(model).get(f"{width}x{height}")
        try:
            kept = Measured(**{name: _frozen(value) for name, value in (body or {}).items()})
        except TypeError:  # of another version
            return None
        return kept if kept.buckets == buckets else None

    def put(self, model: Model, width: int, height: int, measured: Measured) -> None:
        """Keep it, the oldest going if there are too many; a disk that won't have it is told of."""
        if self._folder is None:
            return
        sizes = self._read(model)
        sizes.pop(f"{width}x{height}", None)
        sizes[f"{width}x{height}"] = asdict(measured)
        sizes = dict([*sizes.items()][-limits.SIZES_PROVEN_MAX :])
        body = {"made_with": self._made_with(model), "sizes": sizes}
        path = self._path(model, self._folder)
        draft = path.with_suffix(f".{os.getpid()}")  # another engine may write the same
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(body, indent=1))
            draft.replace(path)
        except OSError as error:
            print(f"what was measured can't be kept: {error}", file=sys.stderr, flush=True)

    def _read(self, model: Model) -> dict[str, Any]:
        if self._folder is None:
            return {}
        try:
            sizes = json.loads(self._path(model, self._folder).read_text())["sizes"]
            return dict(sizes)
        except (OSError, ValueError, TypeError, KeyError):  # none yet, or cut short: measured again
            return {}

    def _path(self, model: Model, folder: Path) -> Path:
        facts = json.dumps(self._made_with(model), sort_keys=True)
        return folder / f"curves-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"

    def _made_with(self, model: Model) -> dict[str, object]:
        """All that a pass's time depends on, but its size."""
        return {
            "build": model.build,
            "denoiser": type(model.denoiser).__name__,  # another class once it is compiled
            "dtype": str(model.denoiser.dtype),
            "bytes": model.parameter_bytes,  # fewer when quantised
            "device": device_name(self._device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads() if self._device.type == "cpu" else 0,
        }


def device_name(device: torch.device) -> str:
    """The device's make: the GPU's, or the processor's with the instructions torch uses there."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
