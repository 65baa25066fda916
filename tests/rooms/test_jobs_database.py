"""The database itself: migrations, settings, what can't be opened, two processes; and keys."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from calotype.core import limits
from calotype.core.errors import InvalidInput, NotFound, OperatorError, Unauthorized
from calotype.core.nouns import Sampler, Spec, Tier
from calotype.jobs import alone, tables
from calotype.jobs.store import JobStore
from tests.postgres import Postgres

SPEC = Spec("a tent", "", "vignette", 64, 64, 4, 3.5, Sampler.EULER, 7, 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def sqlite(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


# Opening.


async def test_models_and_migrations_agree(store: JobStore) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, tables.metadata))

    async with store._database._writer.connect() as conn:
        assert await conn.run_sync(differences) == []
        await conn.exec_driver_sql("DROP INDEX ix_jobs_tenant_number")
        assert len(await conn.run_sync(differences)) == 1, "the comparison can fail"
        await conn.rollback()


async def test_every_connection_has_the_settings_that_writers_rely_on(
    file: Path, shipped_synchronous: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.jobs.sqlite.SYNCHRONOUS", shipped_synchronous)
    store = await JobStore.open(sqlite(file))
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    async with store._database.reading() as one, store._database.reading() as two:
        for conn in (one, two):
            found = {
                name: (await conn.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in expected
            }
            assert found == expected
    await store.close()


async def test_a_reader_sees_one_moment_and_can_not_write(store: JobStore) -> None:
    job = await store.insert("ada", Tier.RELAX, SPEC)
    states = select(tables.jobs.c.state)
    async with store._database.reading() as conn:
        before = (await conn.execute(states)).scalar_one()
        await store.cancel(job.id, by="caller")
        assert (await conn.execute(states)).scalar_one() == before == "queued"
        if conn.dialect.name == "postgresql":
            with pytest.raises(DBAPIError, match="read-only"):
                await conn.execute(delete(tables.jobs))


async def test_a_row_that_points_nowhere_is_refused(store: JobStore) -> None:
    orphan = {"job_id": "job_unknown", "seq": 1, "kind": "step", "at": datetime.now(UTC)}
    with pytest.raises(IntegrityError):
        async with store._database.writing() as conn:
            await conn.execute(insert(tables.events).values(**orphan, data={}))


async def test_times_are_utc_whatever_zone_they_came_in(store: JobStore) -> None:
    noon = datetime(2026, 5, 1, 12, 0, 0, 123456, timezone(timedelta(hours=2)))
    values = {"id": "k", "tenant": "t", "name": "n", "scopes": [], "digest": "d"}
    async with store._database.writing() as conn:
        await conn.execute(insert(tables.keys).values(**values, created_at=noon))
    [key] = await store.list_keys()
    assert key.created_at == noon
    assert key.created_at.tzinfo is UTC
    naive = insert(tables.keys).values(**values, created_at=noon.replace(tzinfo=None))
    with pytest.raises(StatementError, match="without a zone"):
        async with store._database.writing() as conn:
            await conn.execute(naive)


async def test_opening_again_changes_nothing(store: JobStore, database_url: str) -> None:
    job = await store.insert("ada", Tier.RELAX, SPEC)
    again = await JobStore.open(database_url)
    assert await again.get(job.id) == job
    await again.close()


async def test_many_may_open_a_new_database_at_once(database_url: str) -> None:
    stores = await asyncio.gather(*(JobStore.open(database_url) for _ in range(4)))
    for opened in stores:
        await opened.insert("ada", Tier.FAST, SPEC)
    assert await stores[0].count_queued() == 4
    for opened in stores:
        await opened.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "parse"),
        ("sqlite+aiosqlite:////no/such/folder/jobs.db", "unable to open database file"),
        ("sqlite+aiosqlite://", "must be a file"),
        ("sqlite+aiosqlite:///:memory:", "must be a file"),
        ("sqlite:///jobs.db", "not async"),
        ("postgresql+psycopg2://host/jobs", "not async"),
        ("postgresql://me@127.0.0.1:1/jobs", "refused|Connect call failed"),
        ("postgresql:///jobs?host=/no/such/socket", "No such file"),
        ("mysql+aiomysql://host/jobs", "sqlite or postgresql"),
        ("nosuch+driver://host/jobs", "nosuch"),
    ],
)
async def test_what_can_not_be_opened_is_told_in_a_sentence(url: str, reason: str) -> None:
    with pytest.raises(OperatorError, match=reason) as refused:
        await JobStore.open(url)
    assert "database" in refused.value.detail
    assert "\n" not in refused.value.detail


def test_a_file_that_is_no_database_is_left_alone(file: Path) -> None:
    file.write_bytes(b"my holiday notes " * 100)
    with pytest.raises(OperatorError, match="not a database"):
        asyncio.run(JobStore.open(sqlite(file)))
    assert file.read_bytes() == b"my holiday notes " * 100


async def test_a_database_of_a_newer_version_is_refused(store: JobStore, database_url: str) -> None:
    async with store._database.writing() as conn:
        await conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OperatorError, match="9999"):
        await JobStore.open(database_url)


async def test_a_postgresql_database_that_is_not_there_is_told_by_name(postgres: Postgres) -> None:
    with pytest.raises(OperatorError, match='database "nosuch" does not exist'):
        await JobStore.open(f"postgresql://postgres@/nosuch?host={postgres.folder}")


async def test_a_password_stays_out_of_the_sentence() -> None:
    with pytest.raises(OperatorError) as refused:
        await JobStore.open("nosuch+driver://me:hunter2@host/jobs")
    assert "hunter2" not in refused.value.detail


@pytest.mark.parametrize("name", ["", "job_\0", "job_\ud800", "job_\N{SNOWMAN}", "x" * 10_000])
async def test_a_name_that_no_job_can_have_is_not_found(store: JobStore, name: str) -> None:
    with pytest.raises(NotFound):
        await store.get(name, tenant="ada")
    with pytest.raises(NotFound):
        await store.events(name)
    with pytest.raises(NotFound):
        await store.cancel(name, by="caller")
    with pytest.raises(NotFound):
        await store.pictures.image(name, tenant="ada")
    with pytest.raises(NotFound):
        await store.pictures.get(name, tenant="ada")
    with pytest.raises(InvalidInput):
        await store.list_jobs("ada", limit=1, before=name)
    assert await store.files.of(name) is None


# Another process beside ours.


async def test_a_postgresql_database_has_one_server_and_any_number_of_commands(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "SERVER_WAIT_S", 0.1)
    url = postgres.new_database()
    first, second = await JobStore.open(url), await JobStore.open(url)
    await first.serve_alone()
    with pytest.raises(OperatorError, match="another Calotype server") as refused:
        await second.serve_alone()
    assert refused.value.field == "database_url"
    second = await JobStore.open(url)
    await second.create_key(tenant="ada", name="beside it", scopes=[])
    monkeypatch.setattr(alone, "SERVER_WAIT_S", 60.0)  # PostgreSQL has yet to notice
    await first.close()
    await second.serve_alone()
    await second.close()


_MAKE_KEYS = """
import asyncio, sys
from calotype.jobs.store import JobStore

async def main():
    store = await JobStore.open(sys.argv[1])
    print("ready", flush=True)
    for number in range(40):
        await store.create_key(tenant="eve", name=f"key {number}", scopes=[])
    await store.close()

asyncio.run(main())
"""


async def test_the_command_line_can_write_while_the_server_does(
    store: JobStore, database_url: str
) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _MAKE_KEYS,
        database_url,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"ready\n"
    for _ in range(40):
        await store.insert("ada", Tier.FAST, SPEC)
    assert await other.wait() == 0
    assert await store.count_queued() == len(await store.list_keys()) == 40


async def test_a_writer_waits_for_another_processs_transaction(file: Path) -> None:
    store = await JobStore.open(sqlite(file))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(store.insert("ada", Tier.FAST, SPEC))
    await asyncio.sleep(0.1)
    assert not writing.done()
    assert await store.count_queued() == 0, "readers don't wait"
    other.execute("COMMIT")
    assert (await writing).tenant == "ada"
    other.close()
    await store.close()


# Keys.


async def test_a_key_opens_with_its_secret(store: JobStore) -> None:
    assert await store.list_keys() == []
    key, secret = await store.create_key(tenant="ada", name="laptop", scopes=["jobs", "admin"])
    assert re.fullmatch(r"ct_[A-Za-z0-9_-]{43}", secret)
    assert (key.tenant, key.name, key.scopes) == ("ada", "laptop", ("jobs", "admin"))
    assert key.revoked_at is None
    assert await store.authenticate(secret) == key
    assert await store.list_keys() == [key]


async def test_a_secret_is_stored_nowhere(file: Path) -> None:
    store = await JobStore.open(sqlite(file))
    _, secret = await store.create_key(tenant="ada", name="laptop", scopes=[])
    await store.close()
    stored = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert secret.removeprefix("ct_").encode() not in stored
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in stored


@pytest.mark.parametrize("secret", ["", "ct_", "ct_" + "A" * 43, "\udcff", "' OR 1=1 --"])
async def test_a_secret_that_was_never_given_out_opens_nothing(
    store: JobStore, secret: str
) -> None:
    await store.create_key(tenant="ada", name="laptop", scopes=[])
    with pytest.raises(Unauthorized):
        await store.authenticate(secret)


async def test_a_revoked_key_opens_nothing_and_is_still_counted(store: JobStore) -> None:
    lost, lost_secret = await store.create_key(tenant="ada", name="lost", scopes=[])
    kept, kept_secret = await store.create_key(tenant="ada", name="kept", scopes=[])
    revoked = await store.revoke_key(lost.id)
    assert revoked.revoked_at is not None
    with pytest.raises(Unauthorized):
        await store.authenticate(lost_secret)
    assert await store.authenticate(kept_secret) == kept
    assert await store.revoke_key(lost.id) == revoked, "revoking twice changes nothing"
    assert await store.list_keys() == [revoked, kept]
    with pytest.raises(NotFound):
        await store.revoke_key("key_unknown")


async def test_a_key_is_of_its_user_or_is_one_itself(store: JobStore) -> None:
    own, _ = await store.create_key(tenant="ada", name="laptop", scopes=[])
    key, secret = await store.create_key(tenant="ada", user="bob", name="laptop", scopes=[])
    assert (own.user, key.user) == (own.id, "bob")
    assert (await store.authenticate(secret)).user == "bob"
    job = await store.insert(key.tenant, Tier.FAST, SPEC, user=key.user)
    assert (await store.get(job.id)).user == "bob"


@pytest.mark.parametrize("field", ["tenant", "user", "name"])
@pytest.mark.parametrize("value", ["", "x" * (limits.KEY_NAME_CHARS_MAX + 1)])
async def test_a_key_needs_a_fit_name(store: JobStore, field: str, value: str) -> None:
    names = {"tenant": "ada", "name": "laptop", field: value}
    with pytest.raises(InvalidInput) as refused:
        await store.create_key(**names, scopes=[])
    assert (refused.value.field, refused.value.limit) == (field, limits.KEY_NAME_CHARS_MAX)
    assert await store.list_keys() == []
