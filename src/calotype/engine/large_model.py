"""Writes a model folder of Stable Diffusion's real sizes, with weights of no meaning.

Run as ``python -m calotype.engine.large_model``. For measuring how quickly models load: the layers
are SDXL's or SD 1.5's (Podell 2023, Rombach 2022), the numbers are noise in float16, and the words
of the tokenizers are any two letters.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import islice, product
from pathlib import Path
from typing import Any

from calotype.engine.libraries import before_libraries

_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_UNETS: dict[str, dict[str, Any]] = {
    "sd15": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
_NOISE_BYTES = 64 * 1024**2  # made at one time
_SIGN_AND_FRACTION, _EXPONENT = 0x83FF, 0x2000  # of float16: numbers of 1/128 to 1/64
_RANK = 32
_WORDS = 49_408


def make(size: str, folder: Path) -> None:
    """Write the folder."""
    import diffusers
    import transformers

    from calotype.engine.families.parts import WithoutWeights

    text = transformers.CLIPTextConfig
    with WithoutWeights():
        parts = {
            "unet": diffusers.UNet2DConditionModel(**_UNETS[size]),
            "vae": diffusers.AutoencoderKL(**_VAE),
            "text_encoder": transformers.CLIPTextModel(text(**_CLIP_L)),
        }
        if size == "sdxl":
            second = transformers.CLIPTextModelWithProjection(text(**_CLIP_G))
            parts["text_encoder_2"] = second
    kind = "StableDiffusionXLPipeline" if size == "sdxl" else "StableDiffusionPipeline"
    index: dict[str, Any] = {
        "_class_name": kind,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    for name, part in parts.items():
        library = type(part).__module__.split(".")[0]
        index[name] = [library, type(part).__name__]
        (folder / name).mkdir(parents=True)
        if library == "transformers":
            part.config.save_pretrained(folder / name)
        else:
            part.save_config(folder / name)
        stem = "model" if library == "transformers" else "diffusion_pytorch_model"
        shapes = {key: tuple(it.shape) for key, it in part.state_dict().items()}
        write_noise(folder / name / f"{stem}.safetensors", shapes)
        if name.startswith("text_encoder"):
            other = name.replace("text_encoder", "tokenizer")
            index[other] = ["transformers", "CLIPTokenizer"]
            _write_tokenizer(folder / other)
    if size == "sd15":
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    if size == "sdxl":
        write_noise(folder.with_name(f"{folder.name}-lora.safetensors"), _lora(parts["unet"]))


def _write_tokenizer(folder: Path) -> None:
    """One of CLIP's kind and size (Radford 2021): letters, letters that end a word, and pairs."""
    letters = [chr(it) for it in (*range(33, 127), *range(161, 173), *range(174, 324))]
    ends = [f"{it}</w>" for it in letters]
    pairs = [*islice(product(letters, letters + ends), _WORDS - 2 - 2 * len(letters))]
    begin, end = "<|startoftext|>", "<|endoftext|>"
    words = [*letters, *ends, *(one + other for one, other in pairs), begin, end]
    special = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": end}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    folder.mkdir()
    merges = ["#version: 0.2", *(f"{one} {other}" for one, other in pairs)]
    (folder / "merges.txt").write_text("\n".join(merges))
    (folder / "vocab.json").write_text(json.dumps({it: at for at, it in enumerate(words)}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _lora(unet: Any) -> dict[str, tuple[int, ...]]:
    """A LoRA's tensors, for all linear layers of the UNet's transformers, as diffusers names it."""
    import torch

    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in unet.named_modules():
        if isinstance(layer, torch.nn.Linear) and "transformer_blocks" in name:
            shapes[f"unet.{name}.lora_A.weight"] = (_RANK, layer.in_features)
            shapes[f"unet.{name}.lora_B.weight"] = (layer.out_features, _RANK)
    return shapes


def write_noise(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of float16 tensors, each number about 0.01; the same for the same name."""
    import numpy as np

    header, at = {}, 0
    for key, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    chance = np.random.default_rng([*file.name.encode()])
    file.unlink(missing_ok=True)
    with file.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for begin in range(0, at, _NOISE_BYTES):
            noise = np.frombuffer(chance.bytes(min(_NOISE_BYTES, at - begin)), np.uint16)
            stream.write((noise & _SIGN_AND_FRACTION | _EXPONENT).tobytes())
    file.chmod(0o444)  # as the registry's files are: nobody may write to them


def main() -> None:
    """Write a folder as the arguments say."""
    parser = argparse.ArgumentParser(prog="calotype.engine.large_model", description=__doc__)
    parser.add_argument("--size", choices=[*_UNETS], required=True)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    before_libraries()
    make(asked.size, asked.folder)


if __name__ == "__main__":
    main()
