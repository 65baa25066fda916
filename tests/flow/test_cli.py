"""The command line, as a person runs it: real processes, a real server, the embedded model."""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from calotype.cli.client import Client, Server
from calotype.cli.console import exit_code
from calotype.cli.doctor import examine
from calotype.cli.making import JobEnded, make_pictures, numbered, save_pictures
from calotype.cli.serve import serve
from calotype.cli.servers import find_server, is_port_free, own_server
from calotype.core.errors import OperatorError
from calotype.settings import Settings

HEAVY = ("torch", "fastapi", "sqlalchemy", "uvicorn", "pydantic", "PIL", "httpx")


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALOTYPE_")}
    return {**kept, "CALOTYPE_HOME": str(home)}


def calotype(
    home: Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "calotype.cli", *arguments],
        env={**environment(home), **(env or {})},
        cwd=cwd or home,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def start(home: Path, *arguments: str, through: Sequence[str] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*through, sys.executable, "-m", "calotype.cli", *arguments],
        env=environment(home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def served(home: Path) -> str:
    """Serve once and end; return what was printed. The home folder's key is held to its word."""
    with start(home, "serve", "--port", "0") as process:
        url = wait_for_server(home, process)
        headers = {"Authorization": f"Bearer {(home / 'key').read_text()}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    return output


def processes_of(home: Path) -> list[str]:
    """Command lines of the processes that serve this home folder, or were started by such."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"CALOTYPE_HOME={home}".encode() in path.read_bytes().split(b"\0"):
                found.append(path.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended, or is another user's
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Settings]]:
    settings = Settings(home=tmp_path_factory.mktemp("running"))
    with own_server(settings, port=0) as (server, _):
        yield server, settings


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import sys
import calotype.cli
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert answer.stdout.strip() == "[]"
    assert "generate" in calotype(tmp_path, "--help").stdout


def test_every_setting_is_a_flag_of_serve() -> None:
    assert set(Settings.model_fields) <= set(inspect.signature(serve).parameters)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("generate",),
        ("generate", "a tent", "--steps", "few"),
        ("generate", "a tent", "-o", "tent.gif"),
        ("generate", "a tent", "-o", "nowhere/tent.png"),
        ("serve", "--port", "99999"),
        ("keys", "revoke"),
    ],
)
def test_wrong_use_exits_with_2_and_says_why(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    answer = calotype(tmp_path, *arguments)
    assert answer.returncode == 2
    assert answer.stderr.strip()
    assert "Traceback" not in answer.stderr


def test_a_wrong_setting_in_the_environment_fails_with_one_line(tmp_path: Path) -> None:
    answer = calotype(tmp_path, "serve", env={"CALOTYPE_PORT": "many"})
    assert answer.returncode == 1
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "CALOTYPE_PORT" in answer.stderr


def test_a_server_that_is_not_there_fails_with_one_line(tmp_path: Path) -> None:
    env = {"CALOTYPE_URL": "http://127.0.0.1:9", "CALOTYPE_KEY": "k"}
    answer = calotype(tmp_path, "generate", "a tent", env=env)
    assert answer.returncode == 1
    assert "can't reach http://127.0.0.1:9" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "arguments", [("serve",), ("keys", "list"), ("generate", "a tent"), ("demo",)], ids=" ".join
)
def test_a_home_that_is_no_use_fails_with_one_line(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("no folder")
    answer = calotype(tmp_path, *arguments, "--home", str(tmp_path / "file"))
    assert answer.returncode == 1
    assert f"the home folder {tmp_path / 'file'} can't be used" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_tenant_without_a_name_is_refused_and_not_taken_for_another(tmp_path: Path) -> None:
    answer = calotype(tmp_path, "keys", "create", "--tenant", "")
    assert answer.returncode == 2
    assert "tenant" in answer.stderr
    assert json.loads(calotype(tmp_path, "keys", "list", "--json").stdout)["keys"] == []


def test_what_is_kept_is_private_also_in_a_home_that_others_may_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "calotype.db").touch(0o644)
    calotype(tmp_path, "keys", "create")
    kept = list(tmp_path.glob("calotype.db*"))
    assert kept
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


def test_keys_are_made_listed_and_revoked_without_a_server(tmp_path: Path) -> None:
    made = json.loads(calotype(tmp_path, "keys", "create", "--tenant", "a", "--json").stdout)
    listed = json.loads(calotype(tmp_path, "keys", "list", "--json").stdout)["keys"]
    assert [key["id"] for key in listed] == [made["id"]]
    assert "key" not in listed[0]
    assert made["key"] not in calotype(tmp_path, "keys", "list").stdout
    revoked = json.loads(calotype(tmp_path, "keys", "revoke", made["id"], "--json").stdout)
    assert revoked["revoked_at"]
    unknown = calotype(tmp_path, "keys", "revoke", "key_x")
    assert unknown.returncode == 1
    assert "key_x" in unknown.stderr


def test_a_key_made_beside_a_running_server_opens_it(running: tuple[Server, Settings]) -> None:
    server, settings = running
    key = calotype(settings.home, "keys", "create", "--name", "second").stdout.strip()
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/v1/jobs", headers=headers).status_code == 200


def test_models_are_listed_without_a_server(tmp_path: Path) -> None:
    body = json.loads(calotype(tmp_path, "models", "list", "--json").stdout)
    assert [model["name"] for model in body["models"]] == ["vignette"]
    assert "vignette" in calotype(tmp_path, "models", "list").stdout


def test_doctor_says_what_is_there_and_how_to_get_the_rest(tmp_path: Path) -> None:
    answer = calotype(tmp_path, "doctor", "--json")
    body = json.loads(answer.stdout)
    assert answer.returncode == (0 if body["ok"] else 1)
    by_name = {finding["name"]: finding for finding in body["findings"]}
    assert by_name["torch"]["is_ok"]
    assert by_name["embedded model"]["is_ok"]
    assert by_name["settings"]["is_ok"]
    assert all(each["remedy"] for each in body["findings"] if not each["is_ok"])


def test_doctor_finds_a_misspelt_variable(tmp_path: Path) -> None:
    answer = calotype(tmp_path, "doctor", "--json", env={"CALOTYPE_PROT": "1"})
    assert answer.returncode == 1
    by_name = {finding["name"]: finding for finding in json.loads(answer.stdout)["findings"]}
    assert not by_name["settings"]["is_ok"]
    assert "did you mean CALOTYPE_PORT?" in by_name["settings"]["found"]
    assert by_name["torch"]["is_ok"]  # and goes on to look at the rest


def test_doctor_counts_cores_where_python_knows_no_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    names = {name: n for name, n in os.sysconf_names.items() if name != "SC_AVPHYS_PAGES"}
    monkeypatch.setattr(os, "sysconf_names", names)  # as on macOS
    by_name = {finding.name: finding for finding in examine(tmp_path)}
    assert by_name["cores"].found == str(os.cpu_count())
    assert "free" not in by_name["memory"].found


def test_doctor_fails_where_something_required_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    answer = calotype(tmp_path, "doctor", "--home", str(tmp_path / "file"))
    assert answer.returncode == 1
    assert "MISSING" in answer.stdout


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
    calotype(tmp_path, "keys", "create", "--tenant", "a")  # a key, but none in the home folder
    if content is not None:
        (tmp_path / "key").write_bytes(content.encode() if isinstance(content, str) else content)
    said = served(tmp_path)  # and held to its key
    assert f"/#key={(tmp_path / 'key').read_text()}" in said
    keys = json.loads(calotype(tmp_path, "keys", "list", "--json").stdout)["keys"]
    assert [(key["tenant"], key["name"]) for key in keys] == [
        ("a", "made by hand"),
        ("default", "local"),
    ]


def test_a_key_file_that_cannot_be_written_fails_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    answer = calotype(tmp_path, "serve", "--port", "0")
    assert answer.returncode == 1
    assert f"the key file {tmp_path / 'key'} can't be written" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_second_server_on_the_same_home_is_refused(running: tuple[Server, Settings]) -> None:
    _, settings = running
    answer = calotype(settings.home, "serve", "--port", "0")
    assert answer.returncode == 1
    assert "already runs" in answer.stderr
    assert find_server(settings) is not None  # and the first one is left as it was


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_port_free("127.0.0.1", port)
        answer = calotype(tmp_path, "serve", "--port", str(port))
    assert answer.returncode == 1
    assert f"port {port}" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_server_of_our_own_has_a_key_of_its_own(
    running: tuple[Server, Settings], tmp_path: Path
) -> None:
    env = {"CALOTYPE_KEY": running[0].key}  # another server's
    answer = calotype(tmp_path, "generate", "a red tent", "--steps", "4", env=env)
    assert answer.returncode == 0, answer.stderr


def test_generate_uses_the_running_server(running: tuple[Server, Settings]) -> None:
    server, settings = running
    arguments = ("generate", "a red tent", "--steps", "4", "--seed", "5", "-n", "2", "--json")
    answer = calotype(settings.home, *arguments, "-o", "tent.webp")
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


class Delivery(Client):
    """A client whose server has every picture asked of it."""

    def __init__(self) -> None:
        super().__init__(Server("http://127.0.0.1:9", "k"))

    def download(self, path: str) -> bytes:
        return path.encode()


def job_of(*indices: int, n: int, **more: Any) -> dict[str, Any]:
    """A job's body with these of its ``n`` pictures."""
    images = [{"index": i, "seed": i, "url": f"/{i}.png", "webp_url": None} for i in indices]
    return {"n": n, "images": images, **more}


def test_a_withheld_picture_leaves_its_file_name_unused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = numbered(tmp_path / "tent.png", 3)
    why = [{"index": 1, "category": "violence", "detail": "it shows violence"}]
    saved = save_pictures(Delivery(), job_of(0, 2, n=3, refused=why), paths)
    assert [path.name for path in saved] == ["tent-1.png", "tent-3.png"]
    assert (tmp_path / "tent-3.png").read_bytes() == b"/2.png"
    said = capsys.readouterr().err
    assert "picture 2 of 3 was withheld by the safety check: it shows violence" in said


def test_a_text_that_is_too_long_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = {"step": 1, "steps": 1, "tokens_cut": 12}
    log = [("step", {**step, "image": 0}), ("step", {**step, "image": 1}), ("succeeded", {})]
    job = {**job_of(0, 1, n=2), "id": "job_1", "steps": 1, "status": "succeeded"}
    client = Delivery()
    monkeypatch.setattr(client, "create", lambda _: job)
    monkeypatch.setattr(client, "follow", lambda _: iter(log))
    monkeypatch.setattr(client, "job", lambda _: job)
    make_pictures(client, {"prompt": "a tent"})
    assert capsys.readouterr().err.count("its last 12 tokens do nothing") == 1


def test_a_job_with_no_picture_left_is_a_failure_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(JobEnded, match="withheld them all") as caught:
        save_pictures(Delivery(), job_of(n=2), numbered(tmp_path / "tent.png", 2))
    assert exit_code(caught.value) == 1


def test_a_picture_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "tent.png").mkdir()
    with pytest.raises(OperatorError, match=r"can't write .*tent\.png: Is a directory"):
        save_pictures(Delivery(), job_of(0, n=1), [tmp_path / "tent.png"])


def test_generate_never_overwrites_what_it_was_not_told_to(
    running: tuple[Server, Settings], tmp_path: Path
) -> None:
    _, settings = running
    arguments = ("generate", "a red tent", "--steps", "4", "--seed", "5")
    names = [calotype(settings.home, *arguments, cwd=tmp_path).stdout.strip() for _ in range(2)]
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
    answer = calotype(settings.home, "generate", "a tent", *options)
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


def test_generate_starts_what_it_needs_and_ends_it(tmp_path: Path) -> None:
    answer = calotype(tmp_path, "generate", "a red tent", "--steps", "4", "-o", "tent.png")
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
    settings = Settings(home=tmp_path)
    with own_server(settings, port=0) as (server, process):
        headers = {"Authorization": f"Bearer {server.key}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
            ask = {"prompt": "a lake", "steps": 100, "n": 4}
            job = client.post("/v1/jobs", json=ask).json()
            with client.stream("GET", job["urls"]["events"]) as stream:
                parts = stream.iter_bytes()
                assert b"queued" in next(parts)
                began = time.monotonic()
                process.terminate()
                for _ in parts:  # ends in good order: a broken connection would raise
                    pass
                assert time.monotonic() - began < 5
        process.wait(30)


def start_demo(home: Path, port: int) -> subprocess.Popen[str]:
    (home / "calotype.toml").write_text(f"port = {port}")
    return start(home, "demo", "--prompt", "a red tent")


def wait_for_server(home: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        server = find_server(Settings(home=home)) if (home / "server.json").exists() else None
        if server:
            return server.url
        time.sleep(0.05)
    raise AssertionError("no server within 60 s")


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
