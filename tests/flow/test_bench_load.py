"""``calotype bench load`` on a small model: its parts, and what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from calotype.cli import app, bench_load
from calotype.core.errors import InternalError, InvalidInput, OperatorError
from calotype.engine.large_model import write_noise
from calotype.files.headers import read_header

VIGNETTE = Path(bench_load.__file__).parents[1] / "models" / "vignette"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "small"
    shutil.copytree(VIGNETTE, folder)
    return folder


def test_loads_are_measured_from_the_disk_and_from_memory(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_load, "_HOW", {"ours": "Calotype", "keep": "kept"})
    monkeypatch.setattr(bench_load, "_made", lambda *_: model)
    monkeypatch.setattr(bench_load, "_DTYPE", "fp32")
    said = CliRunner().invoke(app, ["bench", "load", "--rounds", "1", "--json"])
    assert said.exit_code == 0, said.output
    monkeypatch.undo()
    result = json.loads(said.stdout)
    size = sum(file.stat().st_size for file in model.rglob("*.safetensors"))
    for cache, how in (("cold", "ours"), ("warm", "ours"), ("warm", "keep")):
        one = result[cache][how]
        assert one["bytes"] == size
        assert 0.9 * size < one["kept"] < 2.5 * size  # in float32, of float16
        assert 0 < one["returned_s"] <= one["seconds"] <= one["seconds_max"]
        assert one["first_s"] > 0
        assert one["resident"] == 1.0 if cache == "warm" else one["resident"] < 0.5
    assert result["warm"]["keep"]["peak_bytes"] > 0.9 * size
    assert "keep" not in result["cold"], "it is much like a read"
    assert result["lora"] is None


def test_a_load_that_fails_says_why(model: Path) -> None:
    with pytest.raises(InternalError, match=r"(?s)load_speed failed: .*nowhere"):
        bench_load._run("load_speed", "--model", model / "nowhere", "--how", "keep")


def test_a_size_that_is_not_known_or_has_no_room_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="no size 'huge'") as caught:
        bench_load._made("huge", tmp_path)
    assert caught.value.limit == ["sdxl", "sd15"]
    monkeypatch.setattr(bench_load, "_available", lambda: 10**9)
    with pytest.raises(OperatorError, match="needs as much room on disk"):
        bench_load._made(None, tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_noise_is_a_whole_file_of_finite_numbers_always_the_same(tmp_path: Path) -> None:
    shapes = {"a": (3, 5), "b": (7,), "c": (2, 2, 2, 2)}
    file = tmp_path / "noise.safetensors"
    write_noise(file, shapes)
    assert [it.shape for it in read_header(file).tensors.values()] == [*shapes.values()]
    first = load_file(file)
    assert all(np.isfinite(it).all() and (abs(it) > 0.007).all() for it in first.values())
    write_noise(file, shapes)
    assert all((it == first[name]).all() for name, it in load_file(file).items())
