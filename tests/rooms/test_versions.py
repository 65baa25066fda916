"""The registry of versions: taken in whole or not at all, and never changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calotype.core.errors import CalotypeError, InvalidInput, ModelBroken, OperatorError
from calotype.core.nouns import AdapterKind
from calotype.pool import intake
from calotype.pool.aliases import changing
from calotype.pool.kinds import ModelKind
from tests.rooms.registry_of import BASE, add, catalogue_of, files_below
from tests.tensors import (
    autoencoder,
    checkpoint,
    lora,
    make_autoencoder,
    make_base,
    make_classifier,
    make_controlnet,
    tensors,
    unet,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_model_is_taken_in_under_its_name_and_what_it_holds(home: Path, tmp_path: Path) -> None:
    source = make_base(tmp_path / "dream")
    (source / "LICENSE.md").write_text("Do no harm.")
    (source / "README.md").write_text("Buy my other models.")
    (source / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    added = add(home, source, title="Dream", licence="MIT")
    version = added.record.version
    assert added.is_new
    assert set(added.record.files) == {
        "model_index.json",
        "LICENSE.md",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    registry = catalogue_of(home).models
    info = registry.get("dream")
    assert (info.name, info.build) == (f"dream@{version}", version)
    assert (info.title, info.licence, info.family) == ("Dream", "MIT", "sdxl")
    assert Path(info.path).is_relative_to(home)
    assert [it.name for it in registry.offered()] == ["vignette", "dream"]
    shutil.rmtree(source)
    assert catalogue_of(home).models.get("dream") == info
    for reference in ("dream@stable", "dream@latest", f"dream@{version}", f"dream@{version[:6]}"):
        assert registry.choose(reference).info == info


def test_the_same_content_is_the_same_version(home: Path, tmp_path: Path) -> None:
    first = add(home, make_base(tmp_path / "one"), name="dream")
    again = add(home, make_base(tmp_path / "two"), name="dream", title="Another")
    assert (again.is_new, again.record) == (False, first.record)
    other = add(home, make_base(tmp_path / "three", fill=b"\1"), name="dream")
    assert other.is_new
    registry = catalogue_of(home).models
    assert registry.get("dream").build == first.record.version, "stable stays where it is"
    assert registry.get("dream@latest").build == other.record.version
    assert len([it for it in registry.list() if it.name.startswith("dream@")]) == 2


def test_every_kind_is_told_from_its_files(home: Path, tmp_path: Path) -> None:
    add(home, make_base(tmp_path / "dream"))
    (tmp_path / "ink.safetensors").write_bytes(tensors(lora()))
    assert add(home, tmp_path / "ink.safetensors").record.kind is ModelKind.LORA
    assert add(home, make_controlnet(tmp_path / "edges")).record.kind is ModelKind.CONTROL
    assert add(home, make_autoencoder(tmp_path / "sharp")).record.kind is ModelKind.VAE
    judge = add(home, make_classifier(tmp_path / "judge"))
    assert judge.record.kind is ModelKind.CLASSIFIER
    assert "preprocessor_config.json" in judge.record.files
    catalogue = catalogue_of(home)
    assert not catalogue.broken()
    ink = catalogue.adapters.get(AdapterKind.LORA, "ink", field="")
    assert (ink.bases, ink.path.endswith("/lora.safetensors")) == (("dream",), True)
    assert ink.suits(catalogue.models.get("dream"))
    assert not ink.suits(catalogue.models.get("vignette"))
    assert catalogue.adapters.get(AdapterKind.CONTROL, "edges", field="").bases == ("dream",)
    sharp = catalogue.shelf(ModelKind.VAE).choose("sharp", field="").info
    assert (sharp.bases, sharp.dtype) == (("dream",), "fp32")
    found = catalogue.shelf(ModelKind.CLASSIFIER).choose("judge", field="").info
    assert (found.task, found.labels) == ("image-classification", ("safe", "not safe"))


def test_a_checkpoint_in_one_file_takes_its_configuration_from_a_model_that_is_here(
    home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "found.safetensors"
    file.write_bytes(tensors(checkpoint()))
    with pytest.raises(InvalidInput, match="has no configuration") as caught:
        add(home, file)
    assert (caught.value.field, caught.value.limit) == ("config", "sdxl")
    like = make_base(tmp_path / "like")
    added = add(home, file, config=like)
    assert "unet/diffusion_pytorch_model.safetensors" not in added.record.files
    info = catalogue_of(home).models.get("found")
    assert info.family == "sdxl"
    kinds = {it.kind: it.bytes for it in info.components}
    assert kinds["vae"] == 4 * 8 * 4 * 9
    wide = make_base(tmp_path / "wide", width=32)
    with pytest.raises(InvalidInput, match="other shapes than those of wide"):
        add(home, file, name="other", config=wide)
    old = make_base(tmp_path / "old", kind="StableDiffusionPipeline")
    with pytest.raises(InvalidInput, match="the checkpoint is of sdxl, and old of sd15"):
        add(home, file, name="other", config=old)
    partial = {name: it for name, it in checkpoint().items() if "first_stage" not in name}
    file.write_bytes(tensors(partial))
    added = add(home, file, config=like)
    assert "vae/diffusion_pytorch_model.safetensors" in added.record.files, "it lacks one"


def test_a_model_may_be_linked_and_then_stands_and_falls_with_its_files(
    home: Path, tmp_path: Path
) -> None:
    source = make_base(tmp_path / "dream")
    add(home, source, mode="link")
    hard = add(home, source, name="hard", mode="hard-link").record
    catalogue = catalogue_of(home)
    assert not catalogue.broken()
    weights = source / "vae" / "diffusion_pytorch_model.safetensors"
    folder = catalogue.versions.folder(BASE, "hard", hard.version)
    assert (folder / "vae" / weights.name).samefile(weights)
    weights.unlink()
    [reason] = catalogue_of(home).broken().values()
    assert reason.startswith("vae/diffusion_pytorch_model.safetensors can't be read (it was added")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("it.ckpt", b"", "a pickle can run code when it is read"),
        ("it.BIN", b"", "a pickle can run code when it is read"),
        ("it.txt", b"", "nothing known"),
        ("it.safetensors", b"", "no whole safetensors file"),
        ("it.safetensors", tensors({"odd.weight": [1]}), "no LoRA and no checkpoint"),
        ("it.safetensors", tensors(unet())[:-1], "is cut short"),
    ],
)
def test_a_file_that_is_of_no_use_is_refused_with_the_reason(
    home: Path, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelBroken, match=reason) as caught:
        add(home, tmp_path / name, name="it")
    assert caught.value.field
    assert files_below(home) == []


def test_a_folder_that_is_of_no_use_is_refused_with_the_reason(home: Path, tmp_path: Path) -> None:
    def refused(make: Callable[[Path], object]) -> CalotypeError:
        folder = tmp_path / "it"
        shutil.rmtree(folder, ignore_errors=True)
        folder.unlink(missing_ok=True)
        make(folder)
        with pytest.raises(CalotypeError) as caught:
            add(home, folder)
        assert caught.value.field
        assert [it for it in files_below(home) if not it.startswith("lock")] == []
        return caught.value

    def with_files(**content: str | bytes) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            folder.mkdir()
            for name, each in content.items():
                data = each.encode() if isinstance(each, str) else each
                (folder / name.replace("__", ".")).write_bytes(data)

        return make

    assert "can't be read: Too many levels" in refused(lambda it: it.symlink_to(it)).detail
    assert "it is nothing known" in refused(Path.mkdir).detail
    assert "a pickle can run code" in refused(with_files(model__bin=b"")).detail
    two = with_files(a__safetensors=tensors(lora()), b__safetensors=tensors(lora()))
    assert refused(two).limit == ["a.safetensors", "b.safetensors"]
    odd = with_files(config__json='{"_class_name": "UNetMotionModel"}')
    assert "UNetMotionModel, which is of no use here" in refused(odd).detail
    assert refused(with_files(model_index__json='{"_class_name": "Kolors"}')).field == "_class_name"
    assert "isn't JSON" in refused(with_files(model_index__json="{")).detail
    labels = with_files(
        config__json='{"architectures": ["XForImageClassification"], "id2label": {"1": "a"}}',
        model__safetensors=tensors({"a": [1]}),
    )
    assert refused(labels).field == "id2label"


@pytest.mark.parametrize("name", ["../it", "a/b", "..", ".it", "", "a@b", "a..b", "a" * 101, "ä"])
def test_a_name_that_leaves_its_folder_or_reads_as_a_reference_is_refused(
    home: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match="can't be a name") as caught:
        add(home, make_base(tmp_path / "it"), name=name)
    assert (caught.value.field, caught.value.limit) == ("name", {"max_chars": 100})


def test_a_name_that_a_folder_has_is_taken_and_a_kind_can_be_insisted_on(
    home: Path, tmp_path: Path
) -> None:
    source = make_base(home / "models" / "mine")
    with pytest.raises(InvalidInput, match="in a folder outside the registry"):
        add(home, source)
    with pytest.raises(InvalidInput, match="'vignette'"):
        add(home, source, name="vignette")
    with pytest.raises(InvalidInput, match="mine is a model, not a VAE"):
        add(home, source, name="other", kind=ModelKind.VAE)
    make_autoencoder(tmp_path / "mine")
    assert add(home, tmp_path / "mine").record.kind is ModelKind.VAE, "another kind's name"


# Whole or not at all.

SCRIPT = """
import os, signal, sys
from pathlib import Path
from calotype.pool import aliases, intake, versions
from calotype.pool.catalogue import Catalogue
from calotype.pool.intake import Wish, take_in
home, source, name, where = sys.argv[1:5]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "copying":
    copy = intake._copy
    intake._copy = lambda source, target: (copy(source, target), "vae" in str(target) and die())[0]
elif where == "putting":
    versions._sync = die
elif where == "noting":
    aliases.write_private = die
catalogue = Catalogue(Path(home) / "models", Path(home), is_quick=True)
catalogue.scan()
print(take_in(catalogue.versions, Path(source), Wish(name=name), taken={}).record.version)
"""


def adding(home: Path, source: Path, name: str, where: str = "") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT, str(home), str(source), name, where]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("where", ["copying", "putting", "noting"])
def test_a_process_that_is_killed_leaves_no_half_model(
    home: Path, tmp_path: Path, where: str
) -> None:
    source = make_base(tmp_path / "dream")
    process = adding(home, source, "dream", where)
    process.communicate()
    assert process.returncode == -9
    catalogue = catalogue_of(home)
    assert not catalogue.broken()
    is_there = catalogue.models.shelf.has("dream")
    assert is_there == (where == "noting"), "one rename brings it in"
    added = add(home, source)
    assert added.is_new != is_there
    assert catalogue_of(home).models.get("dream").build == added.record.version
    add(home, make_base(tmp_path / "other"))
    assert not [it for it in files_below(home) if it.startswith("staging/")]


def test_processes_that_add_at_once_disturb_nobody(home: Path, tmp_path: Path) -> None:
    sources = [make_base(tmp_path / f"m{at}", fill=bytes([at])) for at in range(3)]
    processes = [adding(home, source, "dream") for source in (*sources, sources[0])]
    versions = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert versions[3] == versions[0]
    catalogue = catalogue_of(home)
    assert not catalogue.broken()
    found = [it.build for it in catalogue.models.list() if it.name.startswith("dream@")]
    assert sorted(found) == sorted(set(versions))
    stable = catalogue.models.shelf.aliases("dream")["stable"]
    assert stable.version in found
    assert [it.why for it in stable.history] == ["added"]
    assert catalogue.versions.state().changes == 4


def test_a_full_disk_is_told_and_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_base(tmp_path / "dream", width=256)
    (home / "models").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home / "models")]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        with pytest.raises(OperatorError, match="bytes free, and") as caught:
            add(home, source)
        assert caught.value.field == "disk"
        assert 0 < caught.value.limit <= 2**20
        monkeypatch.setattr(intake, "check_free", lambda root, wanted: None)
        with pytest.raises(OperatorError, match="is full: nothing was added") as caught:
            add(home, source)
        assert caught.value.field == "disk"
        assert not [it for it in files_below(home) if it.endswith(".safetensors")]
        add(home, make_base(tmp_path / "small"))
    finally:
        subprocess.run(["umount", str(home / "models")], check=True)


def test_what_may_not_be_read_is_told(home: Path, tmp_path: Path) -> None:
    source = make_base(tmp_path / "dream")
    weights = source / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.symlink_to(weights)  # as unreadable for root as for anybody
    with pytest.raises(CalotypeError) as caught:
        add(home, source)
    assert "vae" in caught.value.detail
    assert files_below(home) == []


# Never changed.


def test_changed_bytes_are_refused(home: Path, tmp_path: Path) -> None:
    record = add(home, make_base(tmp_path / "dream")).record
    catalogue = catalogue_of(home)
    folder = catalogue.versions.folder(BASE, "dream", record.version)
    catalogue.versions.verify(folder, record)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    before = weights.stat()
    original = weights.read_bytes()
    weights.write_bytes(tensors(autoencoder(), fill=b"\1"))
    name = f"dream@{record.version}"
    expected = (
        "immutable: content differs from what was registered:"
        " vae/diffusion_pytorch_model.safetensors"
    )
    assert catalogue_of(home).broken() == {name: expected}
    with pytest.raises(InvalidInput, match=r"no model named 'dream' \(immutable"):
        catalogue_of(home).models.get("dream")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not catalogue_of(home).broken(), "by size and time it is the same ..."
    with pytest.raises(ModelBroken, match="immutable"):  # ... and by its bytes it isn't
        catalogue.versions.verify(folder, record)
    weights.write_bytes(original)
    assert not catalogue_of(home).broken(), "another time, the same bytes"
    (folder / "unet" / "model.safetensors").write_bytes(tensors(unet()))
    assert not catalogue_of(home).broken(), "nobody reads that"
    (folder / "unet" / "more.json").write_text("{}")
    assert catalogue_of(home).broken()[name].endswith("other files than were registered")
    (folder / ".version.json").write_text(json.dumps({"format": 1, "files": {"../../x": {}}}))
    assert catalogue_of(home).broken()[name].startswith(".version.json: ")


# Seen without a restart.


def test_what_changes_is_seen_once_it_is_at_rest(home: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(home)
    assert not catalogue.refresh()
    first = add(home, make_base(tmp_path / "one"), name="dream").record.version
    assert catalogue.refresh(), "what is registered is whole: it is seen at once"
    assert catalogue.models.get("dream").build == first
    second = add(home, make_base(tmp_path / "two", fill=b"\1"), name="dream").record.version
    with changing(catalogue.versions.root) as state:
        state.point(BASE, "dream", "stable", second, "promoted")
    assert catalogue.refresh()
    assert catalogue.models.get("dream").build == second
    folder = make_base(home / "models" / "copied")
    assert not catalogue.refresh(), "it may still be on its way"
    (folder / "calotype.json").write_text('{"title": "Copied"}')
    assert not catalogue.refresh()
    assert catalogue.refresh()
    assert catalogue.models.get("copied").title == "Copied"
    assert not catalogue.refresh()
    shutil.rmtree(folder)
    assert not catalogue.refresh()
    assert catalogue.refresh()
    assert not catalogue.models.shelf.has("copied")
