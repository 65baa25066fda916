"""Identifiers: a prefix that says what it names, then 26 characters.

They sort by time (ULID), or are made of what they name.
"""

from __future__ import annotations

import hashlib
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32


def new_id(prefix: str) -> str:
    """Make e.g. ``job_01JD...``: 48 bits of Unix milliseconds, 80 bits of chance."""
    return _written(prefix, (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80))


def content_id(prefix: str, *parts: bytes) -> str:
    """The same for the same parts, e.g. ``pic_7ZC0...``: 130 bits of their SHA-256."""
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
    return _written(prefix, int.from_bytes(digest, "big") >> (256 - 130))


def _written(prefix: str, number: int) -> str:
    characters = [_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(characters)}"
