"""``calotype models pull``, against a hub on this machine: what it fetches, refuses and resumes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calotype.pool.catalogue import Catalogue
from tests.flow.command_line import calotype, environment, here
from tests.hub import COMMIT, TOKEN, Hub, Repo, running
from tests.tensors import lora, make_base, make_classifier, tensors, unet

ACCEPT = ("--accept-licence", "apache-2.0")


def as_files(folder: Path) -> dict[str, bytes]:
    return {
        it.relative_to(folder).as_posix(): it.read_bytes()
        for it in sorted(folder.rglob("*"))
        if it.is_file()
    }


def variables(hub: Hub | str, **more: str) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url,
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1,localhost",
        **more,
    }


class Pull:
    """``calotype models pull``, typed in a home folder."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(
        self, hub: Hub | str, *arguments: str, **more: str
    ) -> subprocess.CompletedProcess[str]:
        env = variables(hub, **more)
        return here(self._home, "models", "pull", *arguments, env=env)


@pytest.fixture
def pull(home: Path) -> Pull:
    return Pull(home)


def refused(answer: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
    return answer.stderr


def catalogue_of(home: Path) -> Catalogue:
    catalogue = Catalogue(home / "models", home)
    catalogue.scan()
    return catalogue


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def repos(tmp_path: Path) -> dict[str, Repo]:
    dream = as_files(make_base(tmp_path / "dream", text=512))
    dream |= {
        "LICENSE.md": b"Do no harm.",
        "README.md": b"# Dream",
        "unet/diffusion_pytorch_model.bin": b"a pickle",
        "unet/diffusion_pytorch_model.fp16.safetensors": tensors(unet(), "F16"),
        "dream.ckpt": b"a pickle",
        "../outside.json": b"{}",
        "vae/../../outside.json": b"{}",
    }
    return {
        "us/dream": Repo(dream),
        "us/judge": Repo(as_files(make_classifier(tmp_path / "judge")), licence=None),
        "us/inks": Repo({"a.safetensors": tensors(lora()), "b.safetensors": tensors(lora())}),
        "us/pickled": Repo({"model.ckpt": b"a pickle", "config.json": b"{}"}),
        "us/climber": Repo({"a.safetensors": tensors(lora())}, commit="../../../up"),
    }


def test_a_pipeline_is_pulled_with_what_counts_of_it(
    home: Path, pull: Pull, repos: dict[str, Repo]
) -> None:
    with running(repos) as hub:
        answer = pull(hub, "us/dream", *ACCEPT, "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["kind"], told["name"], told["licence"]) == ("base", "dream", "apache-2.0")
    assert (told["source"], told["is_licence_accepted"]) == (f"hub:us/dream@{COMMIT}", True)
    assert set(told["files"]) == {
        "LICENSE.md",
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert "licence apache-2.0" in answer.stderr
    asked = [it.path for it in hub.asked]
    assert not [it for it in asked if ".bin" in it or "fp16" in it or "outside" in it]
    info = catalogue_of(home).models.get("dream")
    assert (info.build, info.licence) == (told["version"], "apache-2.0")
    weights = Path(info.path) / "unet/diffusion_pytorch_model.safetensors"
    assert weights.stat().st_mode & 0o222 == 0, "nobody may write to it, so an engine may map it"
    root = home / "models" / ".registry"
    assert not [it for it in root.rglob("*") if "downloads" in it.parts and it.is_file()]


def test_a_licence_has_to_be_accepted_by_its_name(
    home: Path, pull: Pull, repos: dict[str, Repo]
) -> None:
    with running(repos) as hub:
        said = refused(pull(hub, "us/dream"))
        assert f"read it at {hub.url}/us/dream, and add --accept-licence apache-2.0" in said
        assert "not 'mit'" in refused(pull(hub, "us/dream", "--accept-licence", "mit"))
        assert not [it for it in hub.asked if "resolve" in it.path]
        answer = pull(hub, "us/judge", "--accept-licence", "unknown", "--name", "pg13")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("classifier/pg13@")


def test_a_gated_repository_is_explained_and_its_token_is_for_the_hub_alone(
    home: Path, pull: Pull, repos: dict[str, Repo]
) -> None:
    repos["us/dream"].is_gated = True
    with running(repos) as hub:
        said = refused(pull(hub, "us/dream", *ACCEPT))
        assert f"us/dream is gated: accept its terms at {hub.url}/us/dream" in said
        assert "set HF_TOKEN" in said
        refused(pull(hub, "us/dream", *ACCEPT, HF_TOKEN="hf_wrong"))
        hub.asked.clear()
        answer = pull(hub, "us/dream", *ACCEPT, HF_TOKEN=TOKEN)
    assert answer.returncode == 0, answer.stderr
    elsewhere = [it for it in hub.asked if it.path.startswith("/elsewhere/")]
    assert elsewhere
    assert not [it for it in elsewhere if it.token]
    assert TOKEN not in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("us/nothing",), 1, "has no us/nothing, or it is private"),
        (("us/dream", "--revision", "never", *ACCEPT), 1, "us/dream has no such revision"),
        (("us/dream/unet", *ACCEPT), 2, "is no repository: it would be OWNER/NAME"),
        (("us/inks", *ACCEPT), 2, "has 2 files that could be meant: say which"),
        (("us/inks", "--file", "c.safetensors", *ACCEPT), 2, "has no 'c.safetensors'"),
        (("us/pickled", *ACCEPT), 1, "nothing that could be used: a pickle can run code"),
        (("us/climber", *ACCEPT), 1, "doesn't say which commit of us/climber it has"),
        (("us/dream", "--kind", "lora", *ACCEPT), 2, "is a model, not a LoRA"),
        (("us/dream", "--name", "../up", *ACCEPT), 2, "can't be a name"),
    ],
)
def test_what_can_t_be_pulled_is_refused_in_one_line(
    home: Path, pull: Pull, repos: dict[str, Repo], arguments: tuple[str, ...], code: int, says: str
) -> None:
    with running(repos) as hub:
        assert says in refused(pull(hub, *arguments), code)
    assert not [it for it in catalogue_of(home).models.list() if it.name != "vignette"]


def test_without_a_hub_it_is_refused_in_one_line(
    home: Path, pull: Pull, repos: dict[str, Repo]
) -> None:
    nowhere = "http://127.0.0.1:9"
    said = refused(pull(nowhere, "us/dream", *ACCEPT))
    assert f"{nowhere} can't be reached" in said
    assert len(said.strip().splitlines()) == 1
    env = variables(nowhere, HF_HUB_OFFLINE="1")  # which is read once in a process
    said = refused(calotype(home, "models", "pull", "us/dream", *ACCEPT, env=env))
    assert "HF_HUB_OFFLINE says to stay offline" in said


def test_one_file_of_several_is_pulled(home: Path, pull: Pull, repos: dict[str, Repo]) -> None:
    with running(repos) as hub:
        answer = pull(hub, "us/inks", "--file", "b.safetensors", "--name", "ink", *ACCEPT)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("lora/ink@")
    assert not [it for it in hub.asked if "a.safetensors" in it.path]


@pytest.mark.parametrize("file", ["vae/diffusion_pytorch_model.safetensors", "unet/config.json"])
def test_what_was_damaged_on_the_way_is_thrown_away(
    home: Path, pull: Pull, repos: dict[str, Repo], file: str
) -> None:
    right = repos["us/dream"].files[file]
    repos["us/dream"].lies = {file: right[:-1] + bytes([right[-1] ^ 1])}
    with running(repos) as hub:
        said = refused(pull(hub, "us/dream", *ACCEPT))
        assert f"{file} isn't what {hub.url} says it is" in said
        repos["us/dream"].lies = {}
        assert pull(hub, "us/dream", *ACCEPT).returncode == 0
    assert not catalogue_of(home).broken()


def test_a_pull_that_was_killed_goes_on_in_the_middle_of_a_file(
    home: Path, pull: Pull, repos: dict[str, Repo]
) -> None:
    large = tensors({**lora(), "unet.x.lora_A.weight": (2, 3_000_000)})
    repos["us/large"] = Repo({"large.safetensors": large}, stops_at=22_000_000)
    with running(repos) as hub:
        process = subprocess.Popen(
            [sys.executable, "-m", "calotype.cli", "models", "pull", "us/large", *ACCEPT],
            env={**environment(home), **variables(hub)},
            cwd=home,
        )
        assert hub.has_stopped.wait(60)
        downloads = home / "models" / ".registry" / "downloads"
        while sum(it.stat().st_size for it in downloads.rglob("*.part")) < 20_000_000:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not catalogue_of(home).adapters.broken()
        hub.asked.clear()
        answer = pull(hub, "us/large", *ACCEPT)
    assert answer.returncode == 0, answer.stderr
    [got] = [it for it in hub.asked if it.path.startswith("/elsewhere/") and it.method == "GET"]
    assert got.range is not None
    assert int(got.range.removeprefix("bytes=").rstrip("-")) >= 20_000_000
    assert "MB of it are here" in answer.stderr
