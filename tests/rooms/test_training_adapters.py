"""Vignette's adapters: unmodified diffusers loads them, and each does what it is for.

Small by intent: the measured figures are ``python -m training.adapters_evaluate``'s business. The
bounds here are far enough below those figures that chance on a few pictures doesn't reach them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from calotype.engine.canny import canny
from training import (
    adapters,
    adapters_card,
    adapters_evaluate,
    consistency,
    evaluate,
    export,
    finetune,
    lowrank,
)
from training.adapters import CYANOTYPE, LCM, Adapter
from training.cyanotype import cyanotype
from training.dataset import scene_at
from training.render import render

LORAS = [CYANOTYPE, LCM]
FEW = 24


def unet() -> Any:
    return UNet2DConditionModel.from_pretrained(export.MODEL / "unet")


@pytest.fixture(scope="module")
def wanted() -> list[evaluate.Ask]:
    return evaluate.asks(FEW)


def test_everything_shipped_is_small() -> None:
    assert adapters.shipped_bytes() <= 26_000_000


@pytest.mark.parametrize("adapter", adapters.ALL, ids=lambda adapter: adapter.name)
def test_the_platform_is_told_how_an_adapter_wants_to_be_run(adapter: Adapter) -> None:
    told = json.loads((adapter.folder / "calotype.json").read_text())
    assert told == adapter.calotype
    assert told["licence"] == "Apache-2.0"
    assert told["bases"] == ["vignette"]


@pytest.mark.parametrize("adapter", LORAS, ids=lambda adapter: adapter.name)
def test_a_lora_is_pairs_of_matrices_for_layers_of_the_unet(adapter: Adapter) -> None:
    weights = load_file(adapter.folder / "lora.safetensors")
    layers = dict(lowrank.layers(unet()))
    rank = adapters.rank(adapter)
    for name, layer in layers.items():
        first = weights.pop(f"unet.{name}.lora_A.weight")
        second = weights.pop(f"unet.{name}.lora_B.weight")
        outer, inner, *kernel = layer.weight.shape
        assert first.dtype == second.dtype == torch.float16
        assert tuple(first.shape) == (rank, inner, *kernel)
        assert tuple(second.shape) == (outer, rank, *(1 for _ in kernel))
    assert not weights, "nothing but the UNet's"


@pytest.mark.parametrize("adapter", LORAS, ids=lambda adapter: adapter.name)
def test_diffusers_reads_of_a_lora_what_our_own_arithmetic_does(adapter: Adapter) -> None:
    pipeline = evaluate.load_pipeline(export.MODEL)
    pipeline.load_lora_weights(adapter.folder, weight_name="lora.safetensors")
    pipeline.fuse_lora(lora_scale=0.5)
    pipeline.unload_lora_weights()
    ours, plain = unet(), unet()
    lowrank.merge(ours, adapter.folder / "lora.safetensors", 0.5)
    theirs = dict(pipeline.unet.named_parameters())
    for name, weight in ours.named_parameters():
        assert torch.allclose(weight, theirs[name], atol=1e-5), name
    pairs = zip(ours.parameters(), plain.parameters(), strict=True)
    moved = [not torch.equal(one, other) for one, other in pairs]
    assert sum(moved) == len(list(lowrank.layers(plain)))


def test_four_steps_with_the_lcm_lora_draw_what_was_asked(wanted: list[evaluate.Ask]) -> None:
    pipeline = adapters_evaluate.with_lcm(adapters_evaluate.load_adapted(LCM))
    texts = [ask.text for ask in wanted]
    pictures = evaluate.draw(pipeline, texts, steps=4, guidance=1.0)
    found = adapters_evaluate.judged(pictures, wanted)
    assert min(found["time"], found["terrain"]) >= 0.9
    assert min(found["there"], found["colour"], found["place"]) >= 0.85
    assert adapters_evaluate.contrast(pictures) > 30, "not washed out"


def test_the_style_turns_pictures_into_cyanotypes(wanted: list[evaluate.Ask]) -> None:
    texts = [ask.text for ask in wanted[:6]]
    off = [
        adapters_evaluate.off_colour(
            evaluate.draw(adapters_evaluate.load_adapted(CYANOTYPE, weight), texts, steps=6)
        )
        for weight in (0.0, 1.0)
    ]
    assert off[1] < 0.35 * off[0]


def test_pictures_follow_given_edges(wanted: list[evaluate.Ask]) -> None:
    few = wanted[:6]
    texts = [ask.text for ask in few]
    maps = np.stack([canny(picture) for picture in evaluate.renders(few)])
    controlled = adapters_evaluate.load_controlled()
    assert type(controlled).__module__.startswith("diffusers.")
    without, with_edges = (
        adapters_evaluate.mean_agreement(
            adapters_evaluate.draw_edges(controlled, texts, maps, scale=scale, steps=6), maps
        )
        for scale in (0.0, 1.0)
    )
    # 0.20 on the 60 pictures of the card; a ControlNet that had learned nothing moved it by 0.003.
    assert with_edges > without + 0.08


@pytest.mark.parametrize("adapter", adapters.ALL, ids=lambda adapter: adapter.name)
def test_the_card_of_an_adapter_is_of_the_shipped_weights(adapter: Adapter) -> None:
    report = adapters_card.measured(adapter)
    words = (adapter.folder / "README.md").read_text()
    assert words == adapters_card.text(adapter, report, adapters_card.training_facts(adapter))
    assert f"{100 * report['rows'][-1]['there']:.1f}" in words


def test_vignettes_card_lists_its_adapters() -> None:
    words = (export.MODEL / "README.md").read_text()
    assert adapters_card.listed() in words


def test_an_adapter_that_learned_nothing_changes_nothing() -> None:
    plain, adapted = unet(), unet()
    lowrank.adapt(adapted, 2)
    learned = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert learned
    assert all(".parametrizations.weight.0." in name for name in learned)
    for (_, one), (_, other) in zip(lowrank.layers(plain), lowrank.layers(adapted), strict=True):
        assert torch.equal(one.weight, other.weight)


def test_what_is_saved_of_an_adapter_is_what_was_learned(tmp_path: Path) -> None:
    learned, plain = unet(), unet()
    lowrank.adapt(learned, 2)
    with torch.no_grad():
        for weight in learned.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.1)
    size = lowrank.save(learned, tmp_path / "lora.safetensors")
    assert size == (tmp_path / "lora.safetensors").stat().st_size
    lowrank.merge(plain, tmp_path / "lora.safetensors")
    for (_, one), (_, other) in zip(lowrank.layers(plain), lowrank.layers(learned), strict=True):
        assert torch.allclose(one.weight, other.weight, atol=2e-3)


def test_the_student_is_asked_as_the_sampler_asks_it() -> None:
    sampler = LCMScheduler.from_config(evaluate.load_pipeline(export.MODEL).scheduler.config)
    sampler.set_timesteps(4)
    levels = torch.arange(1, consistency.LEVELS + 1) * consistency.STRIDE - 1
    assert set(sampler.timesteps.tolist()) <= set(levels.tolist())
    skip, out = consistency.boundary(levels)
    for k, level in enumerate(levels):
        theirs = sampler.get_scalings_for_boundary_condition_discrete(int(level))
        assert [float(skip[k]), float(out[k])] == pytest.approx([float(t) for t in theirs])
    assert torch.allclose(consistency.Noise().kept[:-1], sampler.alphas_cumprod)


def test_the_clean_end_of_a_path_is_its_own_answer() -> None:
    skip, out = consistency.boundary(torch.tensor([-1]))
    assert (float(skip), float(out)) == (1, 0)
    assert [float(scale) for scale in consistency.Noise().scales(torch.tensor([-1]))] == [1, 0]


def test_clean_latents_and_noise_are_found_from_their_velocity() -> None:
    noise = consistency.Noise()
    clean, added = torch.randn(3, 12, 4, 4), torch.randn(3, 12, 4, 4)
    levels = torch.tensor([19, 499, 999])
    alpha, sigma = noise.scales(levels)
    found = noise.split(alpha * clean + sigma * added, alpha * added - sigma * clean, levels)
    assert torch.allclose(found[0], clean, atol=1e-4)
    assert torch.allclose(found[1], added, atol=1e-4)


def test_a_cyanotype_has_only_its_own_colours() -> None:
    picture = render(scene_at("classifier", 1))
    drawn = cyanotype(picture)
    assert drawn.shape == picture.shape
    assert np.array_equal(drawn, cyanotype(picture))
    assert adapters_evaluate.off_colour(drawn[None]) < 3
    assert adapters_evaluate.off_colour(picture[None]) > 20


def test_edges_agree_within_a_pixel_and_not_beyond() -> None:
    asked = np.zeros((16, 16), np.uint8)
    asked[4] = 255
    assert adapters_evaluate.agreement(asked, asked) == 1
    assert adapters_evaluate.agreement(np.roll(asked, 1, 0), asked) == 1
    assert adapters_evaluate.agreement(np.roll(asked, 2, 0), asked) == 0
    both = asked | np.roll(asked, 8, 0)
    assert adapters_evaluate.agreement(both, asked) == pytest.approx(2 / 3)
    assert adapters_evaluate.agreement(np.zeros_like(asked), asked) == 0


class Slope:
    """The smallest lesson: a weight to bring down to one."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.module.weight, 3.0)
        self.fresh: list[torch.nn.Parameter] = []
        self.published: list[float] = []

    def loss(self, step: int) -> torch.Tensor:
        return (self.module.weight - 1).square().sum()

    def absorb(self, step: int) -> None:
        self.steps = step + 1

    def publish(self) -> None:
        self.published.append(float(self.module.weight.detach()))


def test_a_training_goes_on_where_it_was_and_publishes_the_average(tmp_path: Path) -> None:
    parser = finetune.arguments(None, "slope", minutes=0.01, peak=0.1)
    told: argparse.Namespace = parser.parse_args(["--folder", str(tmp_path)])
    first = Slope()
    finetune.Training(first, told).run()
    assert 0.5 < first.published[-1] < 3
    again = Slope()
    told.minutes = 0.02
    resumed = finetune.Training(again, told)
    assert resumed.step == first.steps
    assert torch.equal(again.module.weight, first.module.weight)
