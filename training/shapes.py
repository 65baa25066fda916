"""The parts of ``vignette``: how large each is, and how they fit together.

A tiny Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952): pictures of 128 x 128 are
16 x 16 latents of 12 channels, two CLIP text encoders read the prompt, and the UNet is told of it
twice, through cross attention and, pooled, through its time embedding. Every trainer and the
exporter build their parts here, so that shapes are decided in one place.
"""

from __future__ import annotations

from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerBase,
)

PIXELS = 128  # a side of a picture
LATENT_CHANNELS = 12
LATENT_SIDE = 16  # PIXELS / 8
HIDDEN = 96  # width of the first text encoder
HIDDEN_2 = 128  # width of the second one, and of its pooled output
TIME_IDS = (PIXELS, PIXELS, 0, 0, PIXELS, PIXELS)  # SDXL's original size, crop, target size
TRAIN_STEPS = 1000  # noise levels


def autoencoder() -> AutoencoderTiny:
    """Pictures in [-1, 1], (n, 3, 128, 128), to latents (n, 12, 16, 16) and back; fp32."""
    return AutoencoderTiny(
        encoder_block_out_channels=(48, 48, 48, 48),
        decoder_block_out_channels=(48, 48, 48, 48),
        num_encoder_blocks=(0, 1, 2, 3),
        num_decoder_blocks=(3, 2, 1, 0),
        latent_channels=LATENT_CHANNELS,
    )


def _text_config(tokenizer: PreTrainedTokenizerBase, hidden: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        projection_dim=HIDDEN_2,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def text_encoders(
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Both text encoders for this tokenizer's words; fp32."""
    return (
        CLIPTextModel(_text_config(tokenizer, HIDDEN)),
        CLIPTextModelWithProjection(_text_config(tokenizer, HIDDEN_2)),
    )


def unet() -> UNet2DConditionModel:
    """Noisy latents (n, 12, 16, 16) to v (same shape); text (n, tokens, 224), pooled (n, 128)."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(80, 144),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=4,  # diffusers reads it as the number of heads
        cross_attention_dim=HIDDEN + HIDDEN_2,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + HIDDEN_2,
        use_linear_projection=True,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
    )


def scheduler() -> DPMSolverMultistepScheduler:
    """The noise levels trained on, as the sampler that the pipeline uses unless told otherwise."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.018,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        algorithm_type="dpmsolver++",
        solver_order=2,
    )
