"""The soak's audit finds what it is there for: each broken promise in a store kept well."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from benchmarks.soak.audit import audit
from benchmarks.soak.clients import Ask
from calotype.core.nouns import Image, ImageFile, Job, Sampler, Spec, Tier, Verdict, VerdictKind
from calotype.core.states import AttemptState
from calotype.delivery.names import stored_name
from calotype.jobs.store import JobStore

SPEC = Spec("a tent", "", "m", 64, 64, 4, 3.0, Sampler.DPMPP_2M, 7, 1)
PNG = b"a signed picture"
DIGEST = hashlib.sha256(PNG).hexdigest()
_TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
PROMISES = ("lost", "delivered_twice", "illegal_paths", "wrong_files")


async def kept_well(home: Path) -> tuple[list[Job], list[Ask]]:
    """Three jobs: one succeeded after a lost attempt, one was cancelled, one failed."""
    store = await JobStore.open(f"sqlite+aiosqlite:///{home / 'calotype.db'}")
    jobs = [await store.insert("ann", Tier.FAST, SPEC) for _ in range(3)]
    first = await store.lease(jobs[0].id, "e0")
    await store.requeue(first, "it is gone", outcome=AttemptState.LOST)
    again = await store.lease(jobs[0].id, "e1")
    name = f"img_{jobs[0].id[4:]}"
    await store.succeed(again, [image(name)])
    await store.cancel(jobs[1].id, by="caller")
    await store.fail(jobs[2].id, {"title": "no"})
    await store.close()
    write(home, stored_name("fast", name, DIGEST, "png"))
    return jobs, [Ask("ann", job.id[-8:], 1, [job.id], 1) for job in jobs]


def image(name: str) -> Image:
    allowed = Verdict(VerdictKind.ALLOW, "looks", "1")
    file = ImageFile("png", 0, stored_name("fast", name, DIGEST, "png"), DIGEST, len(PNG))
    return Image(name, 0, 7, 64, 64, DIGEST, "b" * 64, ("png",), (file,), verdict=allowed)


def write(home: Path, name: str, data: bytes = PNG) -> None:
    path = home / "pictures" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def test_nothing_is_said_of_a_store_that_was_kept_well(tmp_path: Path) -> None:
    _, asks = await kept_well(tmp_path)
    found = audit(tmp_path, asks)
    assert [found[promise] for promise in PROMISES] == [[], [], [], []]
    assert found["states"] == {"cancelled": 1, "failed": 1, "succeeded": 1}
    assert (found["attempts"], found["attempts_lost"], found["most_attempts"]) == (2, 1, 2)


@pytest.mark.parametrize(
    ("change", "promise", "says"),
    [
        ("UPDATE jobs SET state = 'running' WHERE id = :id", "lost", "is running for ever"),
        ("UPDATE attempts SET state = 'done'", "delivered_twice", "succeeded 1 times, by 2"),
        ("DELETE FROM images", "delivered_twice", "succeeded 1 times and has 0 images"),
        (
            "UPDATE events SET kind = 'succeeded' WHERE job_id = :id AND kind = 'started'",
            "illegal_paths",
            "queued can't become succeeded",
        ),
        ("DELETE FROM events WHERE seq = 2", "illegal_paths", "its log has gaps"),
        (
            "UPDATE events SET kind = 'step' WHERE job_id = :id AND seq = 1",
            "illegal_paths",
            "step while None",
        ),
        (
            "UPDATE picture_files SET sha256 = 'other'",
            "wrong_files",
            "isn't the picture that was signed",
        ),
        ("UPDATE picture_files SET name = 'other.png'", "wrong_files", "other.png is missing"),
    ],
)
async def test_a_broken_promise_is_found(
    tmp_path: Path, change: str, promise: str, says: str
) -> None:
    jobs, asks = await kept_well(tmp_path)
    database = sqlite3.connect(tmp_path / "calotype.db")
    for (trigger,) in list(database.execute(_TRIGGERS)):
        database.execute(f"DROP TRIGGER {trigger}")  # they would keep the log from harm
    database.execute(change, {"id": jobs[0].id} if ":id" in change else {})
    database.commit()
    database.close()
    assert any(says in said for said in audit(tmp_path, asks)[promise])


async def test_what_clients_were_told_is_held_against_it(tmp_path: Path) -> None:
    _, asks = await kept_well(tmp_path)
    write(tmp_path, "img_stray.png")
    asks[0].job_ids.append("job_unknown")
    asks[1].job_ids.clear()
    found = audit(tmp_path, asks)
    assert any("stands for 2 jobs" in said for said in found["lost"])
    assert "job_unknown is not in the database" in found["lost"]
    assert any("nobody has it" in said for said in found["lost"])
    assert found["wrong_files"] == ["img_stray.png belongs to no job"]
