"""Commands that need no server: what they refuse, and what they say."""

from __future__ import annotations

import inspect
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calotype.cli.client import Client, Server
from calotype.cli.console import exit_code
from calotype.cli.doctor import examine
from calotype.cli.making import JobEnded, make_pictures, numbered, save_pictures
from calotype.cli.serve import serve
from calotype.cli.servers import is_port_free
from calotype.core.errors import OperatorError
from calotype.settings import Settings
from tests.flow.command_line import calotype, here

Run = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = ("torch", "fastapi", "sqlalchemy", "uvicorn", "pydantic", "PIL", "httpx")


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
    ("run", "arguments"),
    [
        (calotype, ("nope",)),
        (calotype, ("serve", "--port", "99999")),
        (here, ("generate",)),
        (here, ("generate", "a tent", "--steps", "few")),
        (here, ("generate", "a tent", "-o", "tent.gif")),
        (here, ("generate", "a tent", "-o", "nowhere/tent.png")),
        (here, ("keys", "revoke")),
    ],
)
def test_wrong_use_exits_with_2_and_says_why(
    tmp_path: Path, run: Run, arguments: tuple[str, ...]
) -> None:
    answer = run(tmp_path, *arguments)
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
    answer = here(tmp_path, "generate", "a tent", env=env)
    assert answer.returncode == 1
    assert "can't reach http://127.0.0.1:9" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("run", "arguments"),
    [
        (calotype, ("serve",)),
        (here, ("keys", "list")),
        (here, ("generate", "a tent")),
        (here, ("demo",)),
    ],
)
def test_a_home_that_is_no_use_fails_with_one_line(
    tmp_path: Path, run: Run, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("no folder")
    answer = run(tmp_path, *arguments, "--home", str(tmp_path / "file"))
    assert answer.returncode == 1
    assert f"the home folder {tmp_path / 'file'} can't be used" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_tenant_without_a_name_is_refused_and_not_taken_for_another(tmp_path: Path) -> None:
    answer = here(tmp_path, "keys", "create", "--tenant", "")
    assert answer.returncode == 2
    assert "tenant" in answer.stderr
    assert json.loads(here(tmp_path, "keys", "list", "--json").stdout)["keys"] == []


def test_what_is_kept_is_private_also_in_a_home_that_others_may_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "calotype.db").touch(0o644)
    calotype(tmp_path, "keys", "create")
    kept = list(tmp_path.glob("calotype.db*"))
    assert kept
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


def test_keys_are_made_listed_and_revoked_without_a_server(tmp_path: Path) -> None:
    made = json.loads(here(tmp_path, "keys", "create", "--tenant", "a", "--json").stdout)
    listed = json.loads(here(tmp_path, "keys", "list", "--json").stdout)["keys"]
    assert [key["id"] for key in listed] == [made["id"]]
    assert "key" not in listed[0]
    assert made["key"] not in here(tmp_path, "keys", "list").stdout
    revoked = json.loads(here(tmp_path, "keys", "revoke", made["id"], "--json").stdout)
    assert revoked["revoked_at"]
    unknown = here(tmp_path, "keys", "revoke", "key_x")
    assert unknown.returncode == 1
    assert "key_x" in unknown.stderr


def test_models_are_listed_without_a_server(tmp_path: Path) -> None:
    body = json.loads(here(tmp_path, "models", "list", "--json").stdout)
    assert [model["name"] for model in body["models"]] == ["vignette"]
    assert "vignette" in here(tmp_path, "models", "list").stdout


def test_doctor_says_what_is_there_and_how_to_get_the_rest(tmp_path: Path) -> None:
    answer = here(tmp_path, "doctor", "--json")
    body = json.loads(answer.stdout)
    assert answer.returncode == (0 if body["ok"] else 1)
    by_name = {finding["name"]: finding for finding in body["findings"]}
    assert by_name["torch"]["is_ok"]
    assert by_name["embedded model"]["is_ok"]
    assert by_name["settings"]["is_ok"]
    assert all(each["remedy"] for each in body["findings"] if not each["is_ok"])


def test_doctor_finds_a_misspelt_variable(tmp_path: Path) -> None:
    answer = here(tmp_path, "doctor", "--json", env={"CALOTYPE_PROT": "1"})
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
    answer = here(tmp_path, "doctor", "--home", str(tmp_path / "file"))
    assert answer.returncode == 1
    assert "MISSING" in answer.stdout


def test_a_key_file_that_cannot_be_written_fails_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    answer = calotype(tmp_path, "serve", "--port", "0")
    assert answer.returncode == 1
    assert f"the key file {tmp_path / 'key'} can't be written" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_port_free("127.0.0.1", port)
        answer = calotype(tmp_path, "serve", "--port", str(port))
    assert answer.returncode == 1
    assert f"port {port}" in answer.stderr
    assert "Traceback" not in answer.stderr


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
