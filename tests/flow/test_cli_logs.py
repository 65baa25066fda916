"""Logs on the command line: the server's and its engines' files, and a job's own log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from calotype.cli import app
from calotype.cli.home import with_store
from calotype.cli.logging_setup import configure_logging, log_file
from calotype.cli.logs import LogTail
from calotype.core import limits
from calotype.core.errors import NotFound
from calotype.core.nouns import Tier
from calotype.jobs.store import JobStore
from calotype.settings import Settings
from tests.flow.dispatch_bench import SPEC


def run(*arguments: str, home: Path) -> Result:
    return CliRunner().invoke(app, [*arguments, "--home", str(home)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of logs, in which an engine wrote something."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "engine-0.log").write_text("a library's warning\nanother\n")
    return folder


@pytest.fixture
def logging_to(folder: Path) -> Iterator[Path]:
    """The server's log, which this process writes for the length of a test."""
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(Settings(home=folder.parent))
    log_file.open(folder / "server.log")
    yield folder / "server.log"
    log_file.close()
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_servers_log_has_its_lines_and_the_libraries_as_json(logging_to: Path) -> None:
    structlog.get_logger("calotype.test").warning("job_failed", job="job_1", reason="out of luck")
    logging.getLogger("sqlalchemy").warning("the pool is %s", "full")
    try:
        raise ValueError("no")
    except ValueError:
        structlog.get_logger("calotype.test").exception("it_broke")
    first, second, third = (json.loads(line) for line in logging_to.read_text().splitlines())
    assert (first["event"], first["job"], first["level"]) == ("job_failed", "job_1", "warning")
    assert (second["event"], second["level"]) == ("the pool is full", "warning")
    assert third["exception"].endswith("ValueError: no")
    shown = run("logs", "server", home=logging_to.parents[1]).stdout.splitlines()
    assert shown[0].startswith("server | 2")
    assert shown[0].endswith(" warning job_failed job=job_1 reason=out of luck")


def test_a_log_that_is_begun_anew_is_followed_without_a_gap(
    logging_to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_file.close()
    monkeypatch.setattr(limits, "SERVER_LOG_BYTES_MAX", 1_000)
    log_file.open(logging_to)
    tail, seen = LogTail(logging_to), []
    for number in range(40):
        structlog.get_logger("calotype.test").warning("tick", number=number)
        if number % 5 == 0:  # more often than a file is full
            seen += [json.loads(line)["number"] for line in tail.more()]
    seen += [json.loads(line)["number"] for line in tail.more()]
    assert seen == list(range(40))
    sizes = [path.stat().st_size for path in logging_to.parent.glob("server.log*")]
    assert len(sizes) == 2
    assert max(sizes) <= 1_000


def test_a_line_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "engine-0.log"
    tail = LogTail(path)
    assert tail.last(9) == []
    with path.open("wb", buffering=0) as file:
        file.write(b"one\ntw")
        assert tail.more() == ["one"]
        file.write(b"o\n\xff\n")
        assert tail.more() == ["two", "\ufffd"]
        assert tail.more() == []
    assert LogTail(path).last(2) == ["two", "\ufffd"]
    assert LogTail(path).last(0) == []


def test_each_log_is_shown_from_its_end_the_servers_first(folder: Path) -> None:
    (folder / "server.log").write_text('{"level": "info", "event": "up", "port": 1}\nnot ours\n')
    shown = run("logs", home=folder.parent).stdout
    assert shown == (
        "server |  info up port=1\nserver | not ours\n"
        "engine-0 | a library's warning\nengine-0 | another\n"
    )
    last = run("logs", "-n", "1", "--json", home=folder.parent).stdout.splitlines()
    assert [json.loads(line) for line in last] == [
        {"source": "server", "text": "not ours"},
        {"source": "engine-0", "text": "another"},
    ]
    first = run("logs", "server", "--json", home=folder.parent).stdout.splitlines()[0]
    assert json.loads(first) == {"source": "server", "level": "info", "event": "up", "port": 1}


def test_what_is_added_is_followed_also_of_an_engine_that_begins_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            with (folder / "engine-0.log").open("a") as file:
                file.write("a third\n")
            (folder / "engine-1.log").write_text("good morning\n")
        elif len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    followed = run("logs", "--follow", "-n", "0", home=folder.parent)
    assert followed.exit_code == 0
    assert followed.stdout == "engine-0 | a third\nengine-1 | good morning\n"


def test_a_log_that_is_not_there_is_told_with_those_that_are(folder: Path, tmp_path: Path) -> None:
    wrong = run("logs", "engine-9", home=folder.parent).exception
    assert "there is no log of engine-9; there are engine-0" in str(wrong)
    nothing = run("logs", home=tmp_path / "elsewhere").exception
    assert "no server has run on this home folder" in str(nothing)
    assert run("logs", "-n", "10001", home=folder.parent).exit_code == 2


# A job's log.


async def _queued(store: JobStore) -> str:
    job = await store.insert("ada", Tier.FAST, SPEC)
    lease = await store.lease(job.id, "engine-0")
    step = {"image": 0, "step": 1, "steps": 4, "preview": "data:image/webp;base64,AAAA"}
    await store.append(lease, "step", step)
    return job.id


def test_a_jobs_log_is_shown_and_as_json_whole(tmp_path: Path) -> None:
    job_id = with_store(tmp_path, _queued)
    shown = run("jobs", "log", job_id, home=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["1", "2", "3"]
    assert shown[1].endswith("started attempt=1 engine=engine-0")
    assert shown[2].endswith("step image=0 step=1 steps=4 preview=...")
    lines = run("jobs", "log", job_id, "--json", home=tmp_path).stdout.splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert [event["kind"] for event in events] == ["queued", "started", "step"]
    assert events[2]["data"]["preview"].startswith("data:")


def test_a_jobs_log_is_followed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = with_store(tmp_path, _queued)
    sleep = asyncio.sleep

    async def cancel_meanwhile(seconds: float) -> None:
        monkeypatch.setattr(asyncio, "sleep", sleep)
        store = await JobStore.open(f"sqlite+aiosqlite:///{tmp_path / 'calotype.db'}")
        await store.cancel(job_id, by="operator")
        await store.close()

    monkeypatch.setattr(asyncio, "sleep", cancel_meanwhile)
    shown = run("jobs", "log", job_id, "--follow", home=tmp_path).stdout.splitlines()
    assert [line.split()[2] for line in shown] == ["queued", "started", "step", "cancelled"]


def test_the_log_of_an_unknown_job_is_a_refusal(tmp_path: Path) -> None:
    assert isinstance(run("jobs", "log", "job_none", home=tmp_path).exception, NotFound)
