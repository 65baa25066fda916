"""Rows that bring pictures: tiny models as ours and as diffusers' own pipelines for such rows."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from calotype.core.messages import RowControl, RowPicture, RunRow
from calotype.engine.previews import pixels
from tests.rooms.engine_bench import EMBEDDED, SIZE
from tests.rooms.engine_models import Drawer, Picture, make_model, plain_pipeline, with_sampler

IMAGE_TO_IMAGE = {
    "sd15": diffusers.StableDiffusionImg2ImgPipeline,
    "sdxl": diffusers.StableDiffusionXLImg2ImgPipeline,
    "sd3": diffusers.StableDiffusion3Img2ImgPipeline,
    "flux": diffusers.FluxImg2ImgPipeline,
}
INPAINT = {
    "sd15": diffusers.StableDiffusionInpaintPipeline,
    "sdxl": diffusers.StableDiffusionXLInpaintPipeline,
    "sd3": diffusers.StableDiffusion3InpaintPipeline,
    "flux": diffusers.FluxInpaintPipeline,
}
Wanted = tuple[float, float, float]  # of a ControlNet: weight, start, end


class Studio:
    """A model a name, made when it is first asked for.

    ``sd15``, ``sdxl``, ``sd3``, ``flux``; ``vignette``, the embedded one; ``sd15-inpainting`` and
    ``sdxl-inpainting``, whose UNets see the mask.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, tuple[Drawer, Any]] = {}

    def drawer(self, name: str) -> Drawer:
        """Our engine, with that model loaded."""
        return self._pair(name)[0]

    def plain(self, name: str, kind: Any, **more: Any) -> Any:
        """A pipeline of diffusers, of the same parts and ``more``."""
        taken = inspect.signature(kind.__init__).parameters
        parts = {it: part for it, part in self._pair(name)[1].components.items() if it in taken}
        if "requires_safety_checker" in taken:
            parts["requires_safety_checker"] = False
        pipeline = kind(**parts, **more)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def drawn(self, name: str, plain: Any, row: RunRow, **changes: Any) -> Picture:
        """What such a pipeline draws for a row: uint8 (height, width, 3)."""
        arguments: dict[str, Any] = {
            "prompt": row.prompt,
            "width": row.width,
            "height": row.height,
            "num_inference_steps": row.steps,
            "guidance_scale": row.guidance,
            "generator": torch.Generator().manual_seed(row.seed),
            "output_type": "latent",
            **changes,
        }
        taken = inspect.signature(plain.__call__).parameters
        with torch.inference_mode():
            sampled = with_sampler(plain, row.sampler)
            latents = sampled(**{it: v for it, v in arguments.items() if it in taken}).images
            if latents.ndim == 3:  # FLUX's are packed
                latents = plain._unpack_latents(
                    latents, row.height, row.width, plain.vae_scale_factor
                )
            # By us: diffusers' pipeline for SD3's inpainting forgets the autoencoder's shift.
            return np.asarray(pixels(self.drawer(name).model.decode(latents)))

    def _pair(self, name: str) -> tuple[Drawer, Any]:
        if name not in self._made:
            folder = EMBEDDED if name == "vignette" else self._save(name)
            self._made[name] = (Drawer(folder), plain_pipeline(folder))
        return self._made[name]

    def _save(self, name: str) -> Path:
        family, _, sees_mask = name.partition("-")
        folder = make_model(family, self.folder / name)
        if sees_mask:
            torch.manual_seed(8)
            unet = diffusers.UNet2DConditionModel
            config = {**unet.load_config(folder / "unet"), "in_channels": 9}
            unet.from_config(config).save_pretrained(folder / "unet")
            index = folder / "model_index.json"
            told = json.loads(index.read_text())
            index.write_text(json.dumps({**told, "_class_name": INPAINT[family].__name__}))
        return folder


def photo(seed: int, width: int = SIZE, height: int = SIZE) -> Picture:
    """Soft random colours with some grain: uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
    grain = random.integers(-12, 13, (height, width, 3))
    large = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (large + grain).clip(0, 255).astype(np.uint8)


def window(width: int = SIZE, height: int = SIZE) -> Picture:
    """A mask, uint8 (height, width, 1): white in the middle, with an edge between two latents."""
    mask = np.zeros((height, width, 1), np.uint8)
    mask[height // 4 - 3 : -height // 4, width // 4 : -width // 4 + 5] = 255
    return mask


FIRST, SECOND, SOURCE, MASK = photo(2), photo(3), photo(1), window()


def frame(*pictures: Picture) -> tuple[tuple[RowPicture, ...], bytes]:
    """What a row says of its pictures, and their bytes."""
    told = tuple(RowPicture(it.shape[1], it.shape[0], it.shape[2]) for it in pictures)
    return told, b"".join(it.tobytes() for it in pictures)


def pil(picture: Picture) -> Image.Image:
    """For diffusers' pipelines."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def make_control(drawer: Drawer, folder: Path, seed: int, **changes: Any) -> Path:
    """Save a random ControlNet for a model; its ways into the base aren't zero, so it shows."""
    torch.manual_seed(seed)
    base = drawer.model.denoiser
    if drawer.model.family in ("sd15", "sdxl"):
        kind: Any = diffusers.ControlNetModel
        net = kind.from_unet(base, conditioning_embedding_out_channels=(4, 4, 8, 8))
        if net.config.in_channels != drawer.model.latent_channels:  # made for the plain base
            changes["in_channels"] = drawer.model.latent_channels
        if changes:
            net = kind.from_config({**net.config, **changes})
    elif drawer.model.family == "sd3":
        few = {"num_layers": 2, "extra_conditioning_channels": 0}
        kind = diffusers.SD3ControlNetModel
        net = kind.from_config({**base.config, **few, **changes})
    else:
        few = {"num_layers": 1, "num_single_layers": 2}
        kind = diffusers.FluxControlNetModel
        net = kind.from_config({**base.config, **few, **changes})
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    net.save_pretrained(folder)
    return folder


def family_of(name: str) -> str:
    """Of a studio's model."""
    return "sdxl" if name == "vignette" else name.partition("-")[0]


def controls_of(
    studio: Studio, name: str, wanted: list[Wanted], first: int = 0
) -> tuple[RowControl, ...]:
    """One ControlNet of a model after the other, with pictures from ``first`` on."""
    return tuple(
        RowControl(
            path.name, str(path), "build", first + number, weight=weight, start=start, end=end
        )
        for number, (weight, start, end) in enumerate(wanted)
        for path in [_control(studio, name, number)]
    )


def _control(studio: Studio, name: str, number: int) -> Path:
    path = studio.folder / f"{name}-control-{number}"
    return path if path.exists() else make_control(studio.drawer(name), path, 20 + number)
