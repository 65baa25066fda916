"""LoRA files that can't be used: each is told by name, and rows beside it notice nothing."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from calotype.core import limits
from calotype.core.errors import AdapterBroken
from calotype.engine.lora.names import place_of
from tests.rooms import engine_loras as made
from tests.rooms.engine_bench import Bench, run_row

pytestmark = pytest.mark.usefixtures("one_thread")

Tensors = dict[str, torch.Tensor]
LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"


@pytest.fixture(scope="module")
def bench(tiny: Path) -> Bench:
    return Bench(tiny)


@pytest.fixture(scope="module")
def alone(bench: Bench) -> bytes:
    bench.finish(run_row("alone", seed=3))
    return bench.pixels("alone")


def nan(tensors: Tensors) -> Tensors:
    tensors[UP][3, 1] = float("nan")
    return tensors


def with_key(key: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, key: torch.zeros(4, 4)}


def rank_of(rank: int) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        wide = tensors[DOWN].shape[1]
        return {**tensors, DOWN: torch.zeros(rank, wide), UP: torch.zeros(wide, rank)}

    return change


def wider(tensors: Tensors) -> Tensors:
    return {**tensors, DOWN: torch.zeros(4, 640), UP: torch.zeros(640, 4)}


def half_a_pair(tensors: Tensors) -> Tensors:
    return {key: it for key, it in tensors.items() if key != UP}


def doubles(tensors: Tensors) -> Tensors:
    return {key: it.double() for key, it in tensors.items()}


def twice(tensors: Tensors) -> Tensors:
    return {**tensors, f"{LAYER}.lora.down.weight": tensors[DOWN].clone()}


def huge(tensors: Tensors) -> Tensors:
    return {**tensors, f"{LAYER}.alpha": torch.tensor(float("inf"))}


BAD_TENSORS = {
    "NaN": (nan, "attn1.to_q: the LoRA has numbers that aren't finite"),
    "infinite alpha": (huge, "aren't finite"),
    "alpha of two": (with_key(f"{LAYER}.alpha"), "alpha isn't one number"),
    "rank 300": (rank_of(300), "has rank 300"),
    "rank 0": (rank_of(0), "has rank 0"),
    "another base": (wider, "made for another base model: down_blocks.1.attentions.0"),
    "another base's layer": (
        with_key("unet.down_blocks.2.attentions.0.proj_in.lora_A.weight"),
        "for no layer of this base model",
    ),
    "half a pair": (half_a_pair, "lacks a part: up"),
    "a part twice": (twice, "are the same"),
    "float64": (doubles, "F64"),
    "VAE": (with_key("vae.decoder.conv_in.lora_A.weight"), "'vae.decoder.conv_in.lora_A.weight'"),
    "kohya's VAE": (with_key("lora_vae_decoder.lora_up.weight"), "autoencoder"),
    "first-stage": (with_key("first_stage_model.decoder.weight"), "autoencoder"),
    "text encoder": (with_key("text_encoder.layers.0.lora_A.weight"), "a text encoder"),
    "second encoder": (with_key("text_encoder_2.layers.0.lora_A.weight"), "a text encoder"),
    "kohya's encoder": (with_key("lora_te1_text_model.lora_down.weight"), "a text encoder"),
    "safety": (with_key("safety_checker.vision_model.lora_A.weight"), "a safety model"),
    "time": (with_key("unet.time_embedding.linear_1.lora_A.weight"), "accepted are only attention"),
    "DoRA": (with_key(f"{LAYER}.lora_magnitude_vector"), "DoRA"),
    "kohya's DoRA": (with_key("lora_unet_down_blocks_1_x.dora_scale"), "DoRA"),
    "LoHa": (with_key("lora_unet_down_blocks_1_x.hada_w1_a"), "LoHa"),
    "LoKr": (with_key("lora_unet_down_blocks_1_x.lokr_w1"), "LoKr"),
    "biases": (with_key(f"{LAYER}.lora_B.bias"), "biases"),
    "a whole weight": (with_key(f"{LAYER}.weight"), "no part of a LoRA"),
}


def fails_alone(bench: Bench, path: Path, alone: bytes) -> str:
    """Its row fails for good, with this reason; the row beside it ends bit-exact."""
    bench.heard.clear()
    bench.start(run_row("beside", seed=3), run_row("bad", loras=(made.lora(path),)))
    bench.engine.tick()
    bench.finish()
    assert bench.pixels("beside") == alone
    failure = bench.failure("bad")
    assert not failure.retryable
    assert path.stem in failure.reason
    assert len(bench.model.loras) == 0
    return failure.reason


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_make_no_lora_of_this_model(
    bench: Bench, alone: bytes, tmp_path: Path, case: str
) -> None:
    change, reason = BAD_TENSORS[case]
    tensors = made.random_tensors(bench.model.denoiser, made.peft_name(), chosen=made.is_attention)
    path = made.save(change(tensors), tmp_path / "bad.safetensors")
    assert reason in fails_alone(bench, path, alone)


def cut(raw: bytes) -> bytes:
    return raw[:-100]


def cut_in_its_head(raw: bytes) -> bytes:
    return raw[:100]


def pickled(raw: bytes) -> bytes:
    return pickle.dumps({"weights": raw})


def empty(raw: bytes) -> bytes:
    return raw[:0]


def endless_head(raw: bytes) -> bytes:
    return struct.pack("<Q", 2**62) + raw[8:]


def no_tensors(raw: bytes) -> bytes:
    del raw
    return struct.pack("<Q", 2) + b"{}"


def nonsense(raw: bytes) -> bytes:
    head = json.dumps({"x": {"dtype": "F32", "shape": "wide", "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(head)) + head + raw[:4]


def trailing(raw: bytes) -> bytes:
    return raw + b"more"


BAD_BYTES: dict[Callable[[bytes], bytes], str] = {
    cut: "cut short",
    cut_in_its_head: "isn't safetensors",
    pickled: "least of all a pickle",
    empty: "isn't safetensors",
    endless_head: "isn't safetensors",
    no_tensors: "0 tensors",
    nonsense: "has shape 'wide'",
    trailing: "has more than its tensors",
}


@pytest.mark.parametrize("change", BAD_BYTES, ids=lambda change: change.__name__)
def test_bytes_that_are_no_safetensors_file(
    bench: Bench, alone: bytes, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    tensors = made.random_tensors(bench.model.denoiser, made.peft_name(), chosen=made.is_attention)
    path = made.save(tensors, tmp_path / "bad.safetensors")
    path.write_bytes(change(path.read_bytes()))
    assert BAD_BYTES[change] in fails_alone(bench, path, alone)


def test_files_that_are_not_there_or_too_large(
    bench: Bench, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = made.random_tensors(bench.model.denoiser, made.peft_name(), chosen=made.is_attention)
    path = made.save(tensors, tmp_path / "bad.safetensors")
    monkeypatch.setattr(limits, "LORA_TENSORS_MAX", 3)
    assert "tensors" in fails_alone(bench, path, alone)
    monkeypatch.setattr(limits, "LORA_FILE_BYTES_MAX", 1000)
    assert "bytes" in fails_alone(bench, path, alone)
    asked = made.lora(path)
    path.unlink()
    bench.heard.clear()
    bench.finish(run_row("gone", loras=(asked,)))
    assert "No such file" in bench.failure("gone").reason
    assert not bench.failure("gone").retryable


def test_what_the_file_tells_of_itself_is_checked_too(
    bench: Bench, alone: bytes, tmp_path: Path
) -> None:
    tensors = made.random_tensors(bench.model.denoiser, made.peft_name(), chosen=made.is_attention)
    for told, reason in (
        ('{"unet.use_dora": true}', "DoRA"),
        ("[1]", "doesn't parse"),
        ("{", "doesn't parse"),
        ('{"unet.lora_alpha": "much"}', "alpha isn't a number"),
    ):
        path = made.save(tensors, tmp_path / "bad.safetensors", {"lora_adapter_metadata": told})
        assert reason in fails_alone(bench, path, alone)


def test_keys_from_strangers_stay_short_in_messages(bench: Bench) -> None:
    with pytest.raises(AdapterBroken) as told:
        place_of("x" * 100_000, bench.model.loras.layers)
    assert len(told.value.detail) < 1000
