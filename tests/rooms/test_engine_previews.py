"""Previews: cheap, rough, and like the picture."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from calotype.core import limits
from calotype.core.messages import LoadModel, StepDone
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Model
from calotype.engine.families.loading import load_model
from calotype.engine.previews import COARSE_PX, PREVIEW_PX_MAX, Previewer, preview_due
from calotype.engine.rows import start_row
from tests.rooms.engine_bench import EMBEDDED, SIZE, Bench, run_row


@pytest.fixture(scope="module", autouse=True)
def _no_gradients(one_thread: None) -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def vignette() -> Model:
    return load_model(LoadModel("m", str(EMBEDDED), "b"), torch.device("cpu"))


@pytest.fixture(scope="module", params=["light", "heavy"])
def previewer(request: pytest.FixtureRequest, tiny: Path, vignette: Model) -> Previewer:
    """Of a plain autoencoder, and of a variational one."""
    if request.param == "light":
        return Previewer(vignette)
    return Previewer(load_model(LoadModel("m", str(tiny), "b"), torch.device("cpu")))


def image_of(preview: bytes) -> Image.Image:
    return Image.open(io.BytesIO(preview))


def test_previews_are_few_small_and_never_of_the_last_step(tiny: Path) -> None:
    bench = Bench(tiny)
    bench.finish(run_row("r", steps=10))
    previews = bench.previews("r")
    assert len(previews) == 3  # of steps 1, 5 and 9
    image = image_of(previews[-1])
    assert image.format == "WEBP"
    assert image.size == (SIZE // 2, SIZE // 2)


@given(st.integers(limits.STEPS_MIN, limits.STEPS_MAX), st.randoms())
def test_previews_are_few_however_late_each_may_be(steps: int, chance: random.Random) -> None:
    shown: list[int] = []
    for step in range(1, steps + 1):
        if preview_due(step, steps, shown[-1] if shown else None) >= 0 and chance.random() < 0.7:
            shown.append(step)
    assert len(shown) <= limits.PREVIEWS_PER_IMAGE_MAX
    assert steps not in shown
    assert all(after - before >= 4 for before, after in pairwise(shown))


def test_a_pass_makes_one_preview_at_most_and_every_row_has_its_own(tiny: Path) -> None:
    bench = Bench(tiny)
    with_preview: list[int] = []
    tick = bench.engine.tick
    bench.start(*(run_row(f"r{at}", steps=12, guidance=1.0, seed=at) for at in range(4)))
    while tick():
        with_preview.append(sum(bool(blob) for m, blob in bench.heard if isinstance(m, StepDone)))
    bench.engine.settle()
    assert max(after - before for before, after in pairwise([0, *with_preview])) == 1
    assert {len(bench.previews(f"r{at}")) for at in range(4)} <= {2, 3}


@pytest.mark.parametrize(
    ("width", "height"), [(128, 128), (256, 256), (2048, 64), (64, 2048), (72, 64), (64, 968)]
)
def test_previews_are_rough_whatever_the_shape(
    previewer: Previewer, width: int, height: int
) -> None:
    channels = previewer._weight.shape[1]
    image = image_of(previewer.preview(torch.zeros(1, channels, height // 8, width // 8)))
    assert 0 < max(image.size) <= min(PREVIEW_PX_MAX, max(width, height) // 2)
    assert (image.width > image.height) == (width > height)


def test_coarse_previews_show_colours_at_most(previewer: Previewer) -> None:
    channels = previewer._weight.shape[1]
    for wide, high in ((16, 16), (32, 16), (4, 256)):
        latents = torch.randn(1, channels, high, wide, generator=torch.Generator().manual_seed(1))
        coarse = image_of(previewer.preview(latents, is_coarse=True))
        assert 0 < max(coarse.size) <= COARSE_PX
        rough = image_of(previewer.preview(latents)).resize(coarse.size, Image.Resampling.BOX)
        steps = [np.abs(np.diff(np.asarray(it, float), axis=0)).mean() for it in (coarse, rough)]
        assert steps[0] < steps[1] / 2, "blurred, not only shrunk"


def test_a_preview_is_near_the_picture_at_half_its_size(
    vignette: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, decoded = Bench(EMBEDDED, "vignette"), list[torch.Tensor]()
    with monkeypatch.context() as patch:
        decode = bench.model.decode

        def spied(latents: torch.Tensor) -> torch.Tensor:
            decoded.append(latents)
            return decode(latents)

        patch.setattr(bench.model, "decode", spied)
        changes = {"model": "vignette", "width": 128, "height": 128, "sampler": "dpmpp_2m"}
        changes["prompt"] = "a blue boat on the sea at sunset"
        bench.finish(run_row("r", steps=8, guidance=3.0, seed=1, **changes))
    (latents,) = decoded
    picture = torch.nn.functional.avg_pool2d(vignette.decode(latents)[None], 2)[0]
    near = Previewer(vignette).picture(latents)
    error = (near.clamp(-1, 1) - picture.clamp(-1, 1)).square().mean()
    assert error < picture.var() / 4  # 1 would be a flat grey
    assert error < 4 / 10**1.8  # 18 dB


def test_a_large_picture_has_a_preview_of_fewer_pixels_a_latent(previewer: Previewer) -> None:
    latents = torch.randn(1, previewer._weight.shape[1], 24, 64)
    small = previewer.picture(latents[..., :40])  # 4 pixels a latent: 160
    coarse = previewer.picture(latents)  # 2, or it would be 256
    assert small.shape == (3, 96, 160)
    assert coarse.shape == (3, 48, 128)
    means = torch.nn.functional.avg_pool2d(small[None], 2)[0]
    torch.testing.assert_close(coarse[:, :, :78], means[:, :, :78])  # but for its edge


def test_a_preview_decodes_nothing(tiny: Path) -> None:
    bench = Bench(tiny)
    bench.finish(run_row("r", steps=10))
    assert bench.previews("r")
    assert len(bench.latents) == 1, "the finished picture's"


def test_a_preview_is_less_than_a_hundredth_of_the_smallest_pass(vignette: Model) -> None:
    """Counted in multiplications and additions, since a clock says little on a shared machine."""
    row = start_row(run_row("r", width=128, height=128), vignette, Encodings())
    previewer = Previewer(vignette)
    with FlopCounterMode(display=False) as step:
        vignette.denoise(row.forwards())
    with FlopCounterMode(display=False) as preview:
        previewer.preview(row.latents)
    assert 0 < preview.get_total_flops() < step.get_total_flops() / 100


def test_a_preview_that_fails_is_left_out_and_the_picture_is_made_all_the_same(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(latents: torch.Tensor, **_: bool) -> bytes:
        raise RuntimeError(f"no preview of {tuple(latents.shape)}")

    bench = Bench(tiny)
    monkeypatch.setattr(bench.engine._models.previewer("tiny"), "preview", broken)
    bench.finish(run_row("r"))
    assert bench.pixels("r")
    assert bench.previews("r") == []
    assert "no preview of (1, 4, 8, 8)" in capsys.readouterr().err
