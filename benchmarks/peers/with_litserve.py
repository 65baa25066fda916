"""LitServe behind the engine's messages: each row is a POST to its server on this machine."""

from __future__ import annotations

import argparse
import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from benchmarks.peers.batches import WORKERS, Steps, steps, to_json
from calotype.core.errors import InternalError
from calotype.core.limits import ENGINE_START_S_MAX
from calotype.core.messages import LoadModel, RunRow
from calotype.engine.plain_server import Draw, OnStep, serve

_POLL_S = 0.1
_END_S_MAX = 5.0


@contextmanager
def litserve(command: LoadModel) -> Iterator[Draw]:
    """Start the server with this model; give a function that has it draw; end it."""
    port = _free_port()
    with steps() as told, _process(command.path, told.at, port) as process, _client(port) as client:
        _await(client, process)

        def draw(row: RunRow, on_step: OnStep) -> bytes:
            return _post(client, told, row, on_step)

        yield draw


def _post(client: httpx.Client, told: Steps, row: RunRow, on_step: OnStep) -> bytes:
    with told.of(row, on_step):
        answer = client.post("/predict", json={"row": to_json(row)})
    answer.raise_for_status()
    return base64.b64decode(answer.json()["picture"])


def _client(port: int) -> httpx.Client:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    address = f"http://127.0.0.1:{port}"
    return httpx.Client(base_url=address, timeout=None, limits=limits, trust_env=False)  # noqa: S113


@contextmanager
def _process(folder: str, steps_at: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.peers.litserve_server", "--model", folder]
    command += ["--steps-at", steps_at, "--port", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
        with suppress(ProcessLookupError):  # it left nothing
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + ENGINE_START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise InternalError(f"LitServe ended at once, with {process.returncode}")
        try:
            if client.get("/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # it doesn't listen yet
        time.sleep(_POLL_S)
    raise InternalError(f"LitServe wasn't ready after {ENGINE_START_S_MAX:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.peers.with_litserve", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the client")
    serve(parser.parse_args().fd, litserve, WORKERS)
