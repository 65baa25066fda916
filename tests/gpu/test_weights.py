"""Weights on their way to a GPU and back: each tensor is what safetensors reads by itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.core.errors import ModelBroken
from calotype.core.messages import LoadModel
from calotype.engine import weights
from calotype.engine.families.loading import load_model
from calotype.engine.staging import Staging
from calotype.engine.weights import Reader
from tests.rooms.engine_models import make_model

pytestmark = pytest.mark.gpu
MB = 1024**2
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def as_it_is(_: str, dtype: torch.dtype) -> torch.dtype:
    return dtype


def read(path: Path, gpu: torch.device) -> dict[str, torch.Tensor]:
    with Reader(gpu) as reader:
        found = reader.read(path, as_it_is)
        reader.wait()
    return found


def differing(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that differ in a bit, in shape, or are missing."""
    assert all(tensor.device.type == "cuda" for tensor in found.values())
    same = {name for name in expected if torch.equal(found[name].cpu(), expected[name])}
    return sorted({*found, *expected} - same)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd sizes of each dtype, side by side."""
    tensors = {
        f"{dtype}-{count}": (torch.randn(count) * 100).to(dtype)
        for dtype, count in itertools.product(DTYPES, (1, 3, 64, 1_001, 70_001))
    }
    tensors |= {"one": torch.tensor(7.0), "none": torch.empty(0, 4), "flags": torch.ones(9) > 0}
    path = tmp_path_factory.mktemp("small") / "model.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def middling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gigabyte: tensors of many pieces, and pieces of many tensors."""
    big = {f"big.{at}": torch.randn(40 * MB // 2).to(torch.float16) for at in range(20)}
    some = {f"some.{at}": torch.randn(333, 77) for at in range(2_000)}
    path = tmp_path_factory.mktemp("middling") / "model.safetensors"
    save_file(big | some, path)
    return path


@pytest.mark.parametrize("piece", [weights._PIECE_BYTES, 4_096, 64])
def test_what_is_read_through_pinned_buffers_is_what_the_file_has(
    gpu: torch.device, small: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_PIECE_BYTES", piece)
    assert differing(read(small, gpu), load_file(small)) == []


def test_a_gigabyte_in_four_threads_is_what_the_file_has_each_time(
    gpu: torch.device, middling: Path
) -> None:
    expected = load_file(middling)
    for _ in range(3):  # memory and streams are used again
        assert differing(read(middling, gpu), expected) == []


def test_what_is_converted_on_the_way_is_converted_as_pytorch_does(
    gpu: torch.device, small: Path
) -> None:
    with Reader(gpu) as reader:
        found = reader.read(small, lambda name, dtype: torch.float32)
        reader.wait()
    expected = {name: it.float() for name, it in load_file(small).items()}
    assert differing(found, expected) == []


def test_a_file_that_is_cut_short_leaves_nothing_on_its_way(
    gpu: torch.device, middling: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(middling.read_bytes())

    def cut(done: int, total: int) -> None:
        with copy.open("r+b") as stream:
            stream.truncate(100 * MB)

    with Reader(gpu, cut) as reader:
        lost = reader.read(copy, as_it_is)
        with pytest.raises(ModelBroken, match="cut short"):
            reader.wait()
    del lost
    mine = torch.zeros(900 * MB, dtype=torch.uint8, device=gpu)  # where that was to go
    torch.cuda.synchronize(gpu)
    assert not mine.any()


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_a_loaded_model_has_the_weights_of_its_files(
    gpu: torch.device, tmp_path: Path, family: str
) -> None:
    folder = make_model(family, tmp_path / family)
    model = load_model(LoadModel(family, str(folder), "build"), gpu)
    parts = {"vae": model.vae, "unet": model.denoiser, "transformer": model.denoiser}
    for name, module in parts.items():
        for file in (folder / name).glob("*.safetensors"):
            own = module.state_dict()
            expected = {key: it.to(own[key].dtype) for key, it in load_file(file).items()}
            assert differing({key: own[key] for key in expected}, expected) == []
            kinds = {it.dtype for it in own.values()}
            assert (torch.float32 if name == "vae" else torch.float16) in kinds


def test_a_copy_in_pinned_memory_comes_back_as_it_was(gpu: torch.device, middling: Path) -> None:
    expected, before = load_file(middling), _pinned()
    staging = Staging(gpu, 4 * 1024 * MB)
    device = {"part": read(middling, gpu)}
    command = LoadModel("model", "", "build")
    for _ in range(2):
        assert staging.keep(command, device) == ""
        copies = [*staging.tensors()]
        assert all(tensor.is_pinned() for tensor in copies)
        assert _pinned() - before == staging.bytes, "what PyTorch took is what counts"
        device.clear()
        torch.cuda.empty_cache()
        found = staging.find("part")
        assert found is not None
        torch.cuda.synchronize(gpu)
        assert differing(found, expected) == []
        del copies
        staging.drop("model")
        device = {"part": found}
        assert _pinned() == before


def test_no_copy_goes_past_its_budget(gpu: torch.device, middling: Path) -> None:
    device = {"part": read(middling, gpu)}
    exact = sum(tensor.nbytes for tensor in device["part"].values())
    staging = Staging(gpu, exact)  # each tensor takes a power of two
    assert "bytes are needed" in staging.keep(LoadModel("model", "", "build"), device)
    assert staging.bytes == 0


def _pinned() -> int:
    """Bytes of pinned memory that is in use, by PyTorch."""
    torch.accelerator.empty_host_cache()  # which also sees what is no longer in use
    return int(torch.cuda.host_memory_stats().get("active_bytes.current", 0))
