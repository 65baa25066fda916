"""The hash log shown to others, and an auditor's check of it, as documents on a disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from calotype.core.hash_log import LogEntry
from calotype.flow.identity import trust_of
from calotype.jobs.store import JobStore
from calotype.provenance import certificates
from calotype.provenance.log_proofs import audit
from calotype.settings import Settings
from tests.flow.command_line import here


def picture(number: int) -> bytes:
    """What stands for a delivered file: the log knows it by its hash only."""
    return b"picture %d" % number


def entry(number: int) -> LogEntry:
    return LogEntry(
        image=f"img_{number}",
        mark=number + 1,
        mark_key="wmk_1",
        files={"png": hashlib.sha256(picture(number)).hexdigest()},
        phash=number,
        width=128,
        height=96,
        sketch=bytes([2, 1, number, number]),
        at=datetime(2026, 1, 2, tzinfo=UTC),
    )


@dataclass
class Desk:
    """An installation's home, and a folder in which an auditor collects what it shows."""

    home: Path
    folder: Path

    def log(self, *numbers: int) -> None:
        async def append() -> None:
            store = await JobStore.open(Settings(home=self.home).database)
            await store.hash_log.append([entry(number) for number in numbers])
            await store.close()

        asyncio.run(append())

    def keep(self, name: str, *arguments: str) -> Any:
        """Have something shown, and keep it as a file."""
        done = here(self.home, "log", *arguments)
        assert done.returncode == 0, done.stderr
        (self.folder / name).write_text(done.stdout)
        return json.loads(done.stdout)

    def check(self, *arguments: str) -> tuple[int, dict[str, tuple[bool, str]]]:
        """As an auditor does it: in a home of its own, with the roots only."""
        stranger = self.folder / "stranger"
        stranger.mkdir(exist_ok=True)
        files = [str(self.folder / each) if each[0] != "-" else each for each in arguments]
        roots = ("--roots", str(self.folder / "roots.pem"))
        done = here(stranger, "log", "check", *files, *roots, "--json")
        findings = json.loads(done.stdout)["findings"]
        assert not list(stranger.iterdir()), "it needs nothing, and leaves nothing"
        told = {Path(it["name"]).name: (it["is_good"], it["says"]) for it in findings}
        return done.returncode, told


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "home", tmp_path / "desk")
    for folder in (desk.home, desk.folder):
        folder.mkdir()
    desk.log(*range(5))
    desk.keep("old.json", "head")
    desk.log(*range(5, 11))
    desk.keep("new.json", "head")
    anchors_pem, _ = trust_of(Settings(home=desk.home))
    (desk.folder / "roots.pem").write_text(anchors_pem or "")
    (desk.folder / "picture.png").write_bytes(picture(3))
    return desk


def test_an_auditor_checks_a_picture_and_the_log_offline(desk: Desk) -> None:
    desk.keep("linked.json", "consistency", "5")
    desk.keep("there.json", "prove", str(desk.folder / "picture.png"))
    desk.keep("later.json", "prove", "img_7")
    code, told = desk.check(
        "linked.json", "there.json", "later.json", "new.json", "old.json",
        "--picture", "picture.png",
    )  # fmt: skip
    assert all(is_good for is_good, _ in told.values()), told
    assert code == 0
    assert told["linked.json"][1] == "the log of 11 entries begins with that of 5"
    assert told["there.json"][1].startswith("entry 3 of 11: img_3")
    assert told["picture.png"][1] == "is in the log"


def test_a_proof_can_be_had_against_the_head_that_was_kept(desk: Desk) -> None:
    desk.keep("there.json", "prove", "img_3", "--count", "5")
    assert desk.check("there.json", "old.json")[0] == 0
    code, told = desk.check("there.json", "new.json")
    assert code == 1
    assert told["there.json"] == (False, "its head, of 5 entries, isn't among these")
    late = here(desk.home, "log", "prove", "img_7", "--count", "5")
    assert (late.returncode, "it is number 8" in late.stderr) == (2, True)
    again = desk.keep("again.json", "head", "--count", "5")
    assert (
        again["head"]["root"] == json.loads((desk.folder / "old.json").read_text())["head"]["root"]
    )


def test_heads_that_nothing_links_may_be_of_two_logs(desk: Desk) -> None:
    code, told = desk.check("old.json", "new.json")
    assert (code, told["heads"]) == (1, (False, "nothing links the heads of 5 and 11 entries"))


def test_a_log_that_was_written_anew_is_found_out(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "rewritten", desk.folder)
    other.home.mkdir()
    shutil.copytree(desk.home / "secrets", other.home / "secrets")  # even by who has the key
    other.log(99, *range(1, 11))
    other.keep("new.json", "head")
    other.keep("linked.json", "consistency", "5")
    code, told = desk.check("old.json", "new.json", "linked.json")
    assert code == 1
    assert told["linked.json"] == (False, "the log of 11 entries doesn't begin with that of 5")
    other.keep("fork.json", "head", "--count", "5")
    code, told = desk.check("old.json", "fork.json")
    assert code == 1
    assert "shows different people different things" in told["fork.json"][1]


@pytest.mark.parametrize(
    ("document", "change"),
    [
        ("new.json", {"head": {"count": 12}}),
        ("new.json", {"head": {"root": "00" * 32}}),
        ("new.json", {"signature": "AAAA"}),
        ("new.json", {"chain": ""}),
        ("there.json", {"inclusion": {"number": 4}}),
        ("there.json", {"inclusion": {"leaf": "00" * 32}}),
        ("there.json", {"inclusion": {"path": []}}),
        ("there.json", {"inclusion": {"path": 7}}),
        ("there.json", {"inclusion": {"entry": {"files": {}}}}),
        ("linked.json", {"consistency": {"first": 4}}),
        ("linked.json", {"consistency": {"first": -1}}),
        ("linked.json", {"consistency": {"count": 10**40}}),
        ("linked.json", {"consistency": {"path": ["zz"]}}),
        ("linked.json", {"consistency": None}),
    ],
)
def test_no_document_can_be_changed(desk: Desk, document: str, change: dict[str, Any]) -> None:
    names = {
        "linked.json": ("consistency", "5"),
        "there.json": ("prove", "img_3"),
        "new.json": ("head",),
    }
    documents = {name: desk.keep(name, *arguments) for name, arguments in names.items()}
    documents["old.json"] = json.loads((desk.folder / "old.json").read_text())
    roots = (desk.folder / "roots.pem").read_text()
    assert all(it.is_good for it in audit(documents, {}, anchors_pem=roots))
    for key, value in change.items():
        inner = documents[document][key]
        documents[document][key] = inner | value if isinstance(value, dict) else value
    wrong = {it.name for it in audit(documents, {}, anchors_pem=roots) if not it.is_good}
    assert document in wrong


def test_no_other_signed_statement_passes_for_a_head(desk: Desk, tmp_path: Path) -> None:
    told = json.loads((desk.folder / "new.json").read_text())
    roots = (desk.folder / "roots.pem").read_text()
    stranger = certificates.ensure_development(tmp_path / "other", now=datetime.now(UTC))
    (finding,) = audit({"new": told}, {}, anchors_pem=stranger.anchors_pem)
    assert finding.says == "the head isn't signed below a root of ours"
    receipt = {**told, "receipt": told["head"]}
    del receipt["head"]
    others: list[Any] = [receipt, {}, [], None, "head", {"head": None}]
    for other in others:
        (finding,) = audit({"other": other}, {}, anchors_pem=roots)
        assert not finding.is_good


def test_a_picture_that_nothing_proves_is_told_and_so_is_what_is_no_document(desk: Desk) -> None:
    desk.keep("there.json", "prove", "img_4")
    (desk.folder / "text.json").write_text("[" * 100_000)
    code, told = desk.check("there.json", "new.json", "text.json", "--picture", "picture.png")
    assert code == 1
    assert told["picture.png"] == (False, "is in no entry that is proven here")
    assert told["text.json"] == (False, "is no document of a hash log")


def test_what_the_log_does_not_have_is_a_sentence(desk: Desk) -> None:
    for arguments, says in (
        (("prove", "img_99"), "img_99 isn't in the log"),
        (("prove", str(desk.folder / "roots.pem")), "no picture in the log has a file"),
        (("prove", "gone.png"), "gone.png can't be read"),
        (("consistency", "12"), "first has to be from 0 to 11"),
        (("head", "--count", "12"), "count has to be from 0 to 11"),
    ):
        done = here(desk.home, "log", *arguments)
        assert done.returncode > 0
        assert says in done.stderr
