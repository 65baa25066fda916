"""Private files and secrets, on a real disk, by several processes."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from calotype.core.errors import OperatorError
from calotype.files.private import secret_in, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("an older one, and longer")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    write_private(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, "new")
    with pytest.raises(OperatorError, match=r"other can't be used: No space"):
        secret_in(tmp_path / "other", 32)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_those_who_make_a_secret_together_have_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "secret"
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: secret_in(path, 32), range(16)))
    assert len(made) == 1
    assert len(made.pop()) == 32
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path]


def test_a_secret_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"short")
    with pytest.raises(OperatorError, match=r"secret has 5 bytes, not 32") as refused:
        secret_in(path, 32)
    assert refused.value.limit == 32
