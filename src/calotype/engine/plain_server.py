"""Plain diffusers behind the engine's own messages: what ``calotype bench engine`` compares with.

One pipeline in memory; a request gets a pipeline object around the same components and a scheduler
of its own, as diffusers' guide to servers has it. ``--workers 1`` is a queue: first come, first
served. More workers are that guide's way: a thread a request, all at once.

Whoever compares another server puts it behind ``serve`` too: then one client measures them all.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from calotype.core.messages import (
    EngineReady,
    Heartbeat,
    LoadModel,
    ModelFailed,
    ModelLoaded,
    RowDone,
    RowFailed,
    RowLora,
    RunRow,
    StepDone,
    Stop,
)
from calotype.engine.libraries import before_libraries, without_progress
from calotype.engine.process import Link

OnStep = Callable[[int], None]  # told which step is done, 1 .. steps
Draw = Callable[[RunRow, OnStep], bytes]  # makes one picture: RGB, uint8, height x width x 3
Load = Callable[[LoadModel], AbstractContextManager[Draw]]


def alike(row: RunRow) -> tuple[object, ...]:
    """What rows must have in common to share one call of a plain pipeline."""
    return (row.width, row.height, row.steps, row.guidance, row.sampler, row.loras)


class Plain:
    """StableDiffusionXLPipeline on a model's folder; ``draw`` may be called from several threads.

    It shares with the engine how the device is prepared (threads, how they wait, precision).
    """

    def __init__(self, folder: str) -> None:
        """Load the pipeline; raises what diffusers raises."""
        before_libraries()
        import diffusers

        from calotype.engine.device import prepare_device, weights_dtype

        without_progress()
        device = prepare_device()
        self._kind = diffusers.StableDiffusionXLPipeline
        self._base: Any = self._kind.from_pretrained(
            folder, dtype=weights_dtype(device), local_files_only=True, add_watermarker=False
        ).to(device)
        self._encoding = threading.Lock()  # fast tokenizers can't be shared by threads
        self._adapters = _Adapters(self._base)

    def draw(self, rows: Sequence[RunRow], on_step: OnStep) -> list[bytes]:
        """Make the pictures of rows that are ``alike`` in one call of the pipeline."""
        import torch

        first = rows[0]
        assert all(alike(row) == alike(first) for row in rows), "they can't share a call"
        with self._adapters.worn(first.loras), torch.no_grad():
            pipeline = self._pipeline(first.sampler)
            pictures = pipeline(
                **self._encoded(pipeline, rows),
                width=first.width,
                height=first.height,
                num_inference_steps=first.steps,
                guidance_scale=first.guidance,
                generator=[torch.Generator("cpu").manual_seed(row.seed) for row in rows],
                callback_on_step_end=partial(_tell, on_step),
            ).images
        return [picture.convert("RGB").tobytes() for picture in pictures]

    def _pipeline(self, sampler: str) -> Any:
        """A pipeline of the same components with a scheduler of its own."""
        from calotype.engine.samplers import scheduler_of

        scheduler = scheduler_of(sampler, self._base.scheduler.config)
        pipeline = self._kind(
            **{**self._base.components, "scheduler": scheduler},
            force_zeros_for_empty_prompt=self._base.config.force_zeros_for_empty_prompt,
            add_watermarker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _encoded(self, pipeline: Any, rows: Sequence[RunRow]) -> dict[str, Any]:
        negative = [row.negative_prompt for row in rows]
        with self._encoding:
            embeds, negative_embeds, pooled, negative_pooled = pipeline.encode_prompt(
                [row.prompt for row in rows],
                do_classifier_free_guidance=rows[0].guidance > 1.0,
                negative_prompt=negative if any(negative) else None,
            )
        return {
            "prompt_embeds": embeds,
            "negative_prompt_embeds": negative_embeds,
            "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": negative_pooled,
        }


class _Adapters:
    """LoRAs are worn by the one UNet that all share: who wants others waits until it is free."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._free = threading.Condition()
        self._loaded: set[str] = set()
        self._worn: tuple[RowLora, ...] = ()
        self._wearers = 0

    @contextmanager
    def worn(self, loras: tuple[RowLora, ...]) -> Iterator[None]:
        """While inside, the UNet has these and no others."""
        with self._free:
            self._free.wait_for(lambda: not self._wearers or self._worn == loras)
            if self._worn != loras:
                self._wear(loras)
            self._wearers += 1
        try:
            yield
        finally:
            with self._free:
                self._wearers -= 1
                self._free.notify_all()

    def _wear(self, loras: tuple[RowLora, ...]) -> None:
        from safetensors.torch import load_file

        for lora in loras:
            if lora.name not in self._loaded:
                self._pipeline.load_lora_weights(load_file(lora.path), adapter_name=lora.name)
                self._loaded.add(lora.name)
        if loras:
            self._pipeline.enable_lora()
            names, weights = [lora.name for lora in loras], [lora.weight for lora in loras]
            self._pipeline.set_adapters(names, weights)
        else:
            self._pipeline.disable_lora()
        self._worn = loras


def _tell(on_step: OnStep, _: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    on_step(step + 1)
    return tensors


def serve(fd: int, load: Load, workers: int) -> None:
    """Answer on this inherited socket as an engine does until Stop comes or the client goes.

    ``workers`` rows are drawn at a time, the others wait in the order they came. What ``load``
    opened is closed after Stop; it must end by itself should this process be killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client, which then says Stop
    link = Link(socket.socket(fileno=fd))
    link.start()
    link.send(EngineReady(os.getpid(), "", version("torch")))  # its device only the model's
    link.beat(lambda: Heartbeat(0, 0))
    pool = ThreadPoolExecutor(workers)
    with ExitStack() as opened:
        draw: Draw | None = None
        while (command := link.take(wait=True)) is not None:
            message, _ = command
            if isinstance(message, Stop):
                break
            if isinstance(message, LoadModel):
                draw = _load(link, opened, load, message)
            elif isinstance(message, RunRow) and draw is not None:
                pool.submit(_draw, link, draw, message)
    os._exit(0)  # rows that are still being drawn are nobody's


def _load(link: Link, opened: ExitStack, load: Load, command: LoadModel) -> Draw | None:
    began = time.monotonic()
    try:
        draw = opened.enter_context(load(command))
    except Exception as error:  # noqa: BLE001 - damaged files, a server that doesn't start, ...
        link.send(ModelFailed(command.name, f"{type(error).__name__}: {error}"[:500]))
        return None
    link.send(ModelLoaded(command.name, time.monotonic() - began, 0, ()))
    return draw


def _draw(link: Link, draw: Draw, row: RunRow) -> None:
    began = time.monotonic()
    try:
        picture = draw(row, lambda step: link.send(StepDone(row.row, step, row.steps)))
    except Exception as error:  # noqa: BLE001 - the other rows go on
        link.send(RowFailed(row.row, f"{type(error).__name__}: {error}"[:500], retryable=False))
    else:
        done = RowDone(row.row, row.width, row.height, {}, time.monotonic() - began)
        link.send(done, picture)


@contextmanager
def _loaded(command: LoadModel) -> Iterator[Draw]:
    plain = Plain(command.path)
    yield lambda row, on_step: plain.draw([row], on_step)[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="calotype.engine.plain_server", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the client")
    parser.add_argument("--workers", type=int, required=True, help="pictures drawn at a time")
    asked = parser.parse_args()
    serve(asked.fd, _loaded, asked.workers)
