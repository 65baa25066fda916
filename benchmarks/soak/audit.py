"""What the database and the folder of pictures say afterwards, held against what was promised."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.soak.clients import Ask
from calotype.core.errors import IllegalMove
from calotype.core.states import JOB_MOVES, AttemptState, JobState, move

_MOVES_TO = {  # events that change a job's state; the others say how it goes on
    "queued": JobState.QUEUED,
    "started": JobState.RUNNING,
    "pending_safety": JobState.PENDING_SAFETY,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}


def audit(home: Path, asks: Iterable[Ask]) -> dict[str, Any]:
    """Counts, and a sentence for each promise that was broken."""
    database = sqlite3.connect(f"file:{home / 'calotype.db'}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    jobs = {row["id"]: row for row in database.execute("SELECT * FROM jobs")}
    logs = _grouped(database.execute("SELECT * FROM events ORDER BY job_id, seq"))
    attempts = _grouped(database.execute("SELECT * FROM attempts ORDER BY job_id, number"))
    images = _grouped(database.execute("SELECT * FROM images"))
    records = list(database.execute("SELECT * FROM picture_files"))
    database.close()
    lost = _lost(jobs, list(asks))
    twice = [said for job_id in jobs for said in _twice(job_id, logs, attempts, images)]
    illegal = [said for job_id in jobs for said in _illegal(jobs[job_id], logs.get(job_id, []))]
    files = _files(home / "pictures", records)
    states = Counter(row["state"] for row in jobs.values())
    return {
        "jobs": len(jobs),
        "states": dict(sorted(states.items())),
        "attempts": sum(len(rows) for rows in attempts.values()),
        "attempts_lost": sum(
            row["state"] == AttemptState.LOST for rows in attempts.values() for row in rows
        ),
        "most_attempts": max((len(rows) for rows in attempts.values()), default=0),
        "events": sum(len(rows) for rows in logs.values()),
        "failures": sorted({row["error"] for row in jobs.values() if row["error"]}),
        "lost": lost,
        "delivered_twice": twice,
        "illegal_paths": illegal,
        "wrong_files": files,
    }


def _lost(jobs: dict[str, sqlite3.Row], asks: list[Ask]) -> list[str]:
    """Jobs that were answered for and aren't over, and those that nobody's key stands for."""
    said = []
    for ask in asks:
        ids = set(ask.job_ids)
        if len(ids) != 1:
            said.append(f"key {ask.key} stands for {len(ids)} jobs")
        for job_id in ids:
            if job_id not in jobs:
                said.append(f"{job_id} is not in the database")
            elif not JobState(jobs[job_id]["state"]).is_final:
                said.append(f"{job_id} is {jobs[job_id]['state']} for ever")
    unasked = jobs.keys() - {job_id for ask in asks for job_id in ask.job_ids}
    return said + [f"{job_id} is in the database and nobody has it" for job_id in sorted(unasked)]


def _twice(job_id: str, logs: Any, attempts: Any, images: Any) -> list[str]:
    ends = Counter(row["kind"] for row in logs.get(job_id, []))["succeeded"]
    done = sum(row["state"] == AttemptState.DONE for row in attempts.get(job_id, []))
    pictures = Counter(row["index"] for row in images.get(job_id, []))
    said = []
    if ends > 1 or done > 1 or ends != done:
        said.append(f"{job_id} succeeded {ends} times, by {done} attempts")
    if pictures and max(pictures.values()) > 1:
        said.append(f"{job_id} has two pictures of one image")
    if bool(pictures) != bool(ends):
        said.append(f"{job_id} succeeded {ends} times and has {len(pictures)} images")
    return said


def _illegal(job: sqlite3.Row, log: list[sqlite3.Row]) -> list[str]:
    """The log read as moves of the state table."""
    job_id: str = job["id"]
    state: JobState | None = None
    if [row["seq"] for row in log] != list(range(1, job["log_length"] + 1)):
        return [f"{job_id}: its log has gaps"]
    for row in log:
        if (after := _MOVES_TO.get(row["kind"])) is None:
            if state is None or state.is_final:
                return [f"{job_id}: {row['kind']} while {state}"]
            continue
        if state is None and after is not JobState.QUEUED:
            return [f"{job_id}: begins with {row['kind']}"]
        try:
            state = after if state is None else move(JOB_MOVES, state, after)
        except IllegalMove as error:
            return [f"{job_id}: {error.detail}"]
    return [] if state == job["state"] else [f"{job_id} is {job['state']}, its log says {state}"]


def _files(folder: Path, records: list[sqlite3.Row]) -> list[str]:
    """Each file of a delivered picture lies there as it was signed, and nothing else does."""
    named = {row["name"]: row["sha256"] for row in records}
    found = [path for path in folder.rglob("*") if path.is_file()]
    lying = {path.relative_to(folder).as_posix(): path for path in found}
    said = [
        f"{name} isn't the picture that was signed"
        for name, sha256 in named.items()
        if name in lying and hashlib.sha256(lying[name].read_bytes()).hexdigest() != sha256
    ]
    said += [f"{name} belongs to no job" for name in sorted(lying.keys() - named)]
    return said + [f"{name} is missing" for name in sorted(named.keys() - lying)]


def _grouped(rows: Iterable[sqlite3.Row]) -> dict[str, list[sqlite3.Row]]:
    found: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        found.setdefault(row["job_id"], []).append(row)
    return found
