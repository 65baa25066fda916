"""The engine's loop on real classes: who shares a pass, and that it never changes a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
)

from calotype.core import limits
from calotype.core.messages import CancelRow, LoadModel, ModelFailed, RowDone, RowStarted
from calotype.engine.buckets import at_once, prove_buckets, random_forwards
from calotype.engine.families.base import Encoding
from calotype.engine.forwards import Forwards
from tests.rooms.engine_bench import EMBEDDED, SIZE, Bench, run_row

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
}


@pytest.fixture(scope="module")
def pipeline(tiny: Path) -> StableDiffusionXLPipeline:
    plain = StableDiffusionXLPipeline.from_pretrained(tiny)
    plain.set_progress_bar_config(disable=True)
    return plain


@pytest.fixture(scope="module")
def busy(tiny: Path) -> Bench:
    """Another load of the model."""
    return Bench(tiny)


def plain_latents(
    pipeline: StableDiffusionXLPipeline, sampler: str, **changes: object
) -> torch.Tensor:
    kind, options = SCHEDULERS[sampler]
    stock = pipeline.scheduler
    pipeline.scheduler = kind.from_config(stock.config, **options)
    try:
        arguments: dict[str, object] = {
            "prompt": "a red house under a starry night",
            "width": SIZE,
            "height": SIZE,
            "num_inference_steps": 6,
            "guidance_scale": 5.0,
            "generator": torch.Generator().manual_seed(11),
            "output_type": "latent",
        }
        latents: torch.Tensor = pipeline(**(arguments | changes)).images
        return latents
    finally:
        pipeline.scheduler = stock


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_a_row_ends_where_the_plain_pipeline_ends(
    bench: Bench, pipeline: StableDiffusionXLPipeline, sampler: str
) -> None:
    bench.finish(run_row("r", sampler=sampler, steps=6))
    expected = plain_latents(pipeline, sampler)
    assert torch.allclose(bench.latents[-1], expected, rtol=0, atol=1e-3)
    unguided = plain_latents(pipeline, sampler, guidance_scale=1.0)
    assert not torch.allclose(unguided, expected, rtol=0, atol=1e-2), "guidance must show"


def test_guidance_off_and_a_negative_prompt_match_the_plain_pipeline_too(
    bench: Bench, pipeline: StableDiffusionXLPipeline
) -> None:
    bench.finish(run_row("off", steps=6, guidance=1.0))
    bench.finish(run_row("not", steps=6, negative_prompt="snow"))
    off = plain_latents(pipeline, "euler", guidance_scale=1.0)
    negative = plain_latents(pipeline, "euler", negative_prompt="snow")
    assert torch.allclose(bench.latents[0], off, rtol=0, atol=1e-3)
    assert torch.allclose(bench.latents[-1], negative, rtol=0, atol=1e-3)
    assert not torch.allclose(negative, plain_latents(pipeline, "euler"), rtol=0, atol=1e-3)


def test_the_embedded_model_draws_what_the_plain_pipeline_draws() -> None:
    bench = Bench(EMBEDDED, "vignette")
    bench.finish(run_row("r", model="vignette", sampler="dpmpp_2m"))
    plain = StableDiffusionXLPipeline.from_pretrained(EMBEDDED)
    plain.set_progress_bar_config(disable=True)
    picture = plain(
        "a red house under a starry night",
        width=SIZE,
        height=SIZE,
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(11),
    ).images[0]
    apart = np.abs(bench.picture("r").astype(int) - np.asarray(picture).astype(int))
    assert apart.max() <= 1  # of 255: rounding
    assert bench.loaded.buckets  # which ones depends on the machine's kernels
    assert set(bench.loaded.buckets) <= {1, 2, 4, 8, 16}
    assert 1 <= len(bench.previews("r")) <= limits.PREVIEWS_PER_IMAGE_MAX


def test_rows_with_other_steps_samplers_and_guidance_share_one_pass(bench: Bench) -> None:
    passes = bench.finish(
        run_row("a", steps=6, sampler="euler"),
        run_row("b", steps=3, sampler="dpmpp_2m", seed=2),
        run_row("c", steps=4, sampler="ddim", guidance=1.0, seed=3),
    )
    assert passes == 6  # as many as the longest needs
    assert (bench.steps("a"), bench.steps("b")) == ([1, 2, 3, 4, 5, 6], [1, 2, 3])


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_a_picture_has_the_same_bytes_alone_and_beside_others_that_come_and_go(
    bench: Bench, busy: Bench, sampler: str
) -> None:
    bench.finish(run_row("alone", sampler=sampler, steps=6))
    busy.rest()
    busy.start(run_row("target", sampler=sampler, steps=6))
    busy.engine.tick()
    busy.start(run_row("x", steps=2, sampler="euler_a", seed=5))
    busy.engine.tick()
    busy.start(run_row("y", steps=5, guidance=1.0, seed=6), run_row("z", steps=9, seed=7))
    busy.finish(*(run_row(f"more{i}", seed=20 + i) for i in range(3)))
    index = [m.row for m in busy.said(RowDone)].index("target")
    assert torch.equal(busy.latents[index], bench.latents[-1])
    assert busy.pixels("target") == bench.pixels("alone")
    assert busy.pixels("x") != busy.pixels("target")


def test_another_size_is_another_pass(bench: Bench) -> None:
    bench.finish(run_row("proves the size", steps=1, width=SIZE + 8))
    passes = bench.finish(run_row("a", steps=3), run_row("b", steps=3, width=SIZE + 8))
    assert passes == 6
    (wide,) = [m for m in bench.said(RowDone) if m.row == "b"]
    assert (wide.width, wide.height) == (SIZE + 8, SIZE)
    assert len(bench.pixels("b")) == (SIZE + 8) * SIZE * 3


def test_a_cancelled_row_stops_at_the_next_step_and_says_no_more(bench: Bench) -> None:
    bench.start(run_row("gone", steps=5), run_row("stays", steps=5))
    bench.engine.tick()
    bench.engine.handle(CancelRow("gone"))
    bench.engine.handle(CancelRow("never held"))
    bench.finish()
    assert bench.steps("gone") == [1]
    assert [m.row for m in bench.said(RowDone)] == ["stays"]
    assert bench.engine.rows_held == 0


def test_a_row_whose_numbers_run_away_fails_alone_and_for_good(bench: Bench) -> None:
    bench.finish(run_row("alone", steps=4, seed=3))
    bench.start(run_row("nan", steps=4), run_row("fine", steps=4, seed=3))
    bench.engine.tick()
    row = bench.engine._rows["nan"]
    row.latents = torch.full_like(row.latents, float("nan"))
    bench.finish()
    failure = bench.failure("nan")
    assert not failure.retryable
    assert "finite" in failure.reason
    assert bench.pixels("fine") == bench.pixels("alone")


def test_when_a_pass_fails_its_rows_may_be_tried_again_and_the_engine_lives_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(forwards: Forwards) -> torch.Tensor:
        raise RuntimeError(f"no kernel for {len(forwards)} forwards")

    bench.start(run_row("a"), run_row("b"))
    with monkeypatch.context() as patch:
        patch.setattr(bench.model, "denoise", broken)
        bench.engine.tick()
    assert bench.failure("a").retryable
    assert bench.failure("b").retryable
    assert "no kernel for 4 forwards" in bench.failure("b").reason
    bench.finish(run_row("c"))
    assert bench.pixels("c")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sampler": "magic"}, "be sampled"),
        ({"width": SIZE + 4}, "multiple of 8"),
    ],
)
def test_what_cannot_be_run_fails_for_good(
    bench: Bench, changes: dict[str, object], reason: str
) -> None:
    bench.start(run_row("r", **changes))
    assert reason in bench.failure("r").reason
    assert not bench.failure("r").retryable
    assert bench.engine.rows_held == 0


def test_one_row_too_many_is_sent_back_to_be_tried_elsewhere(bench: Bench) -> None:
    bench.start(*(run_row(f"r{i}") for i in range(limits.ENGINE_ROWS_MAX + 1)))
    assert bench.failure(f"r{limits.ENGINE_ROWS_MAX}").retryable
    assert len(bench.said(RowStarted)) == bench.engine.rows_held == limits.ENGINE_ROWS_MAX


def test_a_prompt_is_encoded_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = bench.model.encode

    def spied(text: str) -> Encoding:
        encoded.append(text)
        return encode(text)

    monkeypatch.setattr(bench.model, "encode", spied)
    bench.start(
        run_row("a", prompt="a new one"),
        run_row("b", prompt="a new one", seed=2),
        run_row("c", prompt="another"),
    )
    assert encoded == ["a new one", "another"]


@pytest.fixture
def pass_of_a_second(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's clock stands still, but for a second that each pass takes."""
    now_s = 0.0
    denoise = bench.model.denoise

    def timed(forwards: Forwards) -> torch.Tensor:
        nonlocal now_s
        now_s += 1.0
        return denoise(forwards)

    monkeypatch.setattr(bench.model, "denoise", timed)
    for keeps_time in (bench.engine, bench.engine._admission, bench.engine._answers):
        monkeypatch.setattr(keeps_time, "_clock", lambda: now_s)


@pytest.mark.usefixtures("pass_of_a_second")
def test_device_seconds_are_shared_by_forwards(bench: Bench) -> None:
    bench.finish(run_row("two", steps=6), run_row("one", steps=6, guidance=1.0, seed=2))
    cost = {m.row: m.device_s for m in bench.said(RowDone)}
    assert cost == {"two": pytest.approx(4.0), "one": pytest.approx(2.0)}
    scores = [m.scores for m in bench.said(RowDone)]
    assert all(score["finite"] == 1.0 and 0 <= score["contrast"] <= 0.5 for score in scores)


@pytest.mark.usefixtures("pass_of_a_second")
def test_the_first_row_of_a_size_pays_no_more_than_the_next(bench: Bench) -> None:
    before = bench.engine.passes
    for name in ("first", "next"):
        bench.finish(run_row(name, steps=3, width=SIZE + 16))
    assert [m.device_s for m in bench.said(RowDone)] == [pytest.approx(3.0)] * 2
    assert bench.engine.passes - before > 2 * 3, "the size was proven"


def test_on_a_gpu_the_clock_is_read_when_the_device_is_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.start(run_row("r"))
    waited: list[torch.device] = []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.synchronize = lambda: waited.append(device)

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    bench.engine.tick()
    assert not waited, "there is no GPU"
    monkeypatch.setattr(bench.engine, "_device", torch.device("cuda:0"))
    bench.engine.tick()
    assert waited == [torch.device("cuda:0")] * 4  # before and after the pass, and its absorbing


def test_a_text_too_long_for_the_model_is_said_to_be_cut(bench: Bench) -> None:
    room = bench.model.tokenizers[0].model_max_length - 2  # its begin and its end
    bench.start(
        run_row("fits", prompt="house " * room),
        run_row("cut", prompt="house " * (room + 1)),
        run_row("both", prompt="house " * (room + 1), negative_prompt="tree " * (room + 2)),
        run_row("unguided", negative_prompt="tree " * (room + 2), guidance=1.0),
    )
    told = {m.row: m.tokens_cut for m in bench.said(RowStarted)}
    assert told == {"fits": 0, "cut": 1, "both": 3, "unguided": 0}


def test_a_folder_that_is_no_model_is_reported_not_raised(bench: Bench, tmp_path: Path) -> None:
    bench.engine.load(LoadModel("none", str(tmp_path), "b"))
    (tmp_path / "model_index.json").write_text('{"_class_name": "KolorsPipeline"}')
    bench.engine.load(LoadModel("kolors", str(tmp_path), "b"))
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    bench.engine.load(LoadModel("empty", str(tmp_path), "b"))
    reasons = [m.reason for m in bench.said(ModelFailed)]
    assert "model_index.json" in reasons[0]
    assert "KolorsPipeline is not supported" in reasons[1]
    assert len(reasons) == 3


def test_a_bucket_whose_neighbours_change_the_bits_is_left_out() -> None:
    text = {"embeds": torch.zeros(1, 3, 4), "time_ids": torch.zeros(1, 6)}
    like = Forwards(torch.zeros(1, 1, 2, 2), torch.zeros(1), text)
    sample = random_forwards(9, like, {"time_ids"})

    def sums_from_four_up(forwards: Forwards) -> torch.Tensor:
        mixed = forwards.latents.mean() if len(forwards) == 4 else 0.0
        return forwards.latents + mixed

    def always_sums(forwards: Forwards) -> torch.Tensor:
        return forwards.latents + forwards.latents.mean()

    assert at_once(prove_buckets(sums_from_four_up, sample, (2, 4, 8))) == (2, 8)
    assert at_once(prove_buckets(always_sums, sample, (2, 4, 8))) == (1,)
