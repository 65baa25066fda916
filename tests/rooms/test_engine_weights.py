"""Files straight into memory: every byte, once, and what happens to a file later doesn't matter."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.core.errors import ModelBroken
from calotype.engine import weights
from calotype.engine.weights import Reader

CPU = torch.device("cpu")
KINDS = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of several dtypes and of sizes that end anywhere."""
    chance = torch.Generator().manual_seed(3)
    tensors = {
        f"{dtype}-{count}": (torch.randn(count, generator=chance) * 100).to(dtype)
        for dtype, count in itertools.product(KINDS, (1, 3, 64, 1_001, 5_000))
    }
    tensors |= {"one": torch.tensor(7.0), "none": torch.empty(0, 4), "flags": torch.ones(9) > 0}
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(params=[weights._PIECE_BYTES, 4_096, 64], ids=["whole", "pages", "small"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    for largest in ("_PIECE_BYTES", "_MAPPED_BYTES"):
        monkeypatch.setattr(weights, largest, request.param)
    return int(request.param)


def as_it_is(_: str, dtype: torch.dtype) -> torch.dtype:
    return dtype


@pytest.mark.usefixtures("pieces")
def test_every_tensor_is_read_bit_for_bit_to_where_kernels_like_it(file: Path) -> None:
    with Reader(CPU) as reader:
        found = reader.read(file, as_it_is)
        reader.wait()
    expected = load_file(file)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
        assert found[name].data_ptr() % 64 == 0 or not tensor.numel()


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_wanted_in_another_dtype_is_converted_as_pytorch_does(
    file: Path, dtype: torch.dtype
) -> None:
    def choose(name: str, stored: torch.dtype) -> torch.dtype | None:
        if name == "flags":
            return None
        return dtype if stored.is_floating_point else stored

    with Reader(CPU) as reader:
        found = reader.read(file, choose)
        reader.wait()
    expected = {key: it for key, it in load_file(file).items() if key != "flags"}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        wanted = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert torch.equal(found[name], wanted), name


def test_it_tells_how_far_it_is(file: Path, pieces: int) -> None:
    told: list[tuple[int, int]] = []
    with Reader(CPU, lambda done, total: told.append((done, total)), threads=2) as reader:
        reader.read(file, as_it_is)
        reader.wait()
    size = sum(tensor.nbytes for tensor in load_file(file).values())
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (size, size)
    assert len(told) >= size // pieces


def test_a_file_that_changes_afterwards_changes_nothing(file: Path, tmp_path: Path) -> None:
    """No parameter is mapped: an operator who writes over a file ends no engine."""
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    with Reader(CPU) as reader:
        found = reader.read(copy, as_it_is)
        reader.wait()
    size = copy.stat().st_size
    with copy.open("r+b") as stream:
        stream.write(b"\xff" * size)
        stream.truncate(0)
    assert all(torch.equal(found[name], tensor) for name, tensor in load_file(file).items())


@pytest.fixture
def frozen(file: Path, tmp_path: Path) -> Path:
    """The same file, that nobody may write to."""
    copy = tmp_path / "frozen.safetensors"
    copy.write_bytes(file.read_bytes())
    copy.chmod(0o444)
    return copy


@pytest.mark.usefixtures("pieces")
def test_a_file_that_nobody_may_write_to_is_mapped(frozen: Path) -> None:
    told: list[int] = []
    with Reader(CPU, lambda done, _: told.append(done)) as reader:
        found = reader.read(frozen, as_it_is)
        reader.wait()
    expected = load_file(frozen)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert told[-1] == sum(tensor.nbytes for tensor in expected.values())
    places = [
        range(*(int(it, 16) for it in line.split()[0].split("-")))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(frozen.name)
    ]
    mapped = [n for n, it in found.items() if any(it.data_ptr() in place for place in places)]
    assert len(mapped) == len(found) - 1, "all but the one of no bytes"
    assert found["one"].untyped_storage().nbytes() == 4, "each is counted by itself"
    found["one"] += 1.0
    assert float(load_file(frozen)["one"]) == 7.0, "what is written to it stays here"


@pytest.mark.usefixtures("pieces")
def test_what_is_wanted_otherwise_than_a_file_has_it_is_read(frozen: Path) -> None:
    with Reader(CPU) as reader:
        found = reader.read(frozen, lambda _, dtype: torch.float32 if dtype.itemsize > 1 else dtype)
        reader.wait()
    expected = {
        name: it.float() if it.itemsize > 1 else it for name, it in load_file(frozen).items()
    }
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_file_that_is_cut_short_meanwhile_is_told(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_PIECE_BYTES", 64)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())

    def cut(done: int, total: int) -> None:
        with copy.open("r+b") as stream:
            stream.truncate(100)

    with Reader(CPU, cut, threads=1) as reader:
        reader.read(copy, as_it_is)
        with pytest.raises(ModelBroken, match=r"copy\.safetensors was cut short"):
            reader.wait()


def test_a_file_of_what_pytorch_has_not_is_told(tmp_path: Path) -> None:
    head = b'{"a": {"dtype": "F8_E8M0", "shape": [8], "data_offsets": [0, 8]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    with Reader(CPU) as reader, pytest.raises(ModelBroken, match="a is of F8_E8M0"):
        reader.read(path, as_it_is)
    with Reader(CPU) as reader, pytest.raises(ModelBroken, match=r"gone.safetensors can't be read"):
        reader.read(tmp_path / "gone.safetensors", as_it_is)
