"""The unmodified diffusers pipeline, timed: what ``calotype bench`` puts beside the platform.

Run as ``python -m calotype.engine.plain``; the last line of stdout is JSON. It shares with the
engine the model's folder and how the device is prepared (threads, how they wait, precision), so
that what differs is the platform; its scheduler is that of the sampler it is told.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from calotype.engine.libraries import before_libraries, without_progress


def main() -> None:
    """Time single pictures, and one batch; both after a picture that warms the pipeline up."""
    asked = _arguments()
    before_libraries()
    from diffusers import StableDiffusionXLPipeline

    from calotype.engine.device import prepare_device, weights_dtype
    from calotype.engine.samplers import scheduler_of

    without_progress()
    device = prepare_device()
    began = time.monotonic()
    dtype = weights_dtype(device)
    pipeline = StableDiffusionXLPipeline.from_pretrained(asked.model, dtype=dtype).to(device)
    pipeline.scheduler = scheduler_of(asked.sampler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    load_s = time.monotonic() - began

    began = time.monotonic()
    _draw(pipeline, asked, [0])
    first_s = time.monotonic() - began

    began = time.monotonic()
    for seed in range(asked.pictures):
        _draw(pipeline, asked, [seed])
    plain_s = (time.monotonic() - began) / asked.pictures

    began = time.monotonic()
    _draw(pipeline, asked, list(range(asked.together)))
    plain_batch_s = (time.monotonic() - began) / asked.together
    print(
        json.dumps(
            {
                "plain_load_s": load_s,
                "plain_first_s": first_s,
                "plain_s": plain_s,
                "plain_batch_s": plain_batch_s,
            }
        )
    )


def _draw(pipeline: Any, asked: argparse.Namespace, seeds: list[int]) -> None:
    import torch

    pipeline(
        prompt=[asked.prompt] * len(seeds),
        width=asked.width,
        height=asked.height,
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="calotype.engine.plain", description=__doc__)
    parser.add_argument("--model", required=True, help="diffusers folder")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--guidance", type=float, required=True)
    parser.add_argument("--sampler", required=True)
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--together", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    main()
