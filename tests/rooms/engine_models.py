"""Tiny random models of the real classes, one a family, and the plain pipelines to hold us to.

``make_model(family, folder)`` saves one; ``pair(folder)`` loads it as ours and as diffusers'.
``ours`` and ``oracle`` draw the same row with each: uint8 (height, width, 3).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HeunDiscreteScheduler,
    LCMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    TCDScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from calotype.core.messages import LoadModel, Message, ModelLoaded, RowDone, RowFailed, RunRow
from calotype.engine.families.base import Model
from calotype.engine.families.loading import load_model
from calotype.engine.loop import Engine
from calotype.engine.room import Room
from tests.rooms.engine_bench import EMBEDDED, SIZE, run_to_end

Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
PROMPT = "a red house under a starry night"
CPU = torch.device("cpu")
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {**NOISE, "timestep_spacing": "leading", "steps_offset": 1}
_WORDS = [
    "a",
    "red",
    "house",
    "under",
    "starry",
    "night",
    "blue",
    "boat",
    "on",
    "the",
    "sea",
    "with",
    "trees",
    "and",
    "snow",
]


# The models.


def make_model(family: str, folder: Path) -> Path:
    """Save a family's tiny model, always the same, by its name in ``_MAKERS``."""
    torch.manual_seed(7)
    _MAKERS[family]().save_pretrained(folder)
    return folder


def _sd15() -> StableDiffusionPipeline:
    tokenizer = _clip_tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip_config(tokenizer, 32)),
        tokenizer=tokenizer,
        unet=unet(cross_attention_dim=32),
        scheduler=DDIMScheduler(**LEADING, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(*, first: int = 32, second: int = 32) -> StableDiffusionXLPipeline:
    """With encoders of these widths."""
    tokenizer = _clip_tokenizer()
    return StableDiffusionXLPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip_config(tokenizer, first)),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer, second)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet(
            cross_attention_dim=first + second,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=second + 6 * 8,
        ),
        scheduler=EulerDiscreteScheduler(**LEADING),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _sd3(*, t5: bool = True) -> StableDiffusion3Pipeline:
    clip = _clip_tokenizer()
    words = _t5_tokenizer()
    return StableDiffusion3Pipeline(
        vae=_vae(16, shift_factor=0.0609, scaling_factor=1.5305),
        text_encoder=CLIPTextModelWithProjection(_clip_config(clip, 16)),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(clip, 24)),
        text_encoder_3=T5EncoderModel(_t5_config(words, 48)) if t5 else None,
        tokenizer=clip,
        tokenizer_2=clip,
        tokenizer_3=words if t5 else None,
        transformer=SD3Transformer2DModel(
            sample_size=SIZE // 8,
            patch_size=2,
            in_channels=16,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=48,
            caption_projection_dim=32,
            pooled_projection_dim=16 + 24,
            out_channels=16,
            pos_embed_max_size=32,
            qk_norm="rms_norm",
            dual_attention_layers=(0,),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _flux(*, schnell: bool = False) -> FluxPipeline:
    clip = _clip_tokenizer()
    words = _t5_tokenizer()
    return FluxPipeline(
        vae=_vae(16, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False),
        text_encoder=CLIPTextModel(_clip_config(clip, 24)),
        text_encoder_2=T5EncoderModel(_t5_config(words, 32)),
        tokenizer=clip,
        tokenizer_2=words,
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=24,
            guidance_embeds=not schnell,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=1.0 if schnell else 3.0, use_dynamic_shifting=not schnell
        ),
    )


_MAKERS: Mapping[str, Callable[[], Any]] = {
    "sd15": _sd15,
    "sdxl": _sdxl,
    "sdxl-uneven": lambda: _sdxl(first=24, second=40),
    "sd3": _sd3,
    "sd3-no-t5": lambda: _sd3(t5=False),
    "flux": _flux,
    "flux-schnell": lambda: _flux(schnell=True),
}


def unet(**changes: Any) -> UNet2DConditionModel:
    """A UNet with attention at its lower level only, as Stable Diffusion XL's."""
    fields: dict[str, Any] = {
        "sample_size": SIZE // 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "norm_num_groups": 8,
        **changes,
    }
    return UNet2DConditionModel(**fields)


def _vae(channels: int, **changes: Any) -> AutoencoderKL:
    fields: dict[str, Any] = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "latent_channels": channels,
        "norm_num_groups": 4,
        "sample_size": SIZE,
        **changes,
    }
    return AutoencoderKL(**fields)


def _clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")


def _clip_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _t5_tokenizer() -> T5TokenizerFast:
    letters = [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz,.▁"]
    words = [(f"▁{word}", -3.0) for word in _WORDS]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5TokenizerFast(vocab=[*special, *words, *letters], extra_ids=0, model_max_length=512)


def _t5_config(tokenizer: T5TokenizerFast, width: int) -> T5Config:
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )


# The plain pipelines, as a person would set them up by hand.

SCHEDULERS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"use_karras_sigmas": False}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "dpmpp_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
    "tcd": (TCDScheduler, {"clip_sample": False}),
    "flow_euler": (FlowMatchEulerDiscreteScheduler, {}),
    "flow_heun": (FlowMatchHeunDiscreteScheduler, {}),
}


def plain_pipeline(folder: Path, **options: Any) -> Any:
    """diffusers' own pipeline of this folder."""
    index = json.loads((folder / "model_index.json").read_text())
    left_out = {name: None for name, what in index.items() if what == [None, None]}
    kind = getattr(diffusers, index["_class_name"])
    pipeline = kind.from_pretrained(folder, **left_out, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_sampler(pipeline: Any, sampler: str) -> Any:
    """The same pipeline, with the scheduler that a sampler's name stands for."""
    kind, options = SCHEDULERS[sampler]
    config = pipeline.config_of_scheduler = getattr(
        pipeline, "config_of_scheduler", pipeline.scheduler.config
    )
    if "shift" in config and sampler in ("dpmpp_2m", "unipc"):
        options = {
            **options,
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "flow_shift": config["shift"],
        }
    pipeline.scheduler = kind.from_config(config, **options)
    return pipeline


def oracle(pipeline: Any, row: RunRow, **changes: Any) -> Picture:
    """The picture that diffusers' pipeline draws for a row: uint8 (height, width, 3)."""
    arguments: dict[str, Any] = {
        "prompt": row.prompt,
        "negative_prompt": row.negative_prompt or None,
        "width": row.width,
        "height": row.height,
        "num_inference_steps": row.steps,
        "guidance_scale": row.guidance,
        "generator": torch.Generator().manual_seed(row.seed),
        "output_type": "np",
        **changes,
    }
    if isinstance(pipeline, FluxPipeline) and not pipeline.transformer.config.guidance_embeds:
        arguments.setdefault("max_sequence_length", 256)
    if row.sampler == "tcd":
        arguments.setdefault("eta", 0.3)  # as its authors and its scheduler have it
    taken = inspect.signature(pipeline.__call__).parameters
    assert arguments.keys() <= taken.keys(), arguments.keys() - taken.keys()
    with torch.inference_mode():
        picture = with_sampler(pipeline, row.sampler)(**arguments).images[0]
    return np.asarray((picture * 255).round().astype(np.uint8))


def pair(folder: Path) -> tuple[Model, Any]:
    """A folder's model as ours, and diffusers' pipeline of it."""
    model = load_model(LoadModel(folder.name, str(folder), "build"), CPU)
    return model, plain_pipeline(folder)


# Our engine.


class Drawer:
    """An engine of this process that has loaded one folder, and all it says."""

    def __init__(
        self, folder: Path, *, device: torch.device = CPU, room: Room | None = None, **options: Any
    ) -> None:
        self.name = folder.name
        self.heard: list[tuple[Message, bytes]] = []

        def hear(message: Message, blob: bytes = b"") -> None:
            self.heard.append((message, blob))

        self.engine = Engine(hear, device, room=room)
        self.engine.load(LoadModel(self.name, str(folder), "build", **options))
        loaded = self.heard[-1][0]
        assert isinstance(loaded, ModelLoaded), loaded
        self.loaded = loaded

    @property
    def model(self) -> Model:
        return self.engine._models.get(self.name)

    def row(self, row: str = "row", **changes: Any) -> RunRow:
        """A short guided row of this model."""
        fields: dict[str, Any] = {
            "model": self.name,
            "prompt": PROMPT,
            "negative_prompt": "",
            "width": SIZE,
            "height": SIZE,
            "steps": 4,
            "guidance": 5.0,
            "sampler": self.model.samplers[0],
            "seed": 11,
            "tier": "fast",
            **changes,
        }
        return RunRow(row=row, **fields)

    def ours(self, row: RunRow, blob: bytes = b"") -> Picture:
        """Draw one row, alone: uint8 (height, width, 3)."""
        self.engine.handle(row, blob)
        self.finish()
        return self.picture(row)

    def finish(self) -> None:
        """Run all that is held to the end."""
        run_to_end(self.engine)

    def picture(self, row: RunRow) -> Picture:
        """The finished picture of a row that was drawn; the last, if there are more."""
        for message, blob in reversed(self.heard):
            assert not (isinstance(message, RowFailed) and message.row == row.row), message
            if isinstance(message, RowDone) and message.row == row.row:
                return np.frombuffer(blob, np.uint8).reshape(row.height, row.width, 3)
        raise AssertionError([message for message, _ in self.heard])


def apart(one: Picture, other: Picture) -> int:
    """The largest difference of two pictures anywhere, of 255."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())
