"""A LitServe server that batches requests on a plain pipeline; started by ``with_litserve``.

It listens on the loopback address only and ends, with all it started, when its stdin closes.
LitServe reads annotations as they are, so this module doesn't put them off as others do.
"""

import argparse
import base64
import os
import signal
import threading
from typing import Any

import litserve

from benchmarks.peers.batches import BATCH_MAX, BATCH_WAIT_S, draw_batch
from calotype.engine.plain_server import Plain


class Pictures(litserve.LitAPI):
    """A row in JSON in, a picture's raw bytes in base64 out."""

    def __init__(self, folder: str, steps_at: str) -> None:
        super().__init__(max_batch_size=BATCH_MAX, batch_timeout=BATCH_WAIT_S)
        self._folder, self._steps_at = folder, steps_at

    def setup(self, device: Any) -> None:
        """Load the pipeline, in the process that draws."""
        self._plain = Plain(self._folder)

    def decode_request(self, request: litserve.Request) -> str:
        """The row, still as text; what comes is the body, parsed, whatever LitServe calls it."""
        return str(request["row"])

    def batch(self, inputs: Any) -> list[str]:
        """Texts stay a list: no tensor is made of them."""
        return list(inputs)

    def predict(self, x: Any) -> list[bytes]:
        """LitServe's batch, split into what one pipeline call can draw."""
        return draw_batch(self._plain, x, self._steps_at)

    def unbatch(self, output: Any) -> Any:
        """One picture a request."""
        return output

    def encode_response(self, output: Any) -> dict[str, str]:
        """JSON for the client."""
        return {"picture": base64.b64encode(output).decode()}


def _end_with_stdin() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock, held while it waits, would stop forked children
        pass
    os.killpg(0, signal.SIGKILL)  # a session of our own: this process and its workers


def main() -> None:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers.litserve_server", description=__doc__)
    parser.add_argument("--model", required=True, help="diffusers folder")
    parser.add_argument("--steps-at", required=True, help="socket that is told of steps")
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    server = litserve.LitServer(
        Pictures(asked.model, asked.steps_at), accelerator="auto", devices=1, timeout=False
    )
    server.run(
        host="127.0.0.1",
        port=asked.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
