"""The Ray Serve deployment that batches requests on a plain pipeline; started by ``with_ray``."""

from __future__ import annotations

import asyncio

from ray import serve

from benchmarks.peers.batches import BATCH_MAX, BATCH_WAIT_S, WORKERS, draw_batch
from calotype.engine.plain_server import Plain


# No cores reserved: Ray's own actors need a place, too. torch takes all of them, as for all peers.
@serve.deployment(max_ongoing_requests=WORKERS, ray_actor_options={"num_cpus": 0})
class Pictures:
    """A row as JSON text in, a picture's raw bytes out."""

    def __init__(self, folder: str, steps_at: str) -> None:
        self._plain = Plain(folder)
        self._steps_at = steps_at

    async def __call__(self, text: str) -> bytes:
        """Wait for a batch, and the picture."""
        picture: bytes = await self._batch(text)
        return picture

    @serve.batch(max_batch_size=BATCH_MAX, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _batch(self, texts: list[str]) -> list[bytes]:
        """Ray's batch, split into what one pipeline call can draw; the next one fills meanwhile."""
        return await asyncio.to_thread(draw_batch, self._plain, texts, self._steps_at)
