"""Which jobs try a new version: a share of them, by their ids alone.

The same job gets the same answer, today and in a replay, whoever asks; another alias shares its
canaries out anew.
"""

from __future__ import annotations

import hashlib

_BITS = 64


def is_chosen(job_id: str, alias: str, share: float) -> bool:
    """Whether this job is among the ``share`` (0..1) of an alias's jobs that try its canary."""
    digest = hashlib.sha256(f"{alias}\0{job_id}".encode()).digest()
    return int.from_bytes(digest[: _BITS // 8], "big") < share * 2.0**_BITS
