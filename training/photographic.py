"""Pictures with something of what photographs have, since next to none are at hand to learn from.

Spectra that fall with frequency, things that hide each other, light from one side, textures that
end where a thing ends, grain. Drawn from a generator, uint8 (h, w, 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from training.canvas import Picture, Rng, any_colour, any_point, as_bytes, canvas

DECADES = 3.0  # of sizes in a picture of dead leaves


def spectral(rng: Rng, high: int, wide: int) -> Picture:
    """Noise whose amplitudes fall with frequency, as those of photographs do (Field 1987)."""
    slope, share = rng.uniform(0.6, 2.0), rng.uniform(0, 0.95)
    mixing = np.eye(3) * (1 - share) + share / 3
    channels = [_waves(rng, high, wide, slope) for _ in range(3)]
    floats = np.stack(channels, -1) @ mixing
    floats = (floats - floats.mean()) / (floats.std() + 1e-9)
    return as_bytes(rng.uniform(70, 180, 3) + rng.uniform(25, 70) * floats)


def dead_leaves(rng: Rng, high: int, wide: int) -> Picture:
    """Shaded, grainy shapes that hide each other, sizes by a power law (Lee et al. 2001)."""
    image, draw = canvas(rng, high, wide)
    longest = max(high, wide) * rng.uniform(0.2, 0.6)
    for _ in range(int(rng.integers(60, 400))):
        x, y = any_point(rng, high, wide)
        radius = longest / (1 + (10**DECADES) * rng.random() ** 2) ** 0.5 + 1
        around = rng.uniform(0.4, 1.0)
        box = (x - radius, y - radius * around, x + radius, y + radius * around)
        if rng.random() < 0.5:
            draw.ellipse(box, fill=any_colour(rng))
        else:
            draw.rectangle(box, fill=any_colour(rng))
    light = spectral(rng, high, wide).astype(np.float32).mean(2, keepdims=True) / 128
    grain = rng.normal(0, rng.uniform(1, 14), (high, wide, 3))
    floats = np.asarray(image, np.float32) * np.clip(light, 0.3, 1.6) + grain
    return _soft(rng, as_bytes(floats))


def _soft(rng: Rng, picture: Picture) -> Picture:
    image = Image.fromarray(picture)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 2.0))))
    return np.asarray(image)


def skin_and_cloth(rng: Rng, high: int, wide: int) -> Picture:
    """Smooth shaded bodies of few hues before a plain ground: shapes and tones, nothing more."""
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
    ground = rng.uniform(0, 255, 3) + (y / high - 0.5)[..., None] * rng.uniform(-80, 80, 3)
    floats = np.broadcast_to(ground, (high, wide, 3)).copy()
    hue = np.array([rng.uniform(120, 250), rng.uniform(70, 200), rng.uniform(40, 180)])
    for _ in range(int(rng.integers(3, 14))):
        cx, cy = any_point(rng, high, wide)
        a, b = rng.uniform(0.05, 0.35, 2) * max(high, wide)
        turn = rng.uniform(0, np.pi)
        u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / a
        v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / b
        inside = u * u + v * v
        shade = np.sqrt(np.clip(1 - inside, 0, 1)) * 0.7 + 0.4 + 0.2 * u
        edge = np.clip((1 - inside) * 12, 0, 1)[..., None]
        tone = hue * rng.uniform(0.7, 1.2)
        floats = floats * (1 - edge) + edge * tone * shade[..., None]
    return as_bytes(floats + rng.normal(0, rng.uniform(0, 10), floats.shape))


def regions(rng: Rng, high: int, wide: int) -> Picture:
    """Irregular things that end at ragged edges, each with a hue and a texture of its own."""
    floats = _texture(rng, high, wide)
    for _ in range(int(rng.integers(2, 9))):
        shape = _waves(rng, high, wide, rng.uniform(1.2, 2.6))
        inside = shape > np.quantile(shape, rng.uniform(0.35, 0.92))
        soft = _blurred(inside.astype(np.float32), rng.uniform(0.2, 1.2))[..., None]
        shadow = _blurred(inside.astype(np.float32), rng.uniform(2, 8))[..., None]
        floats = floats * (1 - rng.uniform(0, 0.6) * shadow)  # it darkens what lies behind it
        floats = floats * (1 - soft) + _texture(rng, high, wide) * soft
    return _exposed(rng, floats)


def surfaces(rng: Rng, high: int, wide: int) -> Picture:
    """Rough ground and folds, lit from one side (Lambert), in hues that change with height."""
    heights = _waves(rng, high, wide, rng.uniform(1.5, 2.8)) * rng.uniform(4, 30)
    down, along = np.gradient(heights)
    turn, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.2)
    light = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
    facing = (light[2] - along * light[0] - down * light[1]) / np.sqrt(1 + along**2 + down**2)
    share = ((heights - heights.min()) / (np.ptp(heights) + 1e-9))[..., None]
    low, top = rng.uniform(30, 230, 3), rng.uniform(30, 230, 3)
    hues = (1 - share) * low + share * top
    shade = np.clip(facing, 0, 1) * rng.uniform(0.6, 1.2) + rng.uniform(0.05, 0.4)
    return _exposed(rng, hues * shade[..., None])


def _texture(rng: Rng, high: int, wide: int) -> NDArray[np.floating]:
    """A hue with waves on it, brighter to one side."""
    wave = _waves(rng, high, wide, rng.uniform(0.5, 2.2))[..., None]
    y, x = np.mgrid[-0.5 : 0.5 : high * 1j, -0.5 : 0.5 : wide * 1j]
    slope = (y * rng.uniform(-1, 1) + x * rng.uniform(-1, 1))[..., None]
    hue = rng.uniform(20, 235, 3)
    if rng.random() < 0.5:  # most things are greyer than a colour drawn at random
        hue = hue.mean() + (hue - hue.mean()) * rng.uniform(0.05, 0.5)
    found: NDArray[np.floating] = hue * (1 + 0.6 * slope) + rng.uniform(2, 40) * wave * (
        1 + rng.normal(0, 0.1, 3)
    )
    return found


def _waves(rng: Rng, high: int, wide: int, slope: float) -> NDArray[np.floating]:
    """Noise whose amplitudes fall by this power of the frequency: mean 0, deviation 1."""
    radius = np.hypot(np.fft.fftfreq(high)[:, None], np.fft.rfftfreq(wide)[None, :])
    radius[0, 0] = 1.0
    wave = rng.normal(size=radius.shape) + 1j * rng.normal(size=radius.shape)
    plane = np.fft.irfft2(wave / radius**slope, (high, wide))
    found: NDArray[np.floating] = (plane - plane.mean()) / (plane.std() + 1e-9)
    return found


def _blurred(plane: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
    return ndimage.gaussian_filter(plane, radius)  # type: ignore[no-any-return]


def _exposed(rng: Rng, floats: NDArray[np.floating]) -> Picture:
    """As a camera would give it: exposure, a gamma, grain, now and then out of focus."""
    unit = np.clip(floats * rng.uniform(0.7, 1.3) / 255, 0, 1) ** rng.uniform(0.6, 1.5)
    grain = rng.normal(0, rng.uniform(0, 8), floats.shape)
    return _soft(rng, as_bytes(255 * unit + grain))
