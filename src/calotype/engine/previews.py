"""Pictures out of latents: the finished one with its scores, and small ones on the way.

Nobody has judged what a preview shows: safety judges finished pictures. So previews are rough, half
the size at most, all the way, and there is none of the last step.

A preview must cost next to nothing, since the pass that all rows wait for comes after it. So it
isn't decoded: a linear map takes each latent with its eight neighbours to a patch of pixels. It is
fitted to the model's own decoder when that is loaded, by least squares on latents like a picture's.
Of vignette at 128 px a preview takes 0.3 ms, where the smallest pass takes 29 ms and a decode of
latents shrunk to half took 8.5 ms; it is 21.3 dB from the decoded picture at half the size, the
shrunk one was 20.4 dB. There is one of them after a pass at most, of the row whose preview has been
due for longest: many rows in one pass can't make it longer by more than that.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import torch
from PIL import Image, ImageFilter
from torch.nn import functional

from calotype.core import limits
from calotype.engine.buckets import Work, at_once
from calotype.engine.families.base import Model

PREVIEW_PX_MAX = 192  # longer side of a preview
COARSE_PX = 32  # the same of a coarse one ...
_COARSE_BLUR_PX = 1.0  # ... whose pixels are spread by a Gaussian of this deviation
STEPS_PER_PREVIEW_MIN = 4  # each is written to a log and sent to a page
_WEBP_QUALITY = 60
_LUMA = (0.299, 0.587, 0.114)  # Rec. 601
_SAMPLES_MIN, _SAMPLES_MAX = 4, 16  # decoded for the fit
_FIT_S_MAX = 3.0  # for those past the smallest number
_SAMPLE_SIDE = 16  # latents


def preview_due(step: int, steps: int, last: int | None) -> int:
    """For how many steps a preview has been due at this one of 1..steps; below 0: it isn't yet.

    ``last`` is the step of the last preview, if any. One is due at the first step and then at most
    PREVIEWS_PER_IMAGE_MAX in all, STEPS_PER_PREVIEW_MIN apart or more, never of the last step.
    """
    if step >= steps:
        return -1
    every = max(STEPS_PER_PREVIEW_MIN, -(-steps // limits.PREVIEWS_PER_IMAGE_MAX))
    return step - (1 if last is None else last + every)


class Previewer:
    """Cheap pictures of unfinished latents, for one model."""

    def __init__(self, model: Model) -> None:
        """Fit the map: some decodes of small pictures, once."""
        at_once(self.fit(model))

    @classmethod
    def work(cls, model: Model) -> Work[Previewer]:
        """The same, with a pause after each decode."""
        made = cls.__new__(cls)
        yield from made.fit(model)
        return made

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the map is."""
        return self._weight, self._bias

    def preview(self, latents: torch.Tensor, *, is_coarse: bool = False) -> bytes:
        """A small, rough WebP of clean latents (1, channels, height, width).

        Coarse ones show colours and little else: COARSE_PX a side at most, and blurred.
        """
        image = Image.fromarray(pixels(self.picture(latents)).cpu().numpy())
        if is_coarse:
            image.thumbnail((COARSE_PX, COARSE_PX), Image.Resampling.BOX)
            image = image.filter(ImageFilter.GaussianBlur(_COARSE_BLUR_PX))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=_WEBP_QUALITY, method=0)
        return buffer.getvalue()

    def picture(self, latents: torch.Tensor) -> torch.Tensor:
        """(3, high, wide), about -1..1, of clean latents; neither side above PREVIEW_PX_MAX."""
        longer = max(latents.shape[-2:])
        if longer > PREVIEW_PX_MAX:
            # What is left over at an edge still counts, so a thin picture keeps at least one.
            factor = -(-longer // PREVIEW_PX_MAX)
            latents = functional.avg_pool2d(latents, factor, ceil_mode=True)
            longer = max(latents.shape[-2:])
        patch = self._patch
        while patch > 1 and patch * longer > PREVIEW_PX_MAX:
            patch //= 2
        weight, bias = (_coarser(it, self._patch, patch) for it in (self._weight, self._bias))
        framed = functional.pad(latents, (1, 1, 1, 1), mode="replicate")
        mapped = functional.conv2d(framed, weight, bias)
        return functional.pixel_shuffle(mapped, patch)[0]

    def fit(self, model: Model) -> Work[None]:
        """Find the map, a convolution of (3 x patch x patch, channels, 3, 3)."""
        self._patch = max(1, model.pixels_per_latent // 2)  # pixels a latent, each way
        given, wanted = [], []
        begun_s = time.perf_counter()
        for at, latents in enumerate(_like_a_picture(model)):
            if at >= _SAMPLES_MIN and time.perf_counter() - begun_s > _FIT_S_MAX:
                break
            picture = model.decode(latents)[None]
            small = functional.avg_pool2d(picture, model.pixels_per_latent // self._patch)
            wanted.append(functional.pixel_unshuffle(small, self._patch)[0].flatten(1).T)
            framed = functional.pad(latents.cpu(), (1, 1, 1, 1), mode="replicate")
            given.append(functional.unfold(framed, 3)[0].T)
            yield
        rows = torch.cat(given).double()
        rows = torch.cat((rows, torch.ones_like(rows[:, :1])), dim=1)
        found = torch.linalg.lstsq(rows, torch.cat(wanted).double()).solution
        found = found.float().to(model.device)
        self._weight = found[:-1].T.reshape(found.shape[1], -1, 3, 3).contiguous()
        self._bias = found[-1].clone()  # or it would keep all of them in memory


def _like_a_picture(model: Model) -> Iterator[torch.Tensor]:
    """Latents (1, channels, 16, 16) of unit variance: noise of five sizes of detail, in sum."""
    generator = torch.Generator("cpu").manual_seed(0)
    for _ in range(_SAMPLES_MAX):
        latents = torch.zeros(1, model.latent_channels, _SAMPLE_SIDE, _SAMPLE_SIDE)
        for size in (1, 2, 4, 8, 16):
            side = _SAMPLE_SIDE // size
            noise = torch.randn((1, model.latent_channels, side, side), generator=generator)
            latents += functional.interpolate(noise, size=_SAMPLE_SIDE, mode="bilinear")
        yield (latents / latents.std(dim=(2, 3), keepdim=True)).to(model.device)


def _coarser(mapped: torch.Tensor, patch: int, smaller: int) -> torch.Tensor:
    """The map to patches of fewer pixels: each the mean of those it stands for."""
    if smaller == patch:
        return mapped
    block = patch // smaller
    parts = mapped.reshape(3, smaller, block, smaller, block, *mapped.shape[1:]).mean(dim=(2, 4))
    return parts.reshape(3 * smaller * smaller, *mapped.shape[1:])


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
