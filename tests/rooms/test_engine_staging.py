"""Copies of models in host memory: within their budget, each part once, loaded without a disk."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calotype.core.messages import (
    DropCopy,
    LoadModel,
    Message,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    RowDone,
    UnloadModel,
)
from calotype.core.nouns import Component
from calotype.engine.loop import Engine
from calotype.engine.tensors import bytes_of
from tests.rooms.engine_bench import run_row, run_to_end
from tests.rooms.engine_models import CPU, make_model

pytestmark = pytest.mark.usefixtures("one_thread")
PARTS = {"sd15": ("unet", "vae", "text_encoder")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of one family that have all but the UNet in common."""
    home = tmp_path_factory.mktemp("models")
    one = make_model("sd15", home / "one")
    two = home / "two"
    shutil.copytree(one, two)
    file = next((two / "unet").glob("*.safetensors"))
    from safetensors.torch import load_file, save_file

    save_file({name: it * 0.5 for name, it in load_file(file).items()}, file)
    return {"one": one, "two": two}


def command(folders: dict[str, Path], name: str) -> LoadModel:
    """As the registry has it: a component for each part, the denoiser's of its own."""
    folder = folders[name]
    sizes = {
        part: sum(file.stat().st_size for file in (folder / part).glob("*.safetensors"))
        for part in PARTS["sd15"]
    }
    ids = {part: part if part != "unet" else f"unet of {name}" for part in sizes}
    parts = tuple(Component(ids[part], part, size) for part, size in sizes.items())
    return LoadModel(name, str(folder), name, components=parts)


class Bench:
    """An engine with room for copies, and all it says."""

    def __init__(self, folders: dict[str, Path], staging: int = 1 << 40, **more: Any) -> None:
        self.folders, self.heard = folders, list[Message]()
        self.blobs: dict[str, bytes] = {}
        self.engine = Engine(self._hear, CPU, staging_bytes=staging, **more)

    def load(self, *names: str) -> ModelLoaded | ModelFailed:
        for name in names:
            self.engine.load(command(self.folders, name))
        said = [it for it in self.heard if isinstance(it, ModelLoaded | ModelFailed)]
        return said[-1]

    def unload(self, name: str, *, stage: bool = True) -> ModelUnloaded:
        self.engine.handle(UnloadModel(name, stage))
        while not self.engine._warming.is_over:
            if not self.engine.tick():
                self.engine._warming.wait()
        return [it for it in self.heard if isinstance(it, ModelUnloaded)][-1]

    def picture(self, model: str) -> bytes:
        self.engine.handle(run_row("row", model=model))
        run_to_end(self.engine)
        return self.blobs.pop("row")

    @property
    def held(self) -> dict[str, int]:
        return self.engine.accounts.held()

    def _hear(self, message: Message, blob: bytes = b"") -> None:
        self.heard.append(message)
        if isinstance(message, RowDone):
            self.blobs[message.row] = blob


@pytest.fixture
def alive() -> Iterator[Callable[[], int]]:
    """Bytes of all tensors made since."""
    gc.collect()
    gc.freeze()

    def count() -> int:
        gc.collect()
        return bytes_of(it for it in gc.get_objects() if isinstance(it, torch.Tensor))

    yield count
    gc.unfreeze()


def test_a_copy_is_loaded_from_without_its_files_and_draws_the_same(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    moved = {"one": tmp_path / "one"}
    shutil.copytree(folders["one"], moved["one"])
    bench = Bench(moved)
    bench.load("one")
    before = bench.picture("one")
    assert bench.unload("one") == ModelUnloaded("one", is_staged=True)
    for file in moved["one"].rglob("*.safetensors"):
        file.write_bytes(b"")
    loaded = bench.load("one")
    assert isinstance(loaded, ModelLoaded), loaded
    assert 0 <= loaded.bytes - loaded.staged < 100_000, "all but what no file has"
    assert bench.picture("one") == before
    assert bench.held["staged"] == 0, "it is the model's again"


def test_copies_are_counted_in_a_line_of_their_own_and_nothing_else_is_alive(
    folders: dict[str, Path], alive: Callable[[], int]
) -> None:
    bench = Bench(folders)
    bench.load("one", "two")
    both = bench.held
    bench.unload("one")
    bench.unload("two")
    staged = bench.held
    assert staged["weights"] == 0
    assert staged["staged"] == pytest.approx(both["weights"], rel=0.05), "shared parts once"
    assert sum(staged.values()) == alive()
    assert bench.engine.accounts.ledger().kept == staged["texts"], "and not on the device's budget"
    bench.load("two")
    held = bench.held
    assert held["staged"] < staged["staged"] / 2, "what both have is the warm one's on a CPU"
    assert sum(held.values()) == alive()
    bench.engine.handle(DropCopy("one"))
    bench.engine.tick()
    assert bench.held["staged"] == 0
    assert sum(bench.held.values()) == alive()


def test_a_copy_is_never_kept_past_its_budget_and_what_is_there_already_is_free(
    folders: dict[str, Path],
) -> None:
    whole = Bench(folders)
    whole.load("one")
    weights = whole.held["weights"]
    small = Bench(folders, staging=weights // 2)
    small.load("one")
    said = small.unload("one")
    assert not said.is_staged
    assert "bytes are needed" in said.why_not
    assert small.held["staged"] == 0
    unet = command(folders, "two").components[0].bytes
    bench = Bench(folders, staging=weights + unet + 50_000)
    bench.load("one", "two")
    assert bench.unload("one").is_staged
    assert bench.unload("two").is_staged, "only its UNet is new"
    assert bench.held["staged"] <= bench.engine._models.staging.budget


def test_without_a_budget_or_known_parts_there_is_no_copy(folders: dict[str, Path]) -> None:
    bench = Bench(folders, staging=0)
    bench.load("one")
    assert bench.unload("one").why_not
    assert bench.unload("one", stage=False) == ModelUnloaded("one")
    unknown = Bench(folders)
    unknown.engine.load(replace(command(folders, "one"), components=()))
    assert "nobody knows its parts" in unknown.unload("one").why_not


def test_a_model_with_a_merge_in_it_leaves_no_copy(tiny: Path, lora_files: list[Path]) -> None:
    from tests.rooms.engine_loras import lora

    bench = Bench({})
    whole = (Component("tiny", "model", 1),)  # nobody knows its parts apart: all of it is one
    load = LoadModel("tiny", str(tiny), "build", components=whole)
    bench.engine.load(load)
    assert bench.unload("tiny").is_staged
    bench.engine.load(replace(load, merged=(lora(lora_files[4]),)))
    assert "as they were read" in bench.unload("tiny").why_not


def test_rows_that_come_while_a_copy_is_made_are_sent_elsewhere(folders: dict[str, Path]) -> None:
    bench = Bench(folders)
    bench.load("one")
    bench.engine.handle(UnloadModel("one", stage=True))
    bench.engine.handle(run_row("late", model="one"))
    assert bench.unload("one").name == "one"
    assert not bench.blobs
    assert "one" in bench.engine._models.staging
