"""A tiny random SDXL of the real classes, and an engine in this process that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import calotype
from calotype.core import limits
from calotype.core.messages import (
    CancelRow,
    LoadModel,
    Message,
    ModelLoaded,
    RowDone,
    RowFailed,
    RunRow,
    StepDone,
)
from calotype.engine.loop import Engine
from calotype.engine.rows import row_key

EMBEDDED = Path(calotype.__file__).parent / "models" / "vignette"
M = TypeVar("M")
SIZE = 64  # pixels: 8 x 8 latents
BUILD = "build"  # what its model is told to be


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many for torch's operations; more than one are dear on a machine that is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_tiny_model(folder: Path) -> Path:
    """Save a random SDXL with a heavy autoencoder, epsilon prediction and leading spacing."""
    torch.manual_seed(7)
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    )
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def run_row(row: str, **changes: object) -> RunRow:
    """A guided row of the tiny model; short, because tests share their machine."""
    fields: dict[str, object] = {
        "model": "tiny",
        "prompt": "a red house under a starry night",
        "negative_prompt": "",
        "width": SIZE,
        "height": SIZE,
        "steps": 4,
        "guidance": 5.0,
        "sampler": "euler",
        "seed": 11,
        "tier": "fast",
        **changes,
    }
    return RunRow(row=row, **fields)  # type: ignore[arg-type]


def run_to_end(engine: Engine) -> int:
    """Tick until no row is held, waiting for what is being read; the passes it took."""
    ticks = 0
    while True:
        if engine.tick():
            ticks += 1
        elif loads := engine._admission._loader._loads:
            wait([future for _, future in loads.values()])
        elif len(engine._reading):
            engine._reading.settle()
        else:
            engine.settle()
            return ticks


class Bench:
    """An engine on the CPU, and all it says."""

    def __init__(self, folder: Path, name: str = "tiny") -> None:
        self.folder = folder
        self.heard: list[tuple[Message, bytes]] = []
        self.engine = Engine(self._hear, torch.device("cpu"))
        self.engine.load(LoadModel(name, str(folder), BUILD))
        loaded = self.heard[-1][0]
        assert isinstance(loaded, ModelLoaded), loaded
        self.loaded = loaded
        self.latents: list[torch.Tensor] = []  # what was decoded, in order
        self.model = self.engine._models.get(name)
        decode = self.model.decode

        def spied(latents: torch.Tensor) -> torch.Tensor:
            if latents.shape[-1] == SIZE // 8:  # not those that previews are fitted to
                self.latents.append(latents.clone())
            return decode(latents)

        self.model.decode = spied  # type: ignore[method-assign]

    def _hear(self, message: Message, blob: bytes = b"") -> None:
        self.heard.append((message, blob))

    def start(self, *rows: RunRow) -> None:
        for row in rows:
            self.engine.handle(row)

    def finish(self, *rows: RunRow) -> int:
        """Run these and all that is held to the end; the number of passes it took."""
        self.start(*rows)
        return run_to_end(self.engine)

    def rest(self) -> None:
        """Drop rows, LoRAs and all it said: as if just loaded, but for sizes and texts it knows.

        Whether batches pay is measured, and depends on who else uses the machine; here they do.
        """
        for row in [*self.engine._rows]:
            self.engine.handle(CancelRow(row))
        run_to_end(self.engine)
        self.model.loras.merge(())
        self.model.loras.shelf.bytes_max = limits.LORAS_BYTES_MAX
        self.model.build = BUILD
        sizes = self.engine._sizes
        sizes.has_room_again()
        measured = sizes.find(self.model, SIZE, SIZE)
        pays = replace(measured, pass_s=(1.0,) * len(measured.pass_s))
        sizes._known.put(row_key(self.model, SIZE, SIZE), pays)
        self.heard.clear()
        self.latents.clear()

    def said(self, kind: type[M]) -> list[M]:
        return [message for message, _ in self.heard if isinstance(message, kind)]

    def pixels(self, row: str) -> bytes:
        found = [blob for m, blob in self.heard if isinstance(m, RowDone) and m.row == row]
        assert len(found) == 1, [m for m, _ in self.heard if isinstance(m, RowFailed)]
        return found[0]

    def picture(self, row: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.frombuffer(self.pixels(row), np.uint8).reshape(SIZE, SIZE, 3)

    def failure(self, row: str) -> RowFailed:
        (found,) = [m for m, _ in self.heard if isinstance(m, RowFailed) and m.row == row]
        return found

    def steps(self, row: str) -> list[int]:
        return [m.step for m, _ in self.heard if isinstance(m, StepDone) and m.row == row]

    def previews(self, row: str) -> list[bytes]:
        return [b for m, b in self.heard if isinstance(m, StepDone) and m.row == row and b]
