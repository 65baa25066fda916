"""What is sealed can't be read, changed or swapped, and is its owner's only."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from calotype.core.errors import NotFound, OperatorError
from calotype.safety.sealing import SealedStore

DATA = b"a benign canary, and nothing else" * 10


@pytest.fixture
def store(tmp_path: Path) -> SealedStore:
    return SealedStore(tmp_path / "sealed", tmp_path / "secrets" / "key")


def file(tmp_path: Path, name: str) -> Path:
    return tmp_path / "sealed" / f"{name}.sealed"


def test_bytes_come_back_and_lie_there_encrypted_for_their_owner(
    store: SealedStore, tmp_path: Path
) -> None:
    store.seal("case_1", DATA)
    assert store.open("case_1") == DATA
    path = file(tmp_path, "case_1")
    assert b"canary" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "secrets" / "key").stat().st_mode) == 0o600
    store.seal("case_2", DATA)
    assert file(tmp_path, "case_2").read_bytes() != path.read_bytes(), "a nonce of its own"


def test_what_was_changed_or_put_in_anothers_place_is_not_opened(
    store: SealedStore, tmp_path: Path
) -> None:
    store.seal("case_1", DATA)
    store.seal("case_2", DATA[::-1])
    path = file(tmp_path, "case_1")
    whole = path.read_bytes()
    for at in (0, 20, len(whole) - 1):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(OperatorError, match="changed"):
            store.open("case_1")
    for other in (file(tmp_path, "case_2").read_bytes(), b"", whole[:8]):
        path.write_bytes(other)
        with pytest.raises(OperatorError, match="changed"):
            store.open("case_1")


def test_another_key_opens_nothing(store: SealedStore, tmp_path: Path) -> None:
    store.seal("case_1", DATA)
    with pytest.raises(OperatorError, match="another key"):
        SealedStore(tmp_path / "sealed", tmp_path / "other").open("case_1")
    again = SealedStore(tmp_path / "sealed", tmp_path / "secrets" / "key")
    assert again.open("case_1") == DATA


@pytest.mark.parametrize("name", ["../secrets/key", "", "a/b", "a" * 91, "case_1.sealed"])
def test_a_name_leads_nowhere_else(store: SealedStore, name: str) -> None:
    for act in (store.open, store.destroy, lambda it: store.seal(it, DATA)):
        with pytest.raises(NotFound):
            act(name)


def test_what_nobody_has_a_record_of_is_swept_once_it_is_old(
    store: SealedStore, tmp_path: Path
) -> None:
    for name in ("case_1", "case_2", "case_3"):
        store.seal(name, DATA)
    (tmp_path / "sealed" / ".case_4.sealed-draft").write_bytes(DATA)
    now, hour = datetime.now(UTC), timedelta(hours=1)
    assert store.sweep({"case_2"}, before=now - hour) == [], "a restored database knows less"
    assert store.sweep({"case_2"}, before=now + hour) == ["case_1", "case_3"]
    assert [path.name for path in (tmp_path / "sealed").iterdir()] == ["case_2.sealed"]
    store.destroy("case_1")  # again does no harm
    with pytest.raises(NotFound):
        store.open("case_1")
