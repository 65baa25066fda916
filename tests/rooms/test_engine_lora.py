"""LoRAs beside the base model: diffusers with peft draws the same, whatever the file's format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calotype.core.messages import RowLora, RunRow
from calotype.engine.lora.layers import layers_of
from tests.rooms import engine_loras as made
from tests.rooms.engine_bench import EMBEDDED
from tests.rooms.engine_models import (
    Drawer,
    Picture,
    apart,
    make_model,
    oracle,
    plain_pipeline,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("sd15", "sdxl", "sd3", "flux")
LORAS = EMBEDDED.parent / "loras"


class Bench:
    """A tiny model as ours and as diffusers', and LoRAs made for it."""

    def __init__(self, folder: Path, drawer: Drawer, plain: Any) -> None:
        self.folder, self.drawer, self.plain = folder, drawer, plain
        self.denoiser = getattr(plain, "unet", None) or plain.transformer
        self.prefix = "unet" if hasattr(plain, "unet") else "transformer"

    def lora(self, stem: str, name: made.Name | None = None, **options: Any) -> Path:
        path = self.folder / f"{stem}.safetensors"
        name = name or made.peft_name(self.prefix)
        return made.save(made.random_tensors(self.denoiser, name, **options), path)

    def expected(self, row: RunRow) -> Picture:
        """What diffusers draws with peft."""
        try:
            for one in row.loras:
                self.plain.load_lora_weights(one.path, adapter_name=one.name)
            if row.loras:
                names, weights = zip(*((one.name, one.weight) for one in row.loras), strict=True)
                self.plain.set_adapters(list(names), list(weights))
            return oracle(self.plain, row)
        finally:
            self.plain.unload_lora_weights()

    def check(self, *loras: RowLora, **changes: Any) -> None:
        """Ours is theirs, to the rounding, and not the picture without LoRAs."""
        row = self.drawer.row(f"{len(self.drawer.heard)}", loras=loras, **changes)
        bare = self.drawer.row(f"{row.row} bare", **changes)
        ours = self.drawer.ours(row)
        assert apart(ours, self.expected(row)) <= 1
        assert apart(ours, self.drawer.ours(bare)) > 8


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    known: dict[str, Bench] = {}

    def bench(family: str) -> Bench:
        if family not in known:
            folder = EMBEDDED
            if family != "vignette":
                folder = make_model(family, tmp_path_factory.mktemp(family))
            files = tmp_path_factory.mktemp(f"{family}-loras")
            known[family] = Bench(files, Drawer(folder), plain_pipeline(folder))
        return known[family]

    return bench


@pytest.mark.parametrize("family", [*FAMILIES, "vignette"])
def test_one_lora_draws_what_diffusers_draws(benches: Callable[[str], Bench], family: str) -> None:
    bench = benches(family)
    bench.check(made.lora(bench.lora("one", rank=6), 0.8))


@pytest.mark.parametrize("family", [*FAMILIES, "vignette"])
def test_two_loras_with_weights_draw_what_diffusers_draws(
    benches: Callable[[str], Bench], family: str
) -> None:
    bench = benches(family)
    a = bench.lora("a", rank=3, seed=1, chosen=made.is_attention)
    b = bench.lora("b", rank=8, seed=2)
    bench.check(made.lora(a, 0.7), made.lora(b, -0.4))


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "euler", "euler_a", "lcm"])
def test_with_every_kind_of_sampler(benches: Callable[[str], Bench], sampler: str) -> None:
    bench = benches("sdxl")
    bench.check(made.lora(bench.lora("s", rank=4, seed=3), 0.9), sampler=sampler)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("name", [made.kohya_name, made.plain_name, made.processor_name])
def test_other_ways_of_writing_the_keys(
    benches: Callable[[str], Bench], family: str, name: made.Name
) -> None:
    bench = benches(family)
    alpha = 2.0 if name is made.kohya_name else None
    stem = f"{name.__name__}"
    path = bench.lora(stem, name, rank=8, alpha=alpha, seed=4, chosen=made.is_attention)
    bench.check(made.lora(path))


def test_kohyas_keys_of_sdxl_count_the_blocks_through(benches: Callable[[str], Bench]) -> None:
    bench = benches("sdxl")

    def chosen(layer: str) -> bool:  # diffusers reads attention in this format, and few others
        return made.is_attention(layer) or ".ff." in layer

    name = made.first_name(bench.denoiser)
    bench.check(made.lora(bench.lora("first", name, rank=4, alpha=4.0, seed=5, chosen=chosen)))


def test_all_of_the_first_codes_names_are_known(benches: Callable[[str], Bench]) -> None:
    denoiser = benches("sdxl").denoiser
    name = made.first_name(denoiser)
    layers = layers_of(denoiser)
    inside = [one for one in layers.accepted if not one.startswith(("conv_in", "conv_out"))]
    named = {name(layer, "up") for layer in inside}
    assert len(named) == len(inside)


def test_alpha_is_taken_from_what_the_file_tells(benches: Callable[[str], Bench]) -> None:
    bench = benches("sd15")
    tensors = made.random_tensors(bench.denoiser, made.peft_name(), rank=4, seed=6)
    told = '{"unet.r": 4, "unet.lora_alpha": 8, "unet.target_modules": ["to_q"]}'
    plain = made.save(tensors, bench.folder / "plain.safetensors")
    scaled = made.save(tensors, bench.folder / "told.safetensors", {"lora_adapter_metadata": told})
    row = bench.drawer.row
    ours = bench.drawer.ours(row("told", loras=(made.lora(scaled, 0.4),)))
    same = bench.drawer.ours(row("plain", loras=(made.lora(plain, 0.8),)))
    assert apart(ours, same) <= 1


def test_an_lcm_lora_draws_in_four_steps_without_guidance(
    benches: Callable[[str], Bench],
) -> None:
    bench = benches("vignette")
    path = LORAS / "vignette-lcm" / "lora.safetensors"
    if not path.exists():
        path = bench.lora("lcm", rank=8, seed=7)
    bench.check(made.lora(path), sampler="lcm", guidance=1.0, steps=4, width=128, height=128)
