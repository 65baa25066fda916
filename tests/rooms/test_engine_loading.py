"""How a model gets into memory: in 8 bits, compiled; and what can't be loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from calotype.core.errors import ModelBroken, TooMany
from calotype.core.messages import LoadModel
from calotype.engine.encodings import Encodings
from calotype.engine.families import compiling, loading
from calotype.engine.families.loading import load_model
from calotype.engine.families.quantising import quantise
from calotype.engine.forwards import Forwards
from calotype.engine.memory import peak_bytes
from calotype.engine.rows import start_row
from calotype.engine.sizes import _probe
from calotype.policy.batch import bucket_candidates
from tests.rooms.engine_bench import SIZE
from tests.rooms.engine_models import CPU, Drawer, apart, make_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {family: make_model(family, base / family) for family in ("sd15", "sd3", "flux")}


def load(folder: Path, **options: Any) -> Any:
    return load_model(LoadModel(folder.name, str(folder), "build", **options), CPU)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("family", ["sd15", "sd3", "flux"])
def test_quantised_weights_are_fewer_bytes_and_nearly_the_same(
    folders: dict[str, Path], family: str, kind: str
) -> None:
    plain, quantised = load(folders[family]), load(folders[family], quantise=kind)
    forwards = one_pass(plain)
    with torch.inference_mode():
        expected, output = plain.denoise(forwards), quantised.denoise(forwards)
    error = float((output - expected).norm() / expected.norm())
    assert 0 < error < {"int8": 0.02, "fp8": 0.08}[kind]
    saved = plain.parameter_bytes - quantised.parameter_bytes
    weights = sum(it.nbytes for it in plain.denoiser.parameters())
    share = 0.25 if family == "sd15" else 0.5  # convolutions stay, and a UNet has many
    assert saved > share * weights
    assert quantised.vae.dtype == torch.float32


def one_pass(model: Any) -> Forwards:
    with torch.inference_mode():
        return start_row(_probe(model, SIZE, SIZE), model, Encodings()).forwards().padded(2)


def test_a_quantised_model_keeps_its_promises(folders: dict[str, Path]) -> None:
    full, drawer = Drawer(folders["sd3"]), Drawer(folders["sd3"], quantise="int8")
    assert {2, 4, 8} <= set(drawer.loaded.buckets)
    picture = drawer.ours(drawer.row("alone"))
    assert apart(picture, full.ours(full.row())) <= 8
    target, other = drawer.row("target"), drawer.row("other", seed=5, guidance=1.0)
    drawer.engine.handle(other)
    assert apart(drawer.ours(target), picture) == 0


def test_without_torchao_a_quantised_model_says_what_is_missing(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ModelBroken, match=r"flux: .*install calotype\[quantised\]") as caught:
        load(folders["flux"], quantise="int8")
    assert caught.value.field == "quantise"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"dtype": "fp64"}, "dtype"),
        ({"quantise": "int4"}, "quantise"),
        ({"compile": ("t5",)}, "compile"),
    ],
)
def test_an_option_that_is_not_known_is_refused(
    folders: dict[str, Path], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(ModelBroken) as caught:
        load(folders["flux"], **options)
    assert caught.value.field == field


def test_a_load_without_memory_is_no_fault_of_the_model(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: Any) -> None:
        torch.empty(1 << 56)

    monkeypatch.setattr(loading, "fill", too_large)
    with pytest.raises(TooMany, match="flux: no memory for its weights"):
        load(folders["flux"])


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Counts the graphs that are made; running them as they are saves a minute of C++."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters
    counted.clear()
    yield lambda: counted["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.mark.parametrize(("family", "part"), [("flux", "denoiser"), ("sd15", "vae")])
def test_a_part_is_compiled_once_for_each_shape_before_a_picture_waits_for_it(
    folders: dict[str, Path], graphs: Any, family: str, part: str
) -> None:
    plain, drawer = Drawer(folders[family]), Drawer(folders[family], compile=(part,))
    made = graphs()
    # Batch sizes that weren't proven were tried, too; previews are fitted to another size.
    shapes = len(bucket_candidates(SIZE, SIZE)) if part == "denoiser" else 2
    assert made == shapes, "no graph may break, none may be made twice"
    rows = [drawer.row("a"), drawer.row("b", sampler=plain.model.samplers[-1], steps=3, seed=2)]
    for row in rows:
        assert apart(drawer.ours(row), plain.ours(row)) <= 1
    assert graphs() == made, "the shapes were known"


def test_the_compiler_runs_here_and_a_watched_call_does_not_spoil_it() -> None:
    torch._dynamo.reset()
    layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.SiLU())
    rows = torch.ones(3, 4)
    with torch.inference_mode():
        expected = layer(rows)
        compiling._compile(layer)
        peak_bytes(lambda: layer(rows), CPU)
        torch._dynamo.utils.counters.clear()
        assert torch.allclose(layer(rows), expected)
        assert torch.equal(layer(rows), layer(rows))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_device_without_a_compiler_says_so(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(compiling, "BACKEND", none)
    with pytest.raises(AssertionError, match=r"ModelFailed.*no working C"):
        Drawer(folders["flux"], compile=("denoiser",))


def test_nothing_quantised_is_nothing_changed() -> None:
    layer = torch.nn.Linear(2, 2)
    before = layer.weight
    quantise(layer, "")
    assert layer.weight is before
