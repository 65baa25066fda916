"""Pictures outside the embedded model's domain, by kind: what the domain check learns from.

Noise, textures with the statistics of photographs, drawings of other things, and our own pictures
spoilt. ``LEARNT`` kinds teach; ``HELD_OUT`` kinds are never learnt from: they measure. All are
uint8 (h, w, 3), drawn from a generator; real photographs come from scikit-learn, which brings two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Picture = NDArray[np.uint8]
Rng = np.random.Generator
Draw = Callable[[Rng, int, int], Picture]  # generator, height, width

DECADES = 3.0  # of sizes in a picture of dead leaves
SAMPLE_PX = 96  # least side of what is cut from a photograph


def _bytes(floats: NDArray[np.floating]) -> Picture:
    found: Picture = np.clip(floats, 0, 255).astype(np.uint8)
    return found


def _colour(rng: Rng) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _canvas(rng: Rng, high: int, wide: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    ground = _colour(rng) if rng.random() < 0.6 else (255, 255, 255)
    image = Image.new("RGB", (wide, high), ground)
    return image, ImageDraw.Draw(image)


def _point(rng: Rng, high: int, wide: int, beyond: float = 0.1) -> tuple[float, float]:
    x, y = rng.uniform(-beyond, 1 + beyond, 2)
    return float(x * wide), float(y * high)


# Noise.


def white_noise(rng: Rng, high: int, wide: int) -> Picture:
    """Independent pixels: uniform, Gaussian, grey, or of two values."""
    match int(rng.integers(4)):
        case 0:
            return rng.integers(0, 256, (high, wide, 3), np.uint8)
        case 1:
            return _bytes(rng.normal(rng.uniform(60, 190), rng.uniform(15, 90), (high, wide, 3)))
        case 2:
            return np.repeat(rng.integers(0, 256, (high, wide, 1), np.uint8), 3, axis=2)
        case _:
            return np.where(rng.random((high, wide, 1)) < 0.5, _colour(rng), _colour(rng)).astype(
                np.uint8
            )


def coarse_noise(rng: Rng, high: int, wide: int) -> Picture:
    """Few pixels, enlarged: blocks, or smooth blobs of colour."""
    cells = int(rng.integers(2, 24))
    small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    way = [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]
    return np.asarray(small.resize((wide, high), way[int(rng.integers(3))]))


def spectral(rng: Rng, high: int, wide: int) -> Picture:
    """Noise whose amplitudes fall with frequency, as those of photographs do (Field 1987)."""
    slope = rng.uniform(0.6, 2.0)
    y, x = np.fft.fftfreq(high)[:, None], np.fft.rfftfreq(wide)[None, :]
    radius = np.hypot(x, y)
    radius[0, 0] = 1.0
    mixing = np.eye(3) * (1 - (share := rng.uniform(0, 0.95))) + share / 3
    channels = []
    for _ in range(3):
        wave = rng.normal(size=radius.shape) + 1j * rng.normal(size=radius.shape)
        channels.append(np.fft.irfft2(wave / radius**slope, (high, wide)))
    floats = np.stack(channels, -1) @ mixing
    floats = (floats - floats.mean()) / (floats.std() + 1e-9)
    return _bytes(rng.uniform(70, 180, 3) + rng.uniform(25, 70) * floats)


# As photographs are.


def dead_leaves(rng: Rng, high: int, wide: int) -> Picture:
    """Shaded, grainy shapes that hide each other, sizes by a power law (Lee et al. 2001)."""
    image, draw = _canvas(rng, high, wide)
    longest = max(high, wide) * rng.uniform(0.2, 0.6)
    for _ in range(int(rng.integers(60, 400))):
        x, y = _point(rng, high, wide)
        radius = longest / (1 + (10**DECADES) * rng.random() ** 2) ** 0.5 + 1
        around = rng.uniform(0.4, 1.0)
        box = (x - radius, y - radius * around, x + radius, y + radius * around)
        if rng.random() < 0.5:
            draw.ellipse(box, fill=_colour(rng))
        else:
            draw.rectangle(box, fill=_colour(rng))
    light = spectral(rng, high, wide).astype(np.float32).mean(2, keepdims=True) / 128
    grain = rng.normal(0, rng.uniform(1, 14), (high, wide, 3))
    floats = np.asarray(image, np.float32) * np.clip(light, 0.3, 1.6) + grain
    return _soft(rng, _bytes(floats))


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
        cx, cy = _point(rng, high, wide)
        a, b = rng.uniform(0.05, 0.35, 2) * max(high, wide)
        turn = rng.uniform(0, np.pi)
        u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / a
        v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / b
        inside = u * u + v * v
        shade = np.sqrt(np.clip(1 - inside, 0, 1)) * 0.7 + 0.4 + 0.2 * u
        edge = np.clip((1 - inside) * 12, 0, 1)[..., None]
        tone = hue * rng.uniform(0.7, 1.2)
        floats = floats * (1 - edge) + edge * tone * shade[..., None]
    return _bytes(floats + rng.normal(0, rng.uniform(0, 10), floats.shape))


def plasma(rng: Rng, high: int, wide: int) -> Picture:
    """Sums of waves through a map of colours."""
    y, x = np.mgrid[0:high, 0:wide] / max(high, wide)
    total = np.zeros((high, wide))
    for _ in range(int(rng.integers(2, 7))):
        fx, fy = rng.normal(0, 12, 2)
        total += np.sin(fx * x + fy * y + rng.uniform(0, 6)) * rng.uniform(0.3, 1)
    phase = rng.uniform(0, 6, 3)
    return _bytes(127 + 127 * np.sin(total[..., None] * rng.uniform(0.5, 3) + phase))


# Other drawings.


def polygons(rng: Rng, high: int, wide: int) -> Picture:
    """Flat polygons, ellipses and lines in any colours."""
    image, draw = _canvas(rng, high, wide)
    for _ in range(int(rng.integers(2, 40))):
        points = [_point(rng, high, wide) for _ in range(int(rng.integers(3, 7)))]
        match int(rng.integers(3)):
            case 0:
                draw.polygon(points, fill=_colour(rng))
            case 1:
                draw.line(points, fill=_colour(rng), width=int(rng.integers(1, 9)))
            case _:
                xs, ys = zip(*points, strict=True)
                draw.ellipse((min(xs), min(ys), max(xs), max(ys)), fill=_colour(rng))
    return np.asarray(image)


def scribbles(rng: Rng, high: int, wide: int) -> Picture:
    """Lines of a pen on paper."""
    paper = int(rng.integers(200, 256))
    image = Image.new("RGB", (wide, high), (paper,) * 3)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 12))):
        walk = rng.normal(0, 0.08 * wide, (int(rng.integers(5, 40)), 2)).cumsum(0)
        start = np.array(_point(rng, high, wide))
        points = [(float(x), float(y)) for x, y in walk + start]
        ink = _colour(rng) if rng.random() < 0.4 else (int(rng.integers(0, 90)),) * 3
        draw.line(points, fill=ink, width=int(rng.integers(1, 5)))
    return np.asarray(image)


def figures(rng: Rng, high: int, wide: int) -> Picture:
    """Stick figures and faces of circles."""
    image, draw = _canvas(rng, high, wide)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(0.2, 0.8) * wide, rng.uniform(0.2, 0.5) * high
        size = rng.uniform(0.08, 0.35) * min(high, wide)
        skin, ink, width = _colour(rng), _colour(rng), int(rng.integers(1, 6))
        draw.ellipse((x - size, y - size, x + size, y + size), fill=skin, outline=ink, width=width)
        for side in (-1, 1):
            eye = (x + side * size * 0.4, y - size * 0.2)
            radius = size * 0.14
            draw.ellipse(
                (eye[0] - radius, eye[1] - radius, eye[0] + radius, eye[1] + radius), fill=ink
            )
            draw.line((x, y + 2 * size, x + side * size, y + 3.2 * size), fill=ink, width=width)
            draw.line((x, y + 1.3 * size, x + side * size, y + 1.8 * size), fill=ink, width=width)
        draw.arc((x - size / 2, y - size / 2, x + size / 2, y + size / 2), 20, 160, ink, width)
        draw.line((x, y + size, x, y + 2 * size), fill=ink, width=width)
    return np.asarray(image)


def writing(rng: Rng, high: int, wide: int) -> Picture:
    """Lines of letters, as of a page or a screen."""
    image, draw = _canvas(rng, high, wide)
    size = int(rng.integers(8, 40))
    font = ImageFont.load_default(size)
    ink = _colour(rng)
    for top in range(0, high, int(size * 1.3)):
        letters = "".join(chr(int(code)) for code in rng.integers(33, 123, 3 * wide // size))
        draw.text((int(rng.integers(-4, 12)), top), letters, fill=ink, font=font)
    return np.asarray(image)


def patterns(rng: Rng, high: int, wide: int) -> Picture:
    """Stripes, checks, rings and flags."""
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
    scale = rng.uniform(3, 40)
    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn)
    match int(rng.integers(4)):
        case 0:
            which = np.floor(along / scale)
        case 1:
            which = np.floor(x / scale) + np.floor(y / scale)
        case 2:
            which = np.floor(np.hypot(x - wide / 2, y - high / 2) / scale)
        case _:
            which = np.floor(np.arctan2(y - high / 2, x - wide / 2) * rng.integers(2, 9))
    palette = rng.integers(0, 256, (int(rng.integers(2, 6)), 3))
    found: Picture = palette[which.astype(int) % len(palette)].astype(np.uint8)
    return found


def charts(rng: Rng, high: int, wide: int) -> Picture:
    """Bars, curves and grids on white."""
    image = Image.new("RGB", (wide, high), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for at in range(0, wide, max(4, wide // int(rng.integers(4, 12)))):
        if rng.random() < 0.5:
            draw.line((at, 0, at, high), fill=(210, 210, 210))
        if rng.random() < 0.6:
            top = int(rng.uniform(0.1, 1) * high)
            draw.rectangle((at, top, at + wide // 16, high), fill=_colour(rng))
    for _ in range(int(rng.integers(0, 4))):
        heights = high * (0.5 + 0.1 * rng.normal(size=24).cumsum())
        points = [(wide * at / 23, float(height)) for at, height in enumerate(heights)]
        draw.line(points, fill=_colour(rng), width=2)
    return np.asarray(image)


# Never learnt from.


def fractals(rng: Rng, high: int, wide: int) -> Picture:
    """Julia sets."""
    y, x = np.mgrid[-1.5 : 1.5 : high * 1j, -1.5 : 1.5 : wide * 1j]
    z, c = x + 1j * y, complex(rng.uniform(-0.9, 0.4), rng.uniform(-0.8, 0.8))
    count = np.zeros(z.shape)
    for _ in range(32):
        is_in = np.abs(z) < 4
        z[is_in] = z[is_in] ** 2 + c
        count += is_in
    return _bytes(
        127 + 127 * np.sin(count[..., None] * rng.uniform(0.1, 0.5) + rng.uniform(0, 6, 3))
    )


def mosaics(rng: Rng, high: int, wide: int) -> Picture:
    """Cells around points, each of one colour, with or without seams."""
    points = rng.random((int(rng.integers(8, 60)), 2)) * (high, wide)
    y, x = np.mgrid[0:high, 0:wide]
    apart = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    order = np.sort(apart, axis=-1)
    colours = rng.integers(0, 256, (len(points), 3))
    floats = colours[apart.argmin(-1)].astype(np.float32)
    if rng.random() < 0.5:
        floats *= (order[..., 1] - order[..., 0] > 2)[..., None]
    return _bytes(floats)


def creatures(rng: Rng, high: int, wide: int) -> Picture:
    """Round bodies with legs, eyes and tails before a sky and a ground."""
    ground = rng.uniform(0.5, 0.9)
    image = Image.new("RGB", (wide, high), _colour(rng))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, int(high * ground), wide, high), fill=_colour(rng))
    for _ in range(int(rng.integers(1, 3))):
        x, y, size = rng.uniform(0.25, 0.75) * wide, high * ground, rng.uniform(0.15, 0.35) * high
        fur = _colour(rng)
        draw.ellipse((x - 1.5 * size, y - 1.6 * size, x + 1.2 * size, y - 0.3 * size), fill=fur)
        draw.ellipse((x + 0.6 * size, y - 2.3 * size, x + 1.9 * size, y - 1.1 * size), fill=fur)
        for at in (-1.1, -0.5, 0.3, 0.8):
            leg = x + at * size
            draw.rectangle((leg, y - 0.6 * size, leg + 0.25 * size, y + 0.1 * size), fill=fur)
        draw.ellipse(
            (x + 1.3 * size, y - 1.9 * size, x + 1.45 * size, y - 1.75 * size), fill=(0, 0, 0)
        )
        draw.line((x - 1.4 * size, y - size, x - 2.1 * size, y - 1.8 * size), fur, 5)
    return np.asarray(image)


def photographs(rng: Rng, high: int, wide: int) -> Picture:
    """Cut from the two photographs that scikit-learn brings, and mirrored at random."""
    from sklearn.datasets import load_sample_images

    whole: Picture = load_sample_images().images[int(rng.integers(2))]
    side = int(rng.integers(SAMPLE_PX, min(whole.shape[:2])))
    top = int(rng.integers(whole.shape[0] - side + 1))
    left = int(rng.integers(whole.shape[1] - side + 1))
    cut = Image.fromarray(whole[top : top + side, left : left + side])
    found = np.asarray(cut.resize((wide, high), Image.Resampling.LANCZOS))
    return found[:, ::-1] if rng.random() < 0.5 else found


def handwriting(rng: Rng, high: int, wide: int) -> Picture:
    """Digits that people wrote, from scikit-learn, in two colours."""
    from sklearn.datasets import load_digits

    digits = load_digits().images
    one = digits[int(rng.integers(len(digits)))] / 16
    small = Image.fromarray((255 * one).astype(np.uint8))
    share = np.asarray(small.resize((wide, high), Image.Resampling.BICUBIC), np.float32)[..., None]
    return _bytes(
        np.array(_colour(rng)) + (np.array(_colour(rng), float) - _colour(rng)) * share / 255
    )


LEARNT: dict[str, Draw] = {
    each.__name__: each
    for each in (
        white_noise, coarse_noise, spectral, dead_leaves, skin_and_cloth, plasma, polygons,
        scribbles, figures, writing, patterns, charts,
    )
}  # fmt: skip
HELD_OUT: dict[str, Draw] = {
    each.__name__: each for each in (fractals, mosaics, creatures, photographs, handwriting)
}


# Our own pictures, spoilt.


def shuffled(rng: Rng, picture: Picture) -> Picture:
    """Its tiles in another order."""
    tiles = int(rng.choice([2, 4, 8]))
    high, wide = picture.shape[0] // tiles, picture.shape[1] // tiles
    parts = [
        picture[a * high : (a + 1) * high, b * wide : (b + 1) * wide]
        for a in range(tiles)
        for b in range(tiles)
    ]
    order = rng.permutation(len(parts))
    rows = [
        np.concatenate([parts[order[a * tiles + b]] for b in range(tiles)], axis=1)
        for a in range(tiles)
    ]
    return np.concatenate(rows, axis=0)


def inverted(rng: Rng, picture: Picture) -> Picture:
    """A negative, or upside down, or with channels in another order."""
    match int(rng.integers(3)):
        case 0:
            return 255 - picture
        case 1:
            return picture[::-1]
        case _:
            return picture[..., rng.permutation([(1, 2, 0), (2, 0, 1), (2, 1, 0)])[0]]


def grainy(rng: Rng, picture: Picture) -> Picture:
    """With the noise of pixels over it."""
    return _bytes(picture + rng.normal(0, rng.uniform(18, 80), picture.shape))


def pasted(rng: Rng, picture: Picture) -> Picture:
    """With a third or more of it hidden by an outsider."""
    high, wide, _ = picture.shape
    draw = list(LEARNT.values())[int(rng.integers(len(LEARNT)))]
    tall, broad = (int(side * rng.uniform(0.6, 0.95)) for side in (high, wide))
    top, left = int(rng.integers(high - tall + 1)), int(rng.integers(wide - broad + 1))
    found = picture.copy()
    found[top : top + tall, left : left + broad] = draw(rng, tall, broad)
    return found


SPOILT: dict[str, Callable[[Rng, Picture], Picture]] = {
    each.__name__: each for each in (shuffled, inverted, grainy, pasted)
}
