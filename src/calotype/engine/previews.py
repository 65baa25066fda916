"""Pictures out of latents: the finished one with its scores, and small ones on the way.

Nobody has judged what a preview shows: safety judges finished pictures. So previews are rough, half
the size at most, all the way, and there is none of the last step.
"""

from __future__ import annotations

import io

import torch
from PIL import Image

from calotype.core import limits
from calotype.engine.families.base import Model

PREVIEW_PX_MAX = 192  # longer side of a preview
# Decoding a preview of the embedded model takes as long as a guided step (32 and 34 ms of CPU): one
# every other step made a picture 40 % dearer than in the plain pipeline.
STEPS_PER_PREVIEW_MIN = 4
_WEBP_QUALITY = 60
_LUMA = (0.299, 0.587, 0.114)  # Rec. 601


def wants_preview(step: int, steps: int) -> bool:
    """True for at most PREVIEWS_PER_IMAGE_MAX evenly spread steps of 1..steps, never the last."""
    every = max(STEPS_PER_PREVIEW_MIN, -(-steps // limits.PREVIEWS_PER_IMAGE_MAX))
    return step < steps and (step - 1) % every == 0


class Previewer:
    """Cheap pictures of unfinished latents, for one model.

    A light autoencoder decodes them itself. For a heavy one, a linear map from latents to colours
    is fitted to it once, at the first preview: least squares over decoded noise.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._is_light = type(model.vae).__name__ == "AutoencoderTiny"
        self._map: torch.Tensor | None = None  # (channels + 1, 3)

    def preview(self, latents: torch.Tensor) -> bytes:
        """A small, rough WebP of clean latents (1, channels, height, width)."""
        if self._is_light:
            picture = self._model.decode(self._reduced(latents))
        else:
            picture = self._projected(latents)
        image = Image.fromarray(pixels(picture).numpy())
        image.thumbnail((PREVIEW_PX_MAX, PREVIEW_PX_MAX))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=_WEBP_QUALITY, method=0)
        return buffer.getvalue()

    def _reduced(self, latents: torch.Tensor) -> torch.Tensor:
        """Shrink latents to half each way; more for a large picture, so that it costs no more.

        What is left over at an edge still counts, so a thin picture keeps at least one latent.
        """
        latents_max = PREVIEW_PX_MAX // self._model.pixels_per_latent
        factor = max(2, -(-max(latents.shape[-2:]) // latents_max))
        return torch.nn.functional.avg_pool2d(latents, factor, ceil_mode=True)

    def _projected(self, latents: torch.Tensor) -> torch.Tensor:
        if self._map is None:
            self._map = self._fitted(int(latents.shape[1]))
        return _with_one(latents[0].cpu()).movedim(0, -1).matmul(self._map).movedim(-1, 0)

    def _fitted(self, channels: int) -> torch.Tensor:
        noise = torch.randn((1, channels, 16, 16), generator=torch.Generator().manual_seed(0))
        # Blocks of 4 x 4 equal latents: a colour is what the decoder makes of a whole patch.
        noise = noise[..., :4, :4].repeat_interleave(4, -1).repeat_interleave(4, -2)
        decoded = self._model.decode(noise.to(self._model.device))
        colours = torch.nn.functional.avg_pool2d(decoded[None], self._model.pixels_per_latent)[0]
        rows = _with_one(noise[0]).flatten(1).T
        return torch.linalg.lstsq(rows, colours.flatten(1).T).solution


def _with_one(latents: torch.Tensor) -> torch.Tensor:
    """(channels, h, w) with one more channel of ones, for the map's constant part."""
    return torch.cat((latents, torch.ones_like(latents[:1])))


def pixels(picture: torch.Tensor) -> torch.Tensor:
    """Turn (3, height, width) in -1..1 into (height, width, 3) uint8, as diffusers rounds it."""
    unit = (torch.nan_to_num(picture) * 0.5 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).movedim(0, -1).contiguous()


def scores(picture: torch.Tensor) -> dict[str, float]:
    """Numbers for the safety room's integrity check, of (3, height, width) in -1..1.

    ``finite``: 1 if every number is, else 0. ``contrast``: standard deviation of luma, 0..0.5.
    """
    finite = bool(torch.isfinite(picture).all())
    unit = pixels(picture).float() / 255
    luma = unit @ torch.tensor(_LUMA)
    return {"finite": float(finite), "contrast": float(luma.std(correction=0))}
