"""Servers that the command line starts, finds and ends, and those who follow them."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from calotype.cli.client import Client, Server
from calotype.cli.servers import find_server
from calotype.settings import Settings
from tests.flow.command_line import calotype, here, processes_of, start, wait_for_server
from tests.serving import running_server


def served(home: Path) -> str:
    """Serve once and end; return what was printed. The home folder's key is held to its word."""
    with start(home, "serve", "--port", "0", program="tests.faked") as process:
        url = wait_for_server(home, process)
        headers = {"Authorization": f"Bearer {(home / 'key').read_text()}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    return output


def test_a_key_made_beside_a_running_server_opens_it(running: tuple[Server, Settings]) -> None:
    server, settings = running
    key = here(settings.home, "keys", "create", "--name", "second").stdout.strip()
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/v1/jobs", headers=headers).status_code == 200


def test_serve_prints_its_key_once_and_keeps_it_private(tmp_path: Path) -> None:
    first, second = served(tmp_path), served(tmp_path)
    key = (tmp_path / "key").read_text()
    assert f"/#key={key}" in first
    assert key not in second
    assert str(tmp_path / "key") in second
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert not (tmp_path / "server.json").exists()
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("content", [None, "ct_of-another-installation", b"\xff"])
def test_a_start_without_a_good_key_makes_one(tmp_path: Path, content: str | bytes | None) -> None:
    here(tmp_path, "keys", "create", "--tenant", "a")  # a key, but none in the home folder
    if content is not None:
        (tmp_path / "key").write_bytes(content.encode() if isinstance(content, str) else content)
    said = served(tmp_path)  # and held to its key
    assert f"/#key={(tmp_path / 'key').read_text()}" in said
    keys = json.loads(here(tmp_path, "keys", "list", "--json").stdout)["keys"]
    assert [(key["tenant"], key["name"]) for key in keys] == [
        ("a", "made by hand"),
        ("default", "local"),
    ]


def test_a_second_server_on_the_same_home_is_refused(running: tuple[Server, Settings]) -> None:
    _, settings = running
    answer = calotype(settings.home, "serve", "--port", "0")
    assert answer.returncode == 1
    assert "already runs" in answer.stderr
    assert find_server(settings) is not None  # and the first one is left as it was


def test_generate_uses_the_running_server(running: tuple[Server, Settings]) -> None:
    server, settings = running
    arguments = ("generate", "a red tent", "--steps", "4", "--seed", "5", "-n", "2", "--json")
    answer = here(settings.home, *arguments, "-o", "tent.webp")
    assert answer.returncode == 0, answer.stderr
    body = json.loads(answer.stdout)
    assert body["files"] == ["tent-1.webp", "tent-2.webp"]
    assert [image["seed"] for image in body["job"]["images"]] == [5, 6]
    for name, manifest in zip(body["files"], body["manifests"], strict=True):
        assert Image.open(settings.home / name).format == "WEBP"
        assert manifest["prompt"] == "a red tent"
    assert [manifest["seed"] for manifest in body["manifests"]] == [5, 6]
    headers = {"Authorization": f"Bearer {server.key}"}
    jobs = httpx.get(f"{server.url}/v1/jobs", headers=headers).json()["jobs"]
    assert body["job"]["id"] in [job["id"] for job in jobs]


def test_generate_never_overwrites_what_it_was_not_told_to(
    running: tuple[Server, Settings], tmp_path: Path
) -> None:
    _, settings = running
    arguments = ("generate", "a red tent", "--steps", "4", "--seed", "5")
    names = [here(settings.home, *arguments, cwd=tmp_path).stdout.strip() for _ in range(2)]
    assert names == ["calotype-5.png", "calotype-5-2.png"]
    first, second = (Image.open(tmp_path / name) for name in names)
    assert first.tobytes() == second.tobytes()  # the same seed


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--steps", "0"), 2, "steps"),
        (("--sampler", "nope"), 2, "sampler"),
        (("-n", "9"), 2, "n"),
        (("--model", "nope"), 2, "model"),
    ],
)
def test_what_the_server_refuses_is_told_in_one_line(
    running: tuple[Server, Settings], options: tuple[str, ...], code: int, word: str
) -> None:
    _, settings = running
    answer = here(settings.home, "generate", "a tent", *options)
    assert answer.returncode == code
    assert word in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_interrupted_generate_cancels_its_job(running: tuple[Server, Settings]) -> None:
    server, settings = running
    headers = {"Authorization": f"Bearer {server.key}"}
    with start(settings.home, "generate", "a lake", "--steps", "100", "-n", "4") as process:
        job = wait_for_job(server, "a lake")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled" in said
    answer = httpx.get(f"{server.url}{job['urls']['self']}", headers=headers)
    assert answer.json()["status"] == "cancelled"


def test_generate_starts_what_it_needs_with_a_key_of_its_own_and_ends_it(
    running: tuple[Server, Settings], tmp_path: Path
) -> None:
    env = {"CALOTYPE_KEY": running[0].key}  # another server's
    arguments = ("generate", "a red tent", "--steps", "4", "-o", "tent.png")
    answer = calotype(tmp_path, *arguments, env=env)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "tent.png"
    assert "vignette" in answer.stderr  # of its manifest
    assert "pixels_sha256" in answer.stderr
    assert Image.open(tmp_path / "tent.png").format == "PNG"
    assert processes_of(tmp_path) == []


def test_a_killed_generate_leaves_nothing_running(tmp_path: Path) -> None:
    with start(tmp_path, "generate", "a red tent", "--steps", "100", "-n", "4") as process:
        wait_for_server(tmp_path, process)
        process.kill()
        process.communicate(timeout=60)
    assert ends_within(30, tmp_path), processes_of(tmp_path)


def test_demo_ends_on_ctrl_c_also_where_a_shell_had_it_ignored(tmp_path: Path) -> None:
    as_background_job = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    with start(tmp_path, "demo", "--prompt", "a red tent", through=as_background_job) as process:
        wait_for_server(tmp_path, process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Calotype has stopped." in said
    assert processes_of(tmp_path) == []


def test_demo_makes_a_picture_serves_on_and_leaves_nothing_running(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        start_demo(tmp_path, taken.getsockname()[1]) as process,
    ):
        lines: dict[str, str] = {}
        assert process.stdout is not None
        while "Page" not in lines:
            name, _, value = process.stdout.readline().partition(":")
            assert process.poll() is None, process.stderr and process.stderr.read()
            lines[name] = value.strip()
        assert Image.open(lines["Picture"]).format == "PNG"
        address, _, key = lines["Page"].partition("#key=")
        assert key == (tmp_path / "key").read_text()
        assert f":{taken.getsockname()[1]}/" not in address  # taken: a free port instead
        assert httpx.get(f"{address}healthz").json() == {"status": "ok"}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert processes_of(tmp_path) == []


def test_a_keep_alive_and_a_lost_connection_are_not_seen_by_who_follows_a_job() -> None:
    """A wire of our own making: a real job isn't idle for 15 s, nor does its connection break."""
    answers = [
        b'id: 1\nevent: queued\ndata: {"position": 1}\n\n: ping\n\n',  # and here it breaks
        b": ping\n\nid: 2\nevent: succeeded\ndata: {}\n\n",
    ]
    asked_after: list[str | None] = []

    class Wire(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked_after.append(self.headers["Last-Event-ID"])
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(answers[len(asked_after) - 1])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Wire) as wire:
        threading.Thread(target=wire.serve_forever, daemon=True).start()
        with Client(Server(f"http://127.0.0.1:{wire.server_port}", "k")) as client:
            followed = list(client.follow({"urls": {"events": "/events"}}))
        wire.shutdown()
    assert followed == [("queued", {"position": 1}), ("succeeded", {})]
    assert asked_after == [None, "1"]


def test_the_end_of_the_server_ends_open_streams(tmp_path: Path) -> None:
    slow = {"FAKE_STEP_S": "1"}
    with running_server(tmp_path, slow, is_drawn=False) as server:
        with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
            job = client.post("/v1/jobs", json={"prompt": "a lake", "steps": 100}).json()
            with client.stream("GET", job["urls"]["events"]) as stream:
                parts = stream.iter_bytes()
                assert b"queued" in next(parts)
                server.process.terminate()
                for _ in parts:  # ends in good order: a broken connection would raise
                    pass
        assert server.process.wait(60) == 0


def start_demo(home: Path, port: int) -> subprocess.Popen[str]:
    (home / "calotype.toml").write_text(f"port = {port}")
    return start(home, "demo", "--prompt", "a red tent")


def wait_for_job(server: Server, prompt: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {server.key}"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for job in httpx.get(f"{server.url}/v1/jobs", headers=headers).json()["jobs"]:
            if job["prompt"] == prompt:
                found: dict[str, Any] = job
                return found
        time.sleep(0.05)
    raise AssertionError("no such job within 60 s")


def ends_within(seconds: float, home: Path) -> bool:
    deadline = time.monotonic() + seconds
    while processes_of(home) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes_of(home)
