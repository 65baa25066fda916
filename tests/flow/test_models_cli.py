"""``calotype models``: every command from a person's side, against folders on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from calotype.cli.doctor import examine
from tests.flow.command_line import here
from tests.tensors import autoencoder, lora, make_base, make_classifier, tensors


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


class Command:
    """``calotype models``, typed in a home folder."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return here(self._home, "models", *arguments)

    def told(self, *arguments: str) -> Any:
        answer = self.run(*arguments, "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def refused(self, code: int, *arguments: str) -> str:
        answer = self.run(*arguments)
        assert answer.returncode == code, answer.stderr
        assert answer.stdout == ""
        assert answer.stderr.startswith("calotype: ") or "Usage" in answer.stderr
        return " ".join(answer.stderr.split())


@pytest.fixture
def models(home: Path) -> Command:
    return Command(home)


def test_a_model_from_its_adding_to_its_end(tmp_path: Path, models: Command) -> None:
    versions = [
        models.told("add", str(make_base(tmp_path / f"m{at}", fill=bytes([at]))), "--name", "dream")
        for at in range(2)
    ]
    one, two = (it["version"] for it in versions)
    assert versions[0]["is_new"]
    listed = models.told("list")
    assert [it["name"] for it in listed["models"]] == ["vignette", "dream"]
    assert [(it["version"], it["aliases"]) for it in listed["versions"]] == [
        (one, ["stable"]),
        (two, []),
    ]
    assert listed["broken"] == {}
    assert {it["kind"] for it in listed["models"][1]["components"]} == {"denoiser", "vae"}

    assert models.told("alias", "dream@beta", two[:8])["aliases"]["beta"]["version"] == two
    canary = models.told("canary", "dream", "beta", "--share", "0.25")["aliases"]["stable"]
    assert canary["canary"] == {"version": two, "share": 0.25}
    promoted = models.told("promote", "dream")["aliases"]["stable"]
    assert (promoted["version"], promoted["canary"], promoted["past"]) == (two, None, [one])
    rolled_back = models.told("rollback", "dream")["aliases"]["stable"]
    assert (rolled_back["version"], rolled_back["past"]) == (one, [])
    assert "stood for nothing else before" in models.refused(1, "rollback", "dream@stable")
    assert models.told("pin", "dream@beta")["pinned"] == [f"base/dream@{two}"]
    assert models.told("pin", "vignette")["pinned"] == ["base/vignette"]

    shown = models.told("show", "dream@beta")
    assert (shown["kind"], shown["version"]) == ("base", two)
    assert [it["why"] for it in shown["aliases"]["stable"]["history"]] == [
        "added",
        f"canary {two}, 25 %",
        "promoted",
        "rolled back",
    ]
    text = models.run("show", "dream").stdout
    assert f"@stable is {one}" in text
    assert "rolled back" in text
    assert f"{two[:8]} (beta)" in models.run("list").stdout

    assert "it is pinned" in models.refused(2, "remove", f"dream@{two}")
    assert models.told("unpin", "dream@beta")["pinned"] == []
    assert set(models.told("alias", "dream@beta", "--delete")["aliases"]) == {"stable"}
    assert models.told("remove", f"dream@{two}") == {"removed": f"base/dream@{two}"}
    assert models.run("verify", "dream").stdout == f"base/dream@{one}  as registered\n"
    assert models.told("remove", "dream") == {"removed": f"base/dream@{one}"}
    assert models.told("list")["versions"] == []


def test_changed_bytes_are_found_by_verify_and_named_by_doctor(
    home: Path, tmp_path: Path, models: Command
) -> None:
    version = models.told("add", str(make_base(tmp_path / "dream")))["version"]
    assert models.told("verify") == {"ok": True, "models": {f"base/dream@{version}": None}}
    [finding] = [it for it in examine(home) if it.name == "models"]
    assert (finding.is_ok, finding.found) == (True, "2 that can be used")
    folder = home / "models" / ".registry" / "base" / "dream" / version
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(tensors(autoencoder(), fill=b"\1"))
    answer = models.run("verify", "--json")
    assert answer.returncode == 1
    reason = json.loads(answer.stdout)["models"][f"base/dream@{version}"]
    assert reason.startswith("immutable: content differs from what was registered: vae/")
    file.write_bytes(b"")
    [finding] = [it for it in examine(home) if it.name == "models"]
    assert not finding.is_ok
    assert not finding.is_required
    assert f"dream@{version}: immutable" in finding.found
    shown = models.told("show", "dream")
    assert (shown["model"], shown["version"]) == (None, version)
    assert shown["broken"].startswith("immutable")
    assert models.told("remove", "dream") == {"removed": f"base/dream@{version}"}


def test_a_name_of_two_kinds_has_to_say_which(tmp_path: Path, models: Command) -> None:
    models.told("add", str(make_classifier(tmp_path / "ink")), "--kind", "classifier")
    file = tmp_path / "ink.safetensors"
    file.write_bytes(tensors(lora()))
    models.told("add", str(file), "--licence", "MIT")
    assert "more than one kind" in models.refused(2, "show", "ink")
    assert models.told("show", "lora/ink")["model"]["licence"] == "MIT"
    judge = models.told("show", "classifier/ink@latest")["model"]
    assert (judge["task"], judge["labels"]) == ("image-classification", ["safe", "not safe"])
    listed = models.run("list").stdout
    assert "image-classification" in listed
    assert "LoRA" in listed


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("add", "none"), 1, "none can't be read: No such file or directory"),
        (("add", "it.ckpt"), 1, "a pickle can run code when it is read"),
        (("add", "dream", "--name", "../dream"), 2, "can't be a name"),
        (("add", "dream", "--kind", "car"), 2, "car is none of base, lora"),
        (("add", "dream", "--kind", "vae"), 2, "dream is a model, not a VAE"),
        (("add", "dream", "--link", "--hard-link"), 2, "not both"),
        (("show", "nothing"), 2, "there is no model of any kind named 'nothing'"),
        (("show", "car/dream"), 2, "'car' is no kind of model"),
        (("show", "vignette@beta"), 2, "no version or alias 'beta'"),
        (("promote", "vignette", "abcdef"), 2, "vignette is a folder and has no versions"),
        (("remove", "vignette"), 2, "was not registered: it is a folder"),
        (("verify", "vignette"), 2, "was not registered"),
        (("canary", "vignette"), 2, "--share 0 to end it"),
        (("alias", "vignette"), 2, "a VERSION, or --delete"),
    ],
)
def test_wrong_use_is_refused_in_words(
    home: Path, models: Command, arguments: tuple[str, ...], code: int, says: str
) -> None:
    make_base(home / "dream")
    (home / "it.ckpt").touch()
    assert says in models.refused(code, *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("alias", "dream@deadbeef", "VERSION"), "can't be an alias"),
        (("alias", "dream@latest", "VERSION"), "can't be an alias"),
        (("alias", "dream@beta", "abcdef"), "no version or alias 'abcdef'"),
        (("alias", "dream@stable", "--delete"), "it stays"),
        (("alias", "dream@beta", "--delete"), "no version or alias 'beta'"),
        (("promote", "dream"), "dream@stable has no canary: say which version"),
        (("canary", "dream", "VERSION"), "stands for that version already"),
        (("canary", "dream", "VERSION", "--share", "2"), "share is 2"),
    ],
)
def test_an_alias_that_can_t_be_is_refused_in_words(
    tmp_path: Path, models: Command, arguments: tuple[str, ...], says: str
) -> None:
    version = models.told("add", str(make_base(tmp_path / "dream")))["version"]
    typed = [it.replace("VERSION", version) for it in arguments]
    answer = models.run(*typed)
    assert answer.returncode in (1, 2)
    assert says in answer.stderr
