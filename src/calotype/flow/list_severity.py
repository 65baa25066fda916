"""Lists of known pictures as an operator takes them in, and what a match in each means.

A list is one of known abuse unless somebody says that it isn't; who did, and why, is in the audit
trail before the list says so.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.jobs.store import JobStore
from calotype.safety import hash_lists

SUBJECT, BY = "hash_lists", "operator"  # of the trail's entries


async def add(
    store: JobStore, folder: Path, file: Path, name: str, *, is_severe: bool, reason: str
) -> int:
    """Keep a list among those of a folder; how many hashes it has.

    Raises OperatorError for a list that can't be read, InvalidInput where no reason is given for
    one that is ordinary.
    """
    hash_lists.check_name(name)
    if not is_severe:
        _check(reason)
    read = await asyncio.to_thread(hash_lists.read, file)
    digest = hashlib.sha256(read.hashes.tobytes()).hexdigest()
    about = {"list": name, "hashes": len(read.hashes), "sha256": digest}
    told = {**about, "is_severe": is_severe, "reason": reason}
    await store.people.audit.note(SUBJECT, "list_added", BY, told)
    return await asyncio.to_thread(hash_lists.added, file, folder, name, is_severe=is_severe)


async def change(store: JobStore, folder: Path, name: str, *, is_severe: bool, reason: str) -> bool:
    """Say whether a match in a list is severe; False if it was so already.

    Raises OperatorError for a list that isn't there, InvalidInput without a reason.
    """
    hash_lists.check_name(name)
    _check(reason)
    path = folder / f"{name}{hash_lists.SUFFIX}"
    if (await asyncio.to_thread(hash_lists.read, path)).is_severe == is_severe:
        return False
    told = {"list": name, "is_severe": is_severe, "reason": reason}
    await store.people.audit.note(SUBJECT, "list_severity", BY, told)
    return await asyncio.to_thread(hash_lists.set_severity, folder, name, is_severe=is_severe)


def _check(reason: str) -> None:
    most = limits.REASON_CHARS_MAX
    if not reason.strip() or len(reason) > most:
        raise InvalidInput(
            f"say why a match in it isn't severe, or is: 1 to {most:,} characters",
            field="reason",
            limit={"max_chars": most},
        )
