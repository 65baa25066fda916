"""The log in the database: added to, proven, and searched by looks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError

from calotype.core.errors import InvalidInput
from calotype.core.hash_log import LogEntry, is_consistent, leaf_hash, proves
from calotype.jobs import tables
from calotype.jobs.store import JobStore


def entry(number: int, **values: object) -> LogEntry:
    made = LogEntry(
        image=f"img_{number}",
        mark=number + 1,
        mark_key="wmk_1",
        files={"png": f"{number:064x}", "webp": f"{number + 1000:064x}"},
        phash=(number * 0x9E3779B97F4A7C15) % 2**64,
        width=128,
        height=96,
        sketch=bytes([2, 1, number, number]),
        at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    )
    return replace(made, **values)  # type: ignore[arg-type]


async def test_every_entry_is_found_and_proven(store: JobStore) -> None:
    log = store.hash_log
    await log.append([entry(number) for number in range(3)])
    await log.append([entry(number) for number in range(3, 11)])
    count, head = await log.head()
    assert count == 11
    for number in range(11):
        kept = await log.of_mark(number + 1)
        assert kept is not None
        assert (kept.number, kept.entry) == (number, entry(number))
        assert kept == await log.of_image(f"img_{number}")
        assert kept == await log.of_file(f"{number + 1000:064x}")
        proof = await log.proof(number)
        assert proof.head == head
        assert proves(leaf_hash(kept.entry), number, proof.count, proof.path, head)
    assert await log.of_mark(99) is None
    assert await log.of_file("ff" * 32) is None


async def test_every_log_there_was_is_shown_to_begin_the_one_there_is(store: JobStore) -> None:
    log, heads = store.hash_log, [await store.hash_log.head()]
    for number in range(9):
        await log.append([entry(number)])
        heads.append(await log.head())
    assert [await log.head(count) for count in range(10)] == heads
    for first in range(10):
        for count in range(first, 10):
            told, path = await log.consistency(first, count)
            assert told == count
            assert is_consistent(heads[first], heads[count], path)
    earlier = await log.proof(2, 5)
    assert (earlier.count, earlier.head) == heads[5]
    with pytest.raises(ValueError, match="leaf 5 of 5"):
        await log.proof(5, 5)
    for asked in (log.head(10), log.proof(0, -1), log.consistency(10), log.consistency(5, 4)):
        with pytest.raises(InvalidInput) as refused:
            await asked
        assert refused.value.limit["min"] == 0


async def test_an_image_is_logged_once(store: JobStore) -> None:
    await store.hash_log.append([entry(1), entry(2)])
    before = await store.hash_log.head()
    await store.hash_log.append([entry(2), entry(1)])  # a write whose answer was lost, once more
    assert await store.hash_log.head() == before


async def test_the_head_changes_with_each_entry(store: JobStore) -> None:
    heads = {(await store.hash_log.head())[1]}
    for number in range(5):
        await store.hash_log.append([entry(number)])
        heads.add((await store.hash_log.head())[1])
    assert len(heads) == 6


async def test_the_nearest_looks_are_found(store: JobStore) -> None:
    log = store.hash_log
    assert await log.near([5], bits=64, most=3) == []
    await log.append([entry(0, phash=0), entry(1, phash=0b111), entry(2, phash=2**64 - 1)])
    near = await log.near([1], bits=8, most=5)
    assert [kept.entry.image for kept in near] == ["img_0", "img_1"]
    await log.append([entry(3, phash=1)])
    assert (await log.near([1], bits=8, most=1))[0].entry.image == "img_3"  # also the newest
    assert await log.near([2**40 - 1], bits=8, most=5) == []


async def test_the_database_refuses_any_change_but_wiping_a_sketch(store: JobStore) -> None:
    await store.hash_log.append([entry(0), entry(1)])
    log, nodes = tables.hash_log, tables.hash_log_nodes
    refused = (
        delete(log),
        delete(nodes),
        update(log).values(mark="0" * 16),
        update(nodes).values(hash=b"other"),
    )
    for statement in refused:
        with pytest.raises(DBAPIError, match="append-only"):
            async with store._database.writing() as conn:
                await conn.execute(statement)
    async with store._database.writing() as conn:
        await conn.execute(update(log).values(sketch=b""))
    kept = await store.hash_log.of_image("img_1")
    assert kept is not None
    assert kept.entry.sketch == b""
