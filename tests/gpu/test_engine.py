"""An engine on a GPU: its ledger, torn memory, a pass that finds none, and its pictures."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calotype.core.messages import MemoryShort, RowDone, RowFailed, UnloadModel
from calotype.engine.device import prepare_room
from calotype.engine.fragmentation import Blocks
from calotype.engine.room import Room
from calotype.engine.tensors import bytes_of
from tests.rooms.engine_bench import EMBEDDED
from tests.rooms.engine_models import CPU, Drawer, apart, make_model, unet

pytestmark = pytest.mark.gpu
MB = 1024**2
LARGE = {"width": 512, "height": 512}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("sdxl", tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its passes take hundreds of MB."""
    folder = make_model("sdxl", tmp_path_factory.mktemp("wide") / "wide")
    denoiser = unet(
        block_out_channels=(320, 640),
        cross_attention_dim=64,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
    )
    denoiser.save_pretrained(folder / "unet")
    return folder


def on(gpu: torch.device, folder: Path, **options: Any) -> Drawer:
    """An engine with all of the GPU's memory for a budget."""
    return Drawer(folder, device=gpu, room=Room(torch.cuda.mem_get_info(gpu)[1]), **options)


def alive(gpu: torch.device) -> int:
    """Bytes of all tensors on the GPU."""
    gc.collect()
    found = (it for it in gc.get_objects() if isinstance(it, torch.Tensor))
    return bytes_of(it for it in found if it.device == gpu)


def requested(gpu: torch.device) -> int:
    """Bytes that PyTorch's allocator was asked for and hasn't got back, but for workspaces."""
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.synchronize(gpu)
    return int(torch.cuda.memory_stats(gpu).get("requested_bytes.all.current", 0))


# The ledger


def test_the_ledger_is_what_is_alive_and_what_the_allocator_was_asked_for(
    gpu: torch.device,
) -> None:
    before, asked_before = alive(gpu), requested(gpu)
    drawer = on(gpu, EMBEDDED)
    for _ in range(2):
        held = sum(drawer.engine.accounts.held().values())
        assert held == alive(gpu) - before
        assert 0 <= requested(gpu) - asked_before - held < MB, "what nobody counts"
        drawer.ours(drawer.row(f"row {held}", **_own_size(drawer)))
    drawer.engine.handle(UnloadModel(drawer.name))
    drawer.engine.tick()
    held = sum(drawer.engine.accounts.held().values())
    assert held == alive(gpu) - before
    assert requested(gpu) - asked_before - held < MB, "all of it is given back"
    drawer.engine.close()


def test_the_budget_holds_the_allocator(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = torch.cuda.memory_reserved(gpu) + 400 * MB
    monkeypatch.setenv("CALOTYPE_ENGINE_MEMORY_BYTES", str(budget))
    assert prepare_room(gpu).budget == budget
    kept = torch.empty(300 * MB, dtype=torch.uint8, device=gpu)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(200 * MB, dtype=torch.uint8, device=gpu)
    del kept
    torch.empty(200 * MB, dtype=torch.uint8, device=gpu)


# Torn memory


def test_memory_that_is_torn_is_seen_and_the_largest_block_is_the_one_there_is(
    gpu: torch.device,
) -> None:
    total = torch.cuda.mem_get_info(gpu)[1]
    # Below 10 MB several lie in one segment of 20 MB: of each the second one goes.
    held = [torch.empty(4 * MB, dtype=torch.uint8, device=gpu) for _ in range(60)]
    budget = torch.cuda.memory_allocated(gpu) + 100 * MB
    blocks = Blocks(gpu, budget)
    whole = blocks.seen()
    assert whole is not None
    assert 0 <= whole.index < 0.2
    del held[::2]
    torch.cuda.empty_cache()
    torn = blocks.seen()
    assert torn is not None
    assert whole.index + 0.2 < torn.index <= 1
    assert torn.free == pytest.approx(220 * MB, abs=4 * MB)
    torch.cuda.set_per_process_memory_fraction(budget / total, gpu)
    fits = torn.largest - torn.largest % (2 * MB) - 2 * MB
    torch.empty(fits, dtype=torch.uint8, device=gpu)
    torch.cuda.empty_cache()
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(fits + 6 * MB, dtype=torch.uint8, device=gpu)
    held.clear()
    torch.cuda.empty_cache()
    assert (blocks.seen() or torn).index < 0.05, "whole segments are nobody's"


# A pass that finds no memory


def test_a_pass_without_memory_goes_on_in_smaller_ones_to_the_same_pictures(
    gpu: torch.device, wide: Path
) -> None:
    drawer, total = on(gpu, wide, dtype="fp32"), torch.cuda.mem_get_info(gpu)[1]
    rows = [drawer.row(f"a {at}", seed=at, **LARGE) for at in range(4)]
    for row in rows:
        drawer.engine.handle(row)
    drawer.finish()
    expected = [drawer.picture(row) for row in rows]
    buckets = drawer.engine._sizes.find(drawer.model, **LARGE).buckets
    if max(buckets) < 4:
        pytest.skip(f"this GPU keeps the bits in passes of {buckets} only: none can be smaller")
    again = [drawer.row(f"b {at}", seed=at, **LARGE) for at in range(4)]
    for row in again:
        drawer.engine.handle(row)
    for _ in range(2):  # all have begun
        assert drawer.engine.tick()
    torch.cuda.empty_cache()
    spare = drawer.engine.accounts.ledger().largest_pass // 3
    assert spare > 20 * MB, "passes are too small for the allocator to notice"
    bounded = (torch.cuda.memory_reserved(gpu) + spare) / total
    torch.cuda.set_per_process_memory_fraction(bounded, gpu)
    for _ in range(60):
        drawer.engine.tick()
        if short := [it for it, _ in drawer.heard if isinstance(it, MemoryShort)]:
            break
    else:
        raise AssertionError("no pass ran out of memory")
    assert max(short[0].buckets) < short[0].forwards
    drawer.engine.tick()  # in smaller ones, within the bound
    torch.cuda.set_per_process_memory_fraction(1.0, gpu)
    drawer.finish()
    assert not [it for it, _ in drawer.heard if isinstance(it, RowFailed)]
    assert all(map(np.array_equal, expected, [drawer.picture(row) for row in again]))
    drawer.engine.close()


# Pictures


@pytest.mark.parametrize("family", ["sdxl", "sd15", "sd3-no-t5"])
def test_a_gpus_picture_is_the_cpus_within_rounding(
    gpu: torch.device, tmp_path: Path, family: str
) -> None:
    folder = make_model(family, tmp_path / family)
    cpu, whole, half = Drawer(folder, device=CPU), on(gpu, folder, dtype="fp32"), on(gpu, folder)
    expected = cpu.ours(cpu.row())
    assert apart(whole.ours(whole.row()), expected) <= 2, "float32 on both"
    assert np.abs(half.ours(half.row()).astype(int) - expected.astype(int)).mean() < 4, "float16"
    for drawer in (cpu, whole, half):
        drawer.engine.close()


def test_a_row_has_the_same_bits_alone_and_in_a_crowd(gpu: torch.device, tiny: Path) -> None:
    drawer = on(gpu, tiny)
    alone = drawer.ours(drawer.row("alone"))
    rows = [drawer.row(f"row {at}", seed=11 if at == 3 else at) for at in range(7)]
    for row in rows:
        drawer.engine.handle(row)
    drawer.finish()
    assert np.array_equal(drawer.picture(rows[3]), alone)
    assert len([it for it, _ in drawer.heard if isinstance(it, RowDone)]) == 8
    drawer.engine.close()


def _own_size(drawer: Drawer) -> dict[str, int]:
    side = drawer.model.default_size
    return {"width": side, "height": side}
