"""The commands of those who decide: reviews with a server, strikes and cases without one."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from calotype.core.nouns import Verdict, VerdictKind
from calotype.flow.cases import CaseBook
from calotype.flow.sealed import sealed_parts
from calotype.jobs.cases import SENT
from calotype.jobs.store import JobStore
from calotype.settings import Settings
from tests.cybertipline import PASSWORD, USER
from tests.flow.command_line import here
from tests.pictures import file_of, picture
from tests.reviews import SIDE, hold_one, key_for
from tests.serving import Server, running_server

CANARY = file_of(picture())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("home"), is_drawn=False) as running:
        yield running


def test_a_review_is_listed_shown_and_decided_by_two(server: Server, tmp_path: Path) -> None:
    review = asyncio.run(hold_one(server.home, is_severe=True))
    ada, bob = (
        {"CALOTYPE_KEY": asyncio.run(key_for(server.home, name, "review"))}
        for name in ("ada", "bob")
    )
    listed = here(server.home, "review", "list", "--json", env=ada)
    assert [it["id"] for it in json.loads(listed.stdout)["reviews"]] == [review.id]
    saved = tmp_path / "seen.png"
    shown = here(server.home, "review", "show", review.id, "-o", str(saved), env=ada)
    assert "a tent by the sea" in shown.stdout
    assert Image.open(saved).size == (SIDE, SIDE)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    decide = ("review", "decide", review.id, "allow", "--reason", "a tent")
    assert "another person" in here(server.home, *decide, env=ada).stdout
    again = here(server.home, *decide, env=ada)
    assert (again.returncode, "once" in again.stderr) == (1, True)
    assert "is allowed" in here(server.home, *decide, env=bob).stdout
    assert here(server.home, "review", "list", "--json", env=bob).stdout.count("rev_") == 0
    every = here(server.home, "review", "list", "--all", "--json", env=bob)
    assert json.loads(every.stdout)["reviews"][0]["state"] == "allowed"
    delivered = list((server.home / "pictures").rglob(f"{review.image}*"))
    assert len(delivered) == 2


def test_a_key_for_pictures_decides_nothing(server: Server) -> None:
    done = here(server.home, "review", "list")
    assert done.returncode == 1
    assert "this key may not do that" in done.stderr


def test_a_key_has_the_scopes_that_are_named(tmp_path: Path) -> None:
    made = here(tmp_path, "keys", "create", "--scope", "review", "--scope", "cases", "--json")
    assert json.loads(made.stdout)["scopes"] == ["review", "cases"]
    assert here(tmp_path, "keys", "create", "--scope", "all").returncode == 2


async def _a_case(home: Path) -> str:
    settings = Settings(home=home)
    store = await JobStore.open(settings.database)
    try:
        _, sealed = sealed_parts(settings)
        book = CaseBook(store, sealed, kept_days=365)
        found = Verdict(VerdictKind.BLOCK, "known:canaries", "1", "known", 0.9, policy="p")
        await book.open(SENT, "acme", "ada", verdict=found, data=CANARY)
        return (await store.people.cases.every())[0].id
    finally:
        await store.close()


def test_a_case_is_shown_to_two_people_and_sent_by_one_who_says_so(tmp_path: Path) -> None:
    case = asyncio.run(_a_case(tmp_path))
    for name in ("ada", "bob"):
        (tmp_path / name).write_text(asyncio.run(key_for(tmp_path, name, "cases")))
    listed = here(tmp_path, "reports", "list", "--json")
    assert [it["report"] for it in json.loads(listed.stdout)["cases"]] == ["prepared"]
    shown = json.loads(here(tmp_path, "reports", "show", case).stdout)
    assert "<incidentType>" in shown["document"]
    assert [it["kind"] for it in shown["trail"]] == ["opened"]
    out = tmp_path / "seen.png"
    look = ("reports", "show", case, "--sealed", str(out), "--reason", "to look")
    one = ("--key-file", str(tmp_path / "ada"), "--second-key-file", str(tmp_path / "ada"))
    assert here(tmp_path, *look, *one).returncode == 1
    assert not out.exists()
    two = ("--key-file", str(tmp_path / "ada"), "--second-key-file", str(tmp_path / "bob"))
    assert here(tmp_path, *look[:-2], *two).returncode == 2, "why?"
    assert here(tmp_path, *look, *two).returncode == 0
    assert out.read_bytes() == CANARY
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    key = ("--key-file", str(tmp_path / "ada"))
    unset = here(tmp_path, "reports", "send", case, *key, "--yes")
    assert (unset.returncode, "reports_login" in unset.stderr) == (1, True)
    assert "the test host" in unset.stderr
    (tmp_path / "login").write_text(f"{USER}\n{PASSWORD}\n")
    env = {
        "CALOTYPE_REPORTS_LOGIN": str(tmp_path / "login"),
        "CALOTYPE_REPORTS_CONTACT": "safety@example.org",
        "CALOTYPE_REPORTS_URL": "http://127.0.0.1:9",
    }
    asked = here(tmp_path, "reports", "send", case, *key, env=env)
    assert asked.returncode == 1, "nobody said yes"
    away = here(tmp_path, "reports", "send", case, *key, "--yes", env=env)
    assert (away.returncode, "no answer" in away.stderr) == (1, True)
    listed = here(tmp_path, "reports", "list")
    assert "without a number" not in listed.stderr, "nobody was reached"
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # it takes what comes, and says nothing
        env["CALOTYPE_REPORTS_URL"] = f"http://127.0.0.1:{deaf.getsockname()[1]}"

        def hang_up() -> None:
            deaf.accept()[0].close()

        hung = threading.Thread(target=hang_up)
        hung.start()
        silent = here(tmp_path, "reports", "send", case, *key, "--yes", env=env)
        hung.join()
    assert (silent.returncode, "no answer" in silent.stderr) == (1, True)
    told = f"its reference is {case}-2; ask the service to retract it"
    retracted = here(tmp_path, "reports", "retract", case, *key, env=env)
    assert ("retracted" in retracted.stdout, told in retracted.stderr) == (True, True)
    assert told in here(tmp_path, "reports", "list").stderr
    [said] = json.loads(here(tmp_path, "reports", "list", "--json").stdout)["cases"]
    assert [it["reference"] for it in said["unnumbered"]] == [f"{case}-2"]


def test_strikes_are_listed_and_lifted_with_a_reason(tmp_path: Path) -> None:
    async def strike() -> None:
        from calotype.core.conduct import Strike, StrikeRule

        store = await JobStore.open(Settings(home=tmp_path).database)
        rule = StrikeRule("severe-refusal", 1, 3, 3600.0, None)
        one = Strike("acme", "ada", "known", True, "known:canaries", "pg13-1-abcd")
        await store.people.strikes.add(one, rule)
        await store.close()

    asyncio.run(strike())
    found = json.loads(here(tmp_path, "strikes", "list", "--json").stdout)
    assert [(it["tenant"], it["user"], it["count"]) for it in found["strikes"]] == [
        ("acme", "ada", 1)
    ]
    assert found["suspensions"][0]["until"] is None
    assert datetime.fromisoformat(found["suspensions"][0]["at"]) <= datetime.now(UTC)
    assert "1 entries" in here(tmp_path, "review", "trail").stdout
    lift = ("strikes", "lift", "acme", "--user", "ada", "--reason", "a mistake")
    assert "1 suspensions" in here(tmp_path, *lift).stdout
    assert here(tmp_path, *lift).returncode == 1
    assert here(tmp_path, "strikes", "lift", "acme").returncode == 2
