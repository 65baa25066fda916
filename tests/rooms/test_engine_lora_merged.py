"""LoRAs merged into an engine's weights: exact both ways, and a build of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calotype.core.messages import LoadModel, ModelFailed, ModelLoaded, RowLora
from calotype.engine.families.compiling import compile_parts
from tests.rooms import engine_loras as made
from tests.rooms.engine_bench import Bench, run_row, run_to_end

pytestmark = pytest.mark.usefixtures("one_thread")


def load(bench: Bench, tiny: Path, *loras: RowLora) -> None:
    bench.engine.load(LoadModel("tiny", str(tiny), "build", merged=loras))


def test_a_merged_set_is_in_the_weights_and_comes_out_again_bit_for_bit(
    bench: Bench, tiny: Path, lora_files: list[Path]
) -> None:
    denoiser = bench.model.denoiser
    before = {name: it.clone() for name, it in denoiser.state_dict().items()}
    loras = (made.lora(lora_files[0], 0.5), made.lora(lora_files[1], 0.3))
    bench.finish(run_row("bare"), run_row("beside", loras=loras))
    load(bench, tiny, *loras)
    assert bench.engine._models.get("tiny").denoiser is denoiser, "nothing is read again"
    changed = [name for name, it in denoiser.state_dict().items() if not it.equal(before[name])]
    assert len(changed) == len(bench.model.loras.layers.accepted)
    bench.finish(run_row("merged", loras=loras))
    apart = bench.picture("merged").astype(int) - bench.picture("beside").astype(int)
    assert abs(apart).max() <= 1
    load(bench, tiny)
    assert all(torch.equal(it, before[name]) for name, it in denoiser.state_dict().items())
    bench.finish(run_row("again"), run_row("beside again", loras=loras))
    assert bench.pixels("again") == bench.pixels("bare")
    assert bench.pixels("beside again") == bench.pixels("beside")


def test_a_merged_model_makes_only_rows_of_its_set_and_has_a_key_of_its_own(
    bench: Bench, tiny: Path, lora_files: list[Path]
) -> None:
    loras = (made.lora(lora_files[0], 0.5), made.lora(lora_files[1], 0.3))
    load(bench, tiny, *loras)
    build = bench.model.build
    assert build.startswith("build+")
    bench.start(
        run_row("bare"),
        run_row("lighter", loras=(loras[0],)),
        run_row("right", loras=loras[::-1]),
    )
    for row in ("bare", "lighter"):
        assert bench.failure(row).retryable, "another engine can"
        assert "merged" in bench.failure(row).reason
    assert bench.engine._rows["right"].key.startswith(f"tiny@{build}:")
    load(bench, tiny)
    assert "has rows" in bench.said(ModelFailed)[-1].reason
    run_to_end(bench.engine)
    assert bench.pixels("right")
    assert len(bench.model.loras) == 0
    load(bench, tiny, loras[0])
    assert bench.model.build not in ("build", build)


def test_a_set_that_cannot_be_merged_leaves_the_model_as_it_was(
    bench: Bench, tiny: Path, lora_files: list[Path], tmp_path: Path
) -> None:
    bench.finish(run_row("before"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(lora_files[0].read_bytes()[:-8])
    load(bench, tiny, made.lora(lora_files[1]), made.lora(broken))
    assert "broken" in bench.said(ModelFailed)[-1].reason
    bench.finish(run_row("after"))
    assert bench.pixels("after") == bench.pixels("before")
    load(bench, tiny, made.lora(lora_files[1]))
    assert len(bench.said(ModelLoaded)) == 1


def test_loras_stay_out_of_a_compiled_denoiser(bench: Bench, lora_files: list[Path]) -> None:
    bench.finish(run_row("before"))
    compile_parts(bench.model, ("denoiser",))  # at the first pass, which doesn't come
    bench.start(run_row("r", loras=(made.lora(lora_files[0]),)))
    assert "only merged" in bench.failure("r").reason
