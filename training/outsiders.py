"""Pictures outside the embedded model's domain, by kind: what the domain check learns from.

Noise, textures with the statistics of photographs, drawings of other things, and our own pictures
spoilt. ``LEARNT`` kinds teach; ``HELD_OUT`` kinds are never learnt from: they measure. All are
uint8 (h, w, 3), drawn from a generator; real photographs come from scikit-learn, which brings two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.canvas import Draw, Picture, Rng, any_colour, any_point, as_bytes, canvas
from training.photographic import dead_leaves, regions, skin_and_cloth, spectral, surfaces

SAMPLE_PX = 96  # least side of what is cut from a photograph


# Noise.


def white_noise(rng: Rng, high: int, wide: int) -> Picture:
    """Independent pixels: uniform, Gaussian, grey, or of two values."""
    match int(rng.integers(4)):
        case 0:
            return rng.integers(0, 256, (high, wide, 3), np.uint8)
        case 1:
            return as_bytes(rng.normal(rng.uniform(60, 190), rng.uniform(15, 90), (high, wide, 3)))
        case 2:
            return np.repeat(rng.integers(0, 256, (high, wide, 1), np.uint8), 3, axis=2)
        case _:
            return np.where(
                rng.random((high, wide, 1)) < 0.5, any_colour(rng), any_colour(rng)
            ).astype(np.uint8)


def coarse_noise(rng: Rng, high: int, wide: int) -> Picture:
    """Few pixels, enlarged: blocks, or smooth blobs of colour."""
    cells = int(rng.integers(2, 24))
    small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    way = [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]
    return np.asarray(small.resize((wide, high), way[int(rng.integers(3))]))


def plasma(rng: Rng, high: int, wide: int) -> Picture:
    """Sums of waves through a map of colours."""
    y, x = np.mgrid[0:high, 0:wide] / max(high, wide)
    total = np.zeros((high, wide))
    for _ in range(int(rng.integers(2, 7))):
        fx, fy = rng.normal(0, 12, 2)
        total += np.sin(fx * x + fy * y + rng.uniform(0, 6)) * rng.uniform(0.3, 1)
    phase = rng.uniform(0, 6, 3)
    return as_bytes(127 + 127 * np.sin(total[..., None] * rng.uniform(0.5, 3) + phase))


# Other drawings.


def polygons(rng: Rng, high: int, wide: int) -> Picture:
    """Flat polygons, ellipses and lines in any colours."""
    image, draw = canvas(rng, high, wide)
    for _ in range(int(rng.integers(2, 40))):
        points = [any_point(rng, high, wide) for _ in range(int(rng.integers(3, 7)))]
        match int(rng.integers(3)):
            case 0:
                draw.polygon(points, fill=any_colour(rng))
            case 1:
                draw.line(points, fill=any_colour(rng), width=int(rng.integers(1, 9)))
            case _:
                xs, ys = zip(*points, strict=True)
                draw.ellipse((min(xs), min(ys), max(xs), max(ys)), fill=any_colour(rng))
    return np.asarray(image)


def scribbles(rng: Rng, high: int, wide: int) -> Picture:
    """Lines of a pen on paper."""
    paper = int(rng.integers(200, 256))
    image = Image.new("RGB", (wide, high), (paper,) * 3)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 12))):
        walk = rng.normal(0, 0.08 * wide, (int(rng.integers(5, 40)), 2)).cumsum(0)
        start = np.array(any_point(rng, high, wide))
        points = [(float(x), float(y)) for x, y in walk + start]
        ink = any_colour(rng) if rng.random() < 0.4 else (int(rng.integers(0, 90)),) * 3
        draw.line(points, fill=ink, width=int(rng.integers(1, 5)))
    return np.asarray(image)


def figures(rng: Rng, high: int, wide: int) -> Picture:
    """Stick figures and faces of circles."""
    image, draw = canvas(rng, high, wide)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(0.2, 0.8) * wide, rng.uniform(0.2, 0.5) * high
        size = rng.uniform(0.08, 0.35) * min(high, wide)
        skin, ink, width = any_colour(rng), any_colour(rng), int(rng.integers(1, 6))
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
    image, draw = canvas(rng, high, wide)
    size = int(rng.integers(8, 40))
    font = ImageFont.load_default(size)
    ink = any_colour(rng)
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
            draw.rectangle((at, top, at + wide // 16, high), fill=any_colour(rng))
    for _ in range(int(rng.integers(0, 4))):
        heights = high * (0.5 + 0.1 * rng.normal(size=24).cumsum())
        points = [(wide * at / 23, float(height)) for at, height in enumerate(heights)]
        draw.line(points, fill=any_colour(rng), width=2)
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
    return as_bytes(
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
    return as_bytes(floats)


def creatures(rng: Rng, high: int, wide: int) -> Picture:
    """Round bodies with legs, eyes and tails before a sky and a ground."""
    ground = rng.uniform(0.5, 0.9)
    image = Image.new("RGB", (wide, high), any_colour(rng))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, int(high * ground), wide, high), fill=any_colour(rng))
    for _ in range(int(rng.integers(1, 3))):
        x, y, size = rng.uniform(0.25, 0.75) * wide, high * ground, rng.uniform(0.15, 0.35) * high
        fur = any_colour(rng)
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
    return as_bytes(
        np.array(any_colour(rng))
        + (np.array(any_colour(rng), float) - any_colour(rng)) * share / 255
    )


LEARNT: dict[str, Draw] = {
    each.__name__: each
    for each in (
        white_noise, coarse_noise, spectral, dead_leaves, skin_and_cloth, regions, surfaces,
        plasma, polygons, scribbles, figures, writing, patterns, charts,
    )
}  # fmt: skip
HELD_OUT: dict[str, Draw] = {
    each.__name__: each for each in (fractals, mosaics, creatures, photographs, handwriting)
}


# Our own pictures, spoilt. Not by grain: the decoder paints over it, and what is left is a scene.


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
    each.__name__: each for each in (shuffled, inverted, pasted)
}
