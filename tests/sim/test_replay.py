"""Recordings of the line: what a running server wrote replays to the same decisions."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from calotype.core import limits
from calotype.core.errors import InvalidInput, OperatorError
from calotype.core.events import EngineUp, JobCancelled, JobQueued, JobSettled, PolicyEvent
from calotype.core.nouns import Tier
from calotype.flow.recorder import Recorder
from calotype.policy.history import OURS
from calotype.policy.line import Line
from calotype.policy.rules import Rules
from calotype.sim.replay import replay
from calotype.sim.trace import read
from tests.flow.command_line import calotype, here
from tests.serving import Server, engine_pid, running_server

SECRET = "a heron nobody may read of"
JOBS = 9 + 2 + 6 + 6  # of the live run
pytestmark = pytest.mark.timeout(900)  # two starts of a server, on a machine that is busy


class Client:
    def __init__(self, server: Server) -> None:
        self.http = httpx.Client(base_url=server.url, headers=server.headers, timeout=60)

    def ask(self, tier: str, steps: int, **more: Any) -> dict[str, Any]:
        asked = {"prompt": SECRET, "tier": tier, "steps": steps, "width": 64, "height": 64}
        answer = self.http.post("/v1/jobs", json=asked | more)
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def follow(self, job: dict[str, Any], until: str | None = None) -> str:
        """The last event of the job's log, or the first of that kind."""
        kind = ""
        with connect_sse(self.http, "GET", job["urls"]["events"]) as source:
            for event in source.iter_sse():
                kind = event.event if event.data else kind
                if kind == until:
                    break
        return kind


def live_run(client: Client, server: Server) -> list[str]:
    """Jobs of all tiers, one cancelled in the line, one in mid-run, and a killed engine."""
    jobs = [client.ask(tier, 3, n=1 + at) for at in range(3) for tier in Tier]
    long, other = client.ask("turbo", 50), client.ask("fast", 50, n=4)
    waiting = [client.ask("relax", 5, n=4) for _ in range(6)]
    for job in (waiting[-1], other):
        client.http.delete(job["urls"]["self"]).raise_for_status()
    client.follow(long, "step")
    os.kill(engine_pid(server), signal.SIGKILL)
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(client.follow, [*jobs, long, *waiting]))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two starts of one server: the first is killed with jobs in the line."""
    home = tmp_path_factory.mktemp("home")
    file = home / "line.jsonl"
    settings = {"CALOTYPE_RECORD": str(file)}
    with running_server(home, settings) as server:
        ends = live_run(client := Client(server), server)
        assert set(ends) == {"succeeded", "cancelled"}
        left = [client.ask(tier, 5, n=2) for tier in Tier for _ in range(2)]
        server.process.kill()
        server.process.wait()
    with running_server(home, settings) as server:
        assert {Client(server).follow(job) for job in left} == {"succeeded"}
    return file


def test_a_recorded_live_run_replays_to_identical_decisions(
    recording: Path, tmp_path: Path
) -> None:
    report = replay(recording)
    assert report["identical"], report["difference"]
    assert report["starts"] == 2
    assert report["jobs"] == JOBS
    kinds = [json.loads(line)["event"]["type"] for line in told_lines(recording)]
    for kind in ("JobQueued", "JobCancelled", "JobSettled", "EngineUp", "EngineGone"):
        assert kind in kinds
    done = calotype(tmp_path, "trace", "replay", str(recording))  # in another process
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(": identical\n")


def told_lines(recording: Path) -> list[str]:
    lines = recording.read_text().splitlines()
    return [line for line in lines if line.startswith('{"line": "told"')]


def test_the_first_line_that_differs_is_named(recording: Path, tmp_path: Path) -> None:
    lines = recording.read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if "StartAttempt" in line)
    lines[at] = lines[at].replace('"why": "turn"', '"why": "promoted"')
    changed = tmp_path / "changed.jsonl"
    changed.write_text("\n".join(lines) + "\n")
    done = here(tmp_path, "trace", "replay", str(changed), "--json")
    assert done.returncode == 1
    difference = json.loads(done.stdout)["difference"]
    assert (difference["line"], difference["recorded"]) == (at + 1, lines[at])
    assert '"why": "turn"' in difference["replayed"]
    assert f"line {at + 1} differs" in here(tmp_path, "trace", "replay", str(changed)).stderr


def test_no_prompt_is_in_a_recording(recording: Path) -> None:
    assert "heron" not in recording.read_text()


def test_a_recording_is_a_trace_with_measured_costs(recording: Path, tmp_path: Path) -> None:
    jobs = list(read(recording))
    assert len(jobs) == JOBS
    assert {job.tier for job in jobs} == set(Tier)
    assert {(job.width, job.height, job.model) for job in jobs} == {(64, 64, "vignette")}
    settled = {
        event["job_id"]: event["device_s"]
        for event in (json.loads(line)["event"] for line in told_lines(recording))
        if event["type"] == "JobSettled" and event["device_s"]
    }
    assert {job.device_s for job in jobs} >= set(settled.values())
    done = here(tmp_path, "simulate", "--trace", str(recording), "--gpus", "1", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["jobs"] == JOBS


# The file


def queued(at: int) -> JobQueued:
    return JobQueued(f"j{at}", "ann", list(Tier)[at % 3], "m", 1, 1.5, user="\ud800é")


RULES = Rules(weights={Tier.TURBO: 1, Tier.FAST: 2, Tier.RELAX: 9}, wait_s_max={})


def record(path: Path, *, starts: int = 1) -> Recorder:
    for _ in range(starts):
        recorder, line = Recorder(path), Line(rules=RULES)
        recorder.began(RULES, None)
        facts: list[PolicyEvent] = [
            queued(0),
            EngineUp("e", ("m",), 1),
            queued(1),
            JobSettled("j0", 0.1),
        ]
        for fact in [*facts, JobCancelled("j1")]:
            now = time.monotonic()
            recorder.told(fact, now, line.on(fact, now))
        recorder.close()
    return recorder


def test_a_later_start_goes_on_after_cutting_off_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "line.jsonl"
    record(path)
    whole = path.read_text()
    path.write_text(whole + whole[:40])
    record(path)
    assert replay(path)["identical"]
    lines = path.read_text().splitlines()
    assert lines[:6] == whole.splitlines()
    times = [json.loads(line)["at_s"] for line in lines if "began" in line]
    assert times[1] >= times[0]


def test_the_rules_of_that_time_are_replayed(tmp_path: Path) -> None:
    path, line = tmp_path / "line.jsonl", Line(rules=RULES)
    recorder = Recorder(path)
    recorder.began(RULES, None)
    for at in range(30):
        recorder.told(queued(at), 0.0, line.on(queued(at), 0.0))
    up = EngineUp("e", ("m",), 20)
    recorder.told(up, 1.0, line.on(up, 1.0))
    recorder.close()
    assert replay(path)["identical"]
    others = json.dumps({"turbo": 10, "fast": 5, "relax": 1})
    path.write_text(path.read_text().replace('{"turbo": 1, "fast": 2, "relax": 9}', others))
    assert replay(path)["difference"]["line"] == 32


def test_another_file_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for text in ("buy milk", "buy milk\n", "[1]\n2", '{"at_s": null}\nx'):
        path.write_text(text)
        with pytest.raises(OperatorError, match=r"notes\.txt can't be recorded to"):
            Recorder(path)
        assert path.read_text() == text
    with pytest.raises(OperatorError, match="can't be recorded to"):
        Recorder(tmp_path)


def test_a_recording_ends_at_its_limit_and_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "line.jsonl"
    monkeypatch.setattr(limits, "RECORD_BYTES_MAX", 1_000)
    record(path)
    assert 500 < path.stat().st_size <= 1_000
    assert replay(path)["identical"]


def test_a_full_disk_ends_the_recording_and_not_the_server() -> None:
    recorder = Recorder(Path("/dev/full"))
    recorder.began(Rules(), None)
    recorder.told(queued(0), 0.0, [])
    recorder.close()


def test_a_recording_from_before_a_field_came_is_read_with_what_it_meant_then(
    tmp_path: Path,
) -> None:
    path = tmp_path / "line.jsonl"
    record(path)
    text = path.read_text()
    for field in (
        *(
            '"pool": ""',
            '"adapters": []',
            '"reserves": []',
            '"staging_bytes": 0',
            '"rows_spare": 0',
        ),
        *('"deaths": 0', '"why": "turn"'),  # the last of decisions
    ):
        assert f", {field}" in text
        text = text.replace(f", {field}", "")
    path.write_text(text)
    assert replay(path)["identical"]
    later = text.replace('"rows_max": 1', '"rows_max": 2')  # what is said goes on to count
    path.write_text(later)
    assert replay(path)["difference"]["line"] == 4, "the second job has room, too"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"type": "EngineUp"', '"type": "EngineFell"', "line 3, field event: its type is none of"),
        ('"engine": "e"', '"motor": "e"', "line 3, field event.motor: unknown in EngineUp"),
        (
            '"rows_max": 1, ',
            "",
            "line 3, field event.rows_max: missing in EngineUp: recordings are",
        ),
        ('"tier": "turbo"', '"tier": "slow"', "line 2, field event: 'slow' is not a valid Tier"),
        ('"now": ', '"now": "soon", "then": ', "line 2, field now: 'soon' is no number"),
        ('"line": "began"', '"line": "begun"', "line 1, field line: 'begun' is none of"),
        ('"weights"', '"waits"', "line 1, field rules, standing"),
        ('{"line": "began"', '{"at": "began"', "line 2, field line: told before any beginning"),
        ('"at_s"', "at_s", "line 1: no JSON"),
    ],
)
def test_what_is_wrong_in_a_recording_is_named(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "line.jsonl"
    record(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InvalidInput) as raised:
        replay(path)
    assert f"line.jsonl, {says}" in raised.value.detail
    assert here(tmp_path, "trace", "replay", str(path)).returncode == 2


def test_a_trace_that_no_server_recorded_has_nothing_to_replay(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_text('{"at_s": 1.5, "tenant": "ann", "tier": "fast", "model": "m"}\n')
    with pytest.raises(InvalidInput, match="no server has recorded this"):
        replay(path)
    assert not path.read_text().startswith(OURS)
