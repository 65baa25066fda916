"""What passes take: measured once for each size, kept on disk, believed only where that is due."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest
import torch

from calotype.core.messages import LoadModel, Message, ModelLoaded
from calotype.engine import curves
from calotype.engine.buckets import at_once, random_forwards
from calotype.engine.encodings import Encodings
from calotype.engine.forwards import Forwards
from calotype.engine.loop import Engine
from calotype.engine.rows import start_row
from tests.rooms.engine_bench import SIZE, run_row

pytestmark = pytest.mark.usefixtures("one_thread")


def load(tiny: Path, folder: Path | None, build: str = "build") -> tuple[ModelLoaded, Engine]:
    heard: list[Message] = []
    engine = Engine(lambda message, blob=b"": heard.append(message), torch.device("cpu"), folder)
    engine.load(LoadModel("tiny", str(tiny), build))
    loaded = heard[-1]
    assert isinstance(loaded, ModelLoaded), loaded
    return loaded, engine


def test_a_model_tells_what_it_costs(tiny: Path) -> None:
    loaded, _ = load(tiny, None)
    assert len(loaded.pass_s) == len(loaded.buckets)
    assert min(loaded.pass_s) > 0.0
    assert loaded.size_px == SIZE
    assert loaded.image_s > 0.0
    assert loaded.room_bytes > 0


def test_a_restart_proves_the_bits_but_measures_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, measuring = load(tiny, tmp_path / "engine")
    monkeypatch.setattr("calotype.engine.sizes.measure", None)
    again, proving = load(tiny, tmp_path / "engine")
    assert (again.buckets, again.pass_s) == (first.buckets, first.pass_s)
    assert 0 < proving.passes < measuring.passes
    (file,) = (tmp_path / "engine").iterdir()
    assert json.loads(file.read_text())["made_with"]["torch"] == torch.__version__


def test_other_weights_another_device_or_other_threads_are_measured_anew(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny, tmp_path)
    load(tiny, tmp_path, build="other")
    assert len([*tmp_path.iterdir()]) == 2
    monkeypatch.setattr(curves, "device_name", lambda device: "another")
    load(tiny, tmp_path)
    assert len([*tmp_path.iterdir()]) == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    load(tiny, tmp_path)
    assert len([*tmp_path.iterdir()]) == 4


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"sizes": {"64x64": {"buckets": [2]}}}'])
def test_a_damaged_file_is_measured_anew(tiny: Path, tmp_path: Path, damage: str) -> None:
    load(tiny, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    file.write_text(damage)
    load(tiny, tmp_path)
    assert json.loads(file.read_text()).keys() == json.loads(whole).keys()


def test_a_folder_that_cannot_be_written_is_told_and_costs_no_model(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    loaded, _ = load(tiny, tmp_path / "file" / "engine")
    assert loaded.pass_s
    assert "can't be kept" in capsys.readouterr().err


def test_a_size_proven_otherwise_than_it_was_measured_is_measured_anew(
    tiny: Path, tmp_path: Path
) -> None:
    first, engine = load(tiny, tmp_path)
    model = engine._models.get("tiny")
    store = curves.CurveStore(tmp_path, torch.device("cpu"))
    assert store.get(model, SIZE, SIZE, first.buckets)
    assert store.get(model, SIZE, SIZE, (1,)) is None
    assert store.get(model, SIZE + 8, SIZE, first.buckets) is None


@pytest.mark.parametrize(("call_s", "rounds"), [(0.0, 3), (10.0, 1)])
def test_a_slow_device_times_each_size_once(tiny: Path, call_s: float, rounds: int) -> None:
    _, engine = load(tiny, None)
    model, ran, now = engine._models.get("tiny"), list[int](), count()

    def denoise(forwards: Forwards) -> torch.Tensor:
        ran.append(len(forwards))
        return forwards.latents

    with torch.inference_mode():
        row = start_row(run_row("r"), model, Encodings())
        sample = random_forwards(5, row.forwards(), row.conditioning)
        work = curves.measure(
            model, denoise, row.latents, sample, (2, 4), clock=lambda: call_s * next(now)
        )
        measured = at_once(work)
    assert ran == [2, 4] * rounds + [2, 4], "the last count the bytes"
    assert measured.pass_s == (max(call_s, 1e-6),) * 2
