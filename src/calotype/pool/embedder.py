"""A process that turns pictures into rows of numbers by a frozen encoder: torch lives there alone.

For commands, one picture after the other; it knows nothing of labels or of training.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from calotype.core import limits
from calotype.core.errors import InvalidInput, OperatorError

COMMAND = (sys.executable, "-m", "calotype.engine.checks.embedding")
_HEAD = struct.Struct(">II")  # height, width
_SAID_CHARS = 500


class Embedder:
    """A running encoder. A context manager: its process ends with the block."""

    def __init__(self, encoder: Path, pack_into: Path) -> None:
        """Start it; ``pack_into`` is a folder that gets the encoder's weights.

        Raises InvalidInput for a folder that is no encoder, OperatorError if the process ends.
        """
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        self._process = subprocess.Popen(
            [*COMMAND, "--encoder", str(encoder.absolute()), "--pack", str(pack_into)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
        )
        try:
            self.said = self._begin()
        except BaseException:
            self._end()
            raise
        self.width = int(self.said["width"])

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A picture, height x width x 3 RGB, as ``width`` numbers; raises OperatorError."""
        stdin, stdout = self._pipes()
        height, width, _ = pixels.shape
        try:
            stdin.write(_HEAD.pack(height, width) + pixels.tobytes())
            stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        raw = stdout.read(4 * self.width)
        if len(raw) < 4 * self.width:
            raise self._ended()
        row = np.frombuffer(raw, "<f4").astype(np.float32)
        if not np.isfinite(row).all():
            raise OperatorError("the encoder gives no numbers", field="encoder")
        return row

    def _begin(self) -> dict[str, Any]:
        _, stdout = self._pipes()
        try:
            said = json.loads(stdout.readline(limits.MODEL_JSON_BYTES_MAX))
        except ValueError as error:
            raise self._ended() from error
        if not isinstance(said, dict):
            raise self._ended()
        if "error" in said:
            raise InvalidInput(str(said["error"]), field="encoder")
        return said

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _ended(self) -> OperatorError:
        self._process.kill()
        self._process.wait()
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        said = lines[-1][:_SAID_CHARS] if lines else "it said nothing"
        return OperatorError(f"the encoder's process ended: {said}", field="encoder")

    def _end(self) -> None:
        stdin, stdout = self._pipes()
        self._process.kill()  # what it hasn't answered nobody wants
        self._process.wait()
        for pipe in (stdin, stdout, self._printed):
            try:
                pipe.close()
            except BrokenPipeError:  # bytes that were never sent
                continue
