"""What the trainers stand on: scenes by number, shards, optimisers, averages, checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from training import autoencoder, dataset, diffusion, loop, shapes
from training.optimisers import Optimiser
from training.render import render
from training.scenes import is_held_out


def test_a_split_holds_its_own_combinations_only() -> None:
    assert not any(is_held_out(dataset.scene_at("train", k)) for k in range(300))
    assert all(is_held_out(dataset.scene_at("unseen", k)) for k in range(100))


def test_a_scene_survives_being_written_down() -> None:
    for k in range(50):
        scene = dataset.scene_at("train", k)
        assert dataset.scene_of_line(dataset.scene_to_line(scene)) == scene


def test_a_shard_holds_the_render_of_each_scene_and_is_made_once(tmp_path: Path) -> None:
    assert dataset.make("train", 5, workers=1, folder=tmp_path) == 5
    pictures = dataset.Pictures("train", tmp_path)
    assert len(pictures) == len(pictures.scenes()) == 5
    for k, scene in enumerate(pictures.scenes()):
        assert scene == dataset.scene_at("train", k)
        assert np.array_equal(pictures[k], render(scene))
    assert dataset.make("train", 5, workers=1, folder=tmp_path) == 0


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split"):
        dataset.make("test", 5, workers=1, folder=tmp_path)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_optimiser_moves_every_weight_downhill(name: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 40, 3), torch.nn.ReLU(), torch.nn.Conv2d(40, 40, 3)
    ).to(memory_format=layout)
    pictures, wanted = torch.randn(4, 3, 9, 9), torch.randn(4, 40, 5, 5)
    before = [weight.detach().clone() for weight in module.parameters()]
    optimiser = Optimiser(module, name)
    found = []
    for _ in range(30):
        loss = (module(pictures) - wanted).square().mean()
        loss.backward()
        optimiser.step(1e-2)
        found.append(float(loss.detach()))
    assert found[-1] < 0.8 * found[0]
    assert all(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_an_average_follows_and_swaps_back() -> None:
    module = torch.nn.Linear(2, 2)
    average = loop.Average(module)
    with torch.no_grad():
        module.weight.fill_(3.0)
    average.update(0)  # the first step is taken over whole
    with torch.no_grad():
        module.weight.fill_(5.0)
    average.update(99)
    average.swap()
    assert 3.0 < module.weight[0, 0].item() < 3.5
    average.swap()
    assert torch.equal(module.weight, torch.full((2, 2), 5.0))


def test_the_rate_rises_first_and_ends_at_zero() -> None:
    rates = [loop.rate(step / 1000, step, peak=1.0, warm_steps=100) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == max(rates[90:110])
    assert rates[-1] == pytest.approx(0.0)


def test_time_spent_before_counts() -> None:
    budget = loop.Budget(minutes=1, spent_s=59.0)
    assert not budget.is_over
    budget.started = time.monotonic() - 2
    assert budget.is_over


def test_a_checkpoint_that_was_cut_off_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert loop.load(path) is None
    loop.save({"step": 1}, path)
    loop.save({"step": 2}, path)
    assert loop.load(path) == {"step": 2}
    path.unlink()  # as between the two renames
    assert loop.load(path) == {"step": 1}


def test_a_part_replaces_the_one_before(tmp_path: Path) -> None:
    vae = shapes.autoencoder()
    for scale in (1.0, 2.0):
        vae.register_to_config(scaling_factor=scale)
        loop.save_part(vae, tmp_path / "vae")
    assert type(vae).from_pretrained(tmp_path / "vae").config.scaling_factor == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["vae"]


def test_a_fresh_autoencoder_starts_with_latents_of_one_deviation() -> None:
    torch.manual_seed(0)
    vae, pictures = shapes.autoencoder(), torch.rand(4, 3, 64, 64) * 2 - 1
    autoencoder.start(vae, pictures)
    with torch.no_grad():
        deviations, means = torch.std_mean(vae.encoder(pictures), dim=(0, 2, 3))
    assert torch.allclose(deviations, torch.ones(12), atol=1e-3)
    assert torch.allclose(means, torch.zeros(12), atol=1e-3)


def test_pictures_become_floats_and_bytes_again() -> None:
    pictures = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    floats = autoencoder.to_floats(pictures)
    assert (float(floats.min()), float(floats.max())) == (-1.0, 1.0)
    assert np.array_equal(autoencoder.to_bytes(floats), pictures)


def test_the_loss_is_nothing_for_one_who_knows_the_velocity() -> None:
    kept = shapes.scheduler().alphas_cumprod
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 8, 12, 16, 16, generator=generator)
    levels = torch.linspace(0, 999, 8).long()
    share = kept[levels].view(-1, 1, 1, 1)
    batch = diffusion.Batch(clean, noise, levels, torch.zeros(8, 48, 224), torch.zeros(8, 128))

    def unet(noisy: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor]:
        # From the noisy picture and the clean one alone, by the definition of v.
        eps = (noisy - share.sqrt() * clean) / (1 - share).sqrt()
        return (share.sqrt() * eps - (1 - share).sqrt() * clean,)

    assert float(diffusion.loss_of(unet, batch, kept)) == pytest.approx(0.0, abs=1e-5)
    blind = SimpleNamespace(call=lambda noisy, *_, **__: (torch.zeros_like(noisy),)).call
    assert float(diffusion.loss_of(blind, batch, kept)) > 0.1
