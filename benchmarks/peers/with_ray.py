"""Ray Serve behind the engine's messages: each row is a call of its deployment's handle.

No HTTP proxy is started: that only spares Ray work on two cores. Ray opens its ports on the
loopback address, but for one of each replica, which it opens on all and has no setting for. If our
process is killed, Ray's own reaper ends what it started.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve as ray_serve

from benchmarks.peers.batches import WORKERS, steps, to_json
from benchmarks.peers.ray_deployment import Pictures
from calotype.core.messages import LoadModel, RunRow
from calotype.engine.plain_server import Draw, OnStep, serve

_OBJECTS_BYTES = 128 * 1024 * 1024  # of Ray's object store; its own choice is a third of memory


@contextmanager
def ray_serving(command: LoadModel) -> Iterator[Draw]:
    """Start Ray and the deployment with this model; give a function that has it draw; end both."""
    ray.init(
        address="local",
        object_store_memory=_OBJECTS_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        ray_serve.start(proxy_location="Disabled")
        with steps() as told:
            deployment: Any = Pictures  # the decorator made one of it
            handle = ray_serve.run(deployment.bind(command.path, told.at))

            def draw(row: RunRow, on_step: OnStep) -> bytes:
                with told.of(row, on_step):
                    picture: bytes = handle.remote(to_json(row)).result()
                return picture

            yield draw
            ray_serve.shutdown()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.peers.with_ray", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the client")
    serve(parser.parse_args().fd, ray_serving, WORKERS)
