"""The store of pictures' files, in a folder and in a bucket over real HTTP: one suite for both."""

import asyncio
import hashlib
from pathlib import Path

import httpx
import pytest

from calotype.core.errors import NotFound, OperatorError
from calotype.core.ids import new_id
from calotype.delivery.names import kept_name, stored_name
from calotype.delivery.store import Damaged, PictureStore
from tests.s3 import KEYS, S3


def name_of(data: bytes, form: str = "png", image_id: str | None = None) -> str:
    return stored_name("fast", image_id or new_id("img"), hashlib.sha256(data).hexdigest(), form)


def files_below(folder: Path) -> list[str]:
    return [entry.name for entry in folder.rglob("*") if entry.is_file()]


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket; its keys are in the environment."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.new_bucket()}/house"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PictureStore:
    if request.param == "folder":
        return PictureStore.local(tmp_path / "new" / "pictures")
    s3: S3 = request.getfixturevalue("s3")
    url = request.getfixturevalue("bucket")
    return PictureStore.bucket(url, below="pictures", endpoint=s3.endpoint)


async def all_names(store: PictureStore) -> set[str]:
    return {name async for page in store.names() for name in page}


async def test_a_stored_picture_comes_back_until_it_is_deleted(store: PictureStore) -> None:
    data = b"any bytes"
    name = name_of(data)
    assert not await store.exists(name)
    await store.put(name, data)
    assert await store.exists(name)
    assert await store.get(name) == data
    assert await all_names(store) == {name}
    await store.delete(name)
    await store.delete(name)
    assert not await store.exists(name)
    with pytest.raises(NotFound):
        await store.get(name)


async def test_what_is_not_what_its_name_says_is_never_given_out(store: PictureStore) -> None:
    name = name_of(b"what was signed")
    await store.put(name, b"what was put there")
    with pytest.raises(Damaged):
        await store.get(name)


async def test_a_reader_never_sees_half_a_file(store: PictureStore) -> None:
    name = kept_name(new_id("pic"), "png")
    whole = [bytes([fill]) * 400_000 for fill in (1, 2)]
    await store.put(name, whole[0])

    async def write() -> None:
        for turn in range(10):
            await store.put(name, whole[turn % 2])

    writing = asyncio.create_task(write())
    while not writing.done():
        assert await store.get(name) in whole
    await writing
    assert await all_names(store) == {name}


async def test_a_cancelled_write_ends_before_it_says_so(store: PictureStore) -> None:
    data = bytes(1_000_000)
    for _ in range(5):
        name = name_of(data)
        writing = asyncio.create_task(store.put(name, data))
        await asyncio.sleep(0)  # it has begun
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await store.delete(name)
    assert await all_names(store) == set()


async def test_files_are_listed_in_pages(
    store: PictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.delivery.store.PAGE_FILES", 4)
    names = {name_of(b"x", form) for form in ("png", "webp") for _ in range(5)}
    for name in names:
        await store.put(name, b"x")
    pages = [page async for page in store.names()]
    assert len(pages) >= 3
    assert all(len(page) <= 4 for page in pages)
    assert {name for page in pages for name in page} == names


@pytest.mark.parametrize("name", ["", "x", "../x.png", "/etc/passwd", "fast/../../x", "fast/"])
async def test_no_name_reaches_outside_the_store(store: PictureStore, name: str) -> None:
    for act in (store.get, store.exists, store.delete):
        with pytest.raises(NotFound):
            await act(name)
    with pytest.raises(NotFound):
        await store.put(name, b"x")
    assert await all_names(store) == set()


# A folder.


async def test_a_reopened_store_has_what_was_put(tmp_path: Path) -> None:
    name = name_of(b"bytes")
    await PictureStore.local(tmp_path).put(name, b"bytes")
    assert await PictureStore.local(tmp_path).get(name) == b"bytes"
    assert await PictureStore.local(tmp_path).presigned(name, ttl_s=60) is None


async def test_other_files_are_none_of_the_stores(tmp_path: Path) -> None:
    store, name = PictureStore.local(tmp_path), name_of(b"x")
    await store.put(name, b"x")
    (tmp_path / "README.txt").write_text("not a picture")
    (tmp_path / "img_mine.png").write_text("nor is this")
    (tmp_path / f"{new_id('img')}.png").write_text("nor this, in another place")
    assert await all_names(store) == {name}


async def test_the_draft_of_a_write_that_was_killed_is_removed(tmp_path: Path) -> None:
    store, name = PictureStore.local(tmp_path), name_of(b"whole")
    await store.put(name, b"whole")
    for draft in (tmp_path / f"{name}#1", (tmp_path / name).with_name("mine#1")):
        draft.write_bytes(b"half")
    await store.delete_drafts()
    assert sorted(files_below(tmp_path)) == sorted([name.rpartition("/")[2], "mine#1"])


async def test_a_file_that_was_changed_on_the_disk_is_noticed(tmp_path: Path) -> None:
    store, name = PictureStore.local(tmp_path), name_of(b"whole")
    await store.put(name, b"whole")
    (tmp_path / name).write_bytes(b"whale")
    with pytest.raises(Damaged):
        await store.get(name)


async def test_storage_that_fails_is_the_operators_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OperatorError, match="file"):
        PictureStore.local(tmp_path / "file" / "pictures")
    store = PictureStore.local(tmp_path / "pictures")
    (tmp_path / "pictures" / "fast").write_text("in the way")
    with pytest.raises(OperatorError, match="stored"):
        await store.put(name_of(b"x"), b"x")


# A bucket.


@pytest.fixture
def away(bucket: str, monkeypatch: pytest.MonkeyPatch) -> PictureStore:
    """A store whose server isn't there."""
    monkeypatch.setattr("calotype.delivery.store._RETRIES_MAX", 0)
    return PictureStore.bucket(bucket, below="pictures", endpoint="http://127.0.0.1:9")


async def test_a_presigned_address_gives_that_file_and_no_other(s3: S3, bucket: str) -> None:
    store = PictureStore.bucket(bucket, below="pictures", endpoint=s3.endpoint)
    name = name_of(b"bytes", "webp")
    await store.put(name, b"bytes")
    address = await store.presigned(name, ttl_s=60)
    assert address is not None
    assert "X-Amz-Expires=60" in address
    async with httpx.AsyncClient() as anyone:
        answer = await anyone.get(address)
    assert answer.content == b"bytes"
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["cache-control"]


async def test_stores_in_one_bucket_do_not_see_each_other(s3: S3, bucket: str) -> None:
    one = PictureStore.bucket(bucket, below="pictures", endpoint=s3.endpoint)
    other = PictureStore.bucket(bucket, below="inputs", endpoint=s3.endpoint)
    await one.put(name_of(b"x"), b"x")
    assert await all_names(other) == set()


async def test_a_server_that_is_away_is_the_operators_fault(away: PictureStore) -> None:
    for act in (away.check, lambda: away.put(name_of(b"x"), b"x"), lambda: all_names(away)):
        with pytest.raises(OperatorError):
            await act()


async def test_a_bucket_that_is_not_there_is_noticed(s3: S3, bucket: str) -> None:
    store = PictureStore.bucket("s3://nowhere/house", below="pictures", endpoint=s3.endpoint)
    with pytest.raises(OperatorError):
        await store.check()
    with pytest.raises(OperatorError, match="kept in"):
        PictureStore.bucket("s3:///", below="pictures", endpoint=s3.endpoint)
