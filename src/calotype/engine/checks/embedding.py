"""``python -m calotype.engine.checks.embedding``: turns pictures into rows of numbers, on a pipe.

Started by whoever trains a check, so that no other process has torch. First it writes a line of
JSON: what the encoder is, or what is wrong with it. Then for each picture it reads (height, width,
and the pixels, RGB bytes) it writes one row of float32. One picture at a time: what a picture
becomes doesn't depend on those beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO

HEAD = struct.Struct(">II")  # height, width


def main() -> None:
    """Serve the pipe until it is closed."""
    parser = argparse.ArgumentParser(prog="python -m calotype.engine.checks.embedding")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the encoder")
    parser.add_argument("--pack", type=Path, required=True, help="folder that gets its weights")
    asked = parser.parse_args()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    serve(sys.stdin.buffer, answers, asked.encoder, asked.pack)


def serve(pictures: BinaryIO, answers: BinaryIO, folder: Path, pack_into: Path) -> None:
    """Answer until there are no more pictures."""
    from calotype.engine.libraries import before_libraries

    before_libraries()
    import numpy as np
    import torch

    from calotype.engine.checks.base import CheckBroken
    from calotype.engine.checks.encoders import open_encoder, pack

    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)  # sums are split by threads, and training has to come again
    try:
        encoder = open_encoder(folder, torch.device("cpu"))
        pack(encoder, pack_into)
    except CheckBroken as error:
        _say(answers, {"error": error.detail})
        return
    _say(answers, encoder.said)
    with torch.inference_mode():
        while len(head := pictures.read(HEAD.size)) == HEAD.size:
            height, width = HEAD.unpack(head)
            raw = pictures.read(height * width * 3)
            pixels = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
            [row] = encoder.features([pixels]).numpy()
            answers.write(np.ascontiguousarray(row, "<f4").tobytes())
            answers.flush()


def _say(answers: BinaryIO, body: dict[str, object]) -> None:
    answers.write(json.dumps(body).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
