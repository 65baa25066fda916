"""The sky: its gradient, the light in it, and its clouds."""

from __future__ import annotations

import numpy as np

from training.art.canvas import Canvas, Field, clouds, smoothstep
from training.art.colours import DAYLIGHT, STORM, Colour, mix, rgb, sky_colours
from training.scenes import PLACES, Scene

COLUMN = {"left": 0.2, "centre": 0.5, "right": 0.8}
HORIZON = 0.62  # where the sky's gradient ends

RAINBOW = (rgb(232, 70, 70), rgb(246, 158, 64), rgb(250, 226, 92), rgb(96, 196, 112),
           rgb(76, 138, 228), rgb(142, 92, 204))  # fmt: skip


def paint_sky(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Paint everything above the land."""
    _gradient(canvas, scene, rng)
    column = _free_column(scene, rng)
    lights = {
        "none": None,
        "sun": _sun,
        "moon": _moon,
        "stars": _stars,
        "aurora": _aurora,
        "rainbow": _rainbow,
    }
    paint_light = lights[scene.light]
    if paint_light is not None and scene.light in ("stars", "aurora"):
        paint_light(canvas, scene, column, rng)
    _clouds(canvas, scene, rng)
    if paint_light is not None and scene.light not in ("stars", "aurora"):
        paint_light(canvas, scene, column, rng)


def _gradient(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    zenith, middle, horizon = sky_colours(scene)
    knee = rng.uniform(0.24, 0.36)
    upper = smoothstep(-0.05, knee, canvas.y + 0 * canvas.x)
    lower = smoothstep(knee, HORIZON, canvas.y + 0 * canvas.x)
    canvas.pixels[:] = zenith
    canvas.paint(upper, middle)
    canvas.paint(lower, horizon)


def _free_column(scene: Scene, rng: np.random.Generator) -> float:
    """Where a sun or moon is not behind an object."""
    taken = {thing.place for thing in scene.things}
    free = [place for place in PLACES if place not in taken]
    return float(COLUMN[free[rng.integers(len(free))]] + rng.uniform(-0.06, 0.06))


def _sun(canvas: Canvas, scene: Scene, x: float, rng: np.random.Generator) -> None:
    colour = DAYLIGHT[scene.time].sun
    low = scene.time in ("dawn", "sunset")
    y = rng.uniform(0.34, 0.42) if low else rng.uniform(0.13, 0.22)
    radius = rng.uniform(0.072, 0.09)
    veil = 0.65 if scene.weather in ("foggy", "cloudy") else 1.0
    canvas.glow(canvas.haze(x, y, 0.22) * np.float32(0.55 * veil), colour)
    canvas.glow(canvas.haze(x, y, 0.11) * np.float32(0.6 * veil), colour)
    warm = mix(colour, rgb(255, 190, 90), 0.35 if low else 0.0)
    canvas.paint(canvas.disc(x, y, radius) * np.float32(0.6 + 0.4 * veil), warm)
    canvas.paint(canvas.disc(x, y, radius * 0.78) * np.float32(0.5 * veil), rgb(255, 252, 228))


def _moon(canvas: Canvas, scene: Scene, x: float, rng: np.random.Generator) -> None:
    y, radius = rng.uniform(0.15, 0.24), rng.uniform(0.075, 0.095)
    veil = 0.7 if scene.weather in ("foggy", "snowing") else 1.0
    silver = rgb(246, 242, 220)
    canvas.glow(canvas.haze(x, y, 0.17) * np.float32(0.42 * veil), rgb(170, 190, 240))
    disc = canvas.disc(x, y, radius)
    if rng.random() < 0.6:  # a crescent
        disc = disc * (1 - canvas.disc(x + radius * 0.55, y - radius * 0.2, radius * 0.92))
        canvas.paint(disc * np.float32(veil), silver)
        return
    canvas.paint(disc * np.float32(veil), silver)
    for away_x, away_y, size in ((-0.3, -0.2, 0.26), (0.3, 0.25, 0.2), (0.05, 0.5, 0.14)):
        crater = canvas.disc(x + away_x * radius, y + away_y * radius, size * radius)
        canvas.paint(crater * np.float32(0.5 * veil), rgb(216, 210, 194))


def _stars(canvas: Canvas, scene: Scene, x: float, rng: np.random.Generator) -> None:
    del scene, x
    band = canvas.y - 0.32 + 0.35 * (canvas.x - 0.5)
    milky = np.exp(-((band / 0.12) ** 2)) * clouds(rng, canvas.size, 5)
    canvas.glow((milky * np.float32(0.5)).astype(np.float32), rgb(120, 130, 210))
    for _ in range(int(rng.integers(34, 46))):
        star_x, star_y = rng.random(), rng.random() ** 1.3 * 0.56
        radius = rng.choice((0.006, 0.009, 0.012), p=(0.45, 0.35, 0.2))
        if radius > 0.01:
            canvas.glow(canvas.haze(star_x, star_y, 0.018) * np.float32(0.5), rgb(190, 210, 255))
        warmth = mix(rgb(255, 255, 255), rgb(255, 226, 170), float(rng.random() * 0.6))
        canvas.paint(canvas.disc(star_x, star_y, float(radius)), warmth)


def _aurora(canvas: Canvas, scene: Scene, x: float, rng: np.random.Generator) -> None:
    del scene, x
    green, violet = rgb(90, 250, 170), rgb(150, 96, 240)
    for curtain in range(3):
        sway = rng.random(3) * 2 * np.pi
        foot = (
            rng.uniform(0.30, 0.44)
            + 0.07 * np.sin(2 * np.pi * canvas.x * rng.uniform(0.6, 1.2) + sway[0])
            + 0.025 * np.sin(2 * np.pi * canvas.x * rng.uniform(2.0, 3.5) + sway[1])
        )
        height = rng.uniform(0.24, 0.36)
        share = np.clip((foot - canvas.y) / height, -0.2, 1.0)
        body = np.where(share < 0, np.exp(-((share / 0.06) ** 2)), (1 - share) ** 1.5)
        rays = 0.72 + 0.28 * np.sin(2 * np.pi * canvas.x * rng.uniform(7, 11) + sway[2])
        strength = np.float32((0.75, 0.55, 0.4)[curtain])
        light = (body * rays * strength).astype(np.float32)
        canvas.glow(light * (1 - np.clip(share, 0, 1)), green)
        canvas.glow(light * np.clip(share, 0, 1) * np.float32(1.4), violet)


def _rainbow(canvas: Canvas, scene: Scene, x: float, rng: np.random.Generator) -> None:
    del x
    middle, radius = rng.uniform(0.35, 0.65), rng.uniform(0.50, 0.58)
    away = np.hypot(canvas.x - middle, (canvas.y - 0.66) * 1.06)
    width = 0.020
    strength = np.float32(0.62 if scene.weather == "rainy" else 0.72)
    for place, colour in enumerate(RAINBOW):
        band = np.clip(1.15 - np.abs(away - (radius - place * width)) / width, 0, 1)
        canvas.paint((band * strength).astype(np.float32), colour)


def _clouds(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    light = DAYLIGHT[scene.time]
    lit, shade = light.cloud_lit, light.cloud_shade
    if scene.weather == "rainy":
        storm = STORM[scene.time]
        _ceiling(canvas, rng, mix(storm, rgb(0, 0, 0), 0.34), mix(storm, lit, 0.22))
    elif scene.weather == "cloudy":
        if scene.time != "night":
            shade = mix(shade, lit, 0.15)
        for y, size in ((0.30, 0.8), (0.13, 1.1), (0.22, 1.0), (0.05, 1.1)):
            for start in (0.0, 0.5):
                _puff(canvas, rng, start + rng.uniform(-0.05, 0.5), y, size, lit, shade)
    elif scene.weather == "clear" and scene.time != "night" and rng.random() < 0.6:
        _wisps(canvas, rng, lit)


def _puff(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, size: float,
    lit: Colour, shade: Colour,
) -> None:  # fmt: skip
    """One heaped cloud: round tops, a flat foot, light from above."""
    y += rng.uniform(-0.03, 0.03)
    half = size * rng.uniform(0.13, 0.18)
    body: Field = np.zeros_like(canvas.pixels[..., 0])
    for share in np.linspace(-1, 1, 6):
        radius = half * (0.46 - 0.26 * abs(share) + rng.uniform(-0.03, 0.05))
        top = canvas.disc(x + share * half * 0.85, y - radius * 0.55, radius)
        body = np.maximum(body, top)
    foot = np.clip((y + 0.008 - canvas.y) * canvas.size * 0.5 + 0.5, 0, 1)
    body = (body * foot).astype(np.float32)
    depth = np.clip((y - canvas.y) / (half * 0.62), 0, 1)[..., None]
    canvas.paint(body * np.float32(0.94), (shade + (lit - shade) * depth).astype(np.float32))


def _ceiling(canvas: Canvas, rng: np.random.Generator, dark: Colour, pale: Colour) -> None:
    """A closed sky of heavy cloud, darkest on top."""
    noise = clouds(rng, canvas.size, 4, stretch=2.0)
    cover = (smoothstep(0.30, 0.62, noise) * np.clip(1.15 - canvas.y / 0.5, 0, 1)).astype(
        np.float32
    )
    canvas.paint(cover * np.float32(0.85), dark)
    rim = smoothstep(0.5, 0.62, noise) * smoothstep(0.78, 0.64, noise)
    canvas.paint((rim * np.clip(0.9 - canvas.y / 0.5, 0, 1) * 0.5).astype(np.float32), pale)


def _wisps(canvas: Canvas, rng: np.random.Generator, lit: Colour) -> None:
    """A few thin streaks of high cloud."""
    noise = clouds(rng, canvas.size, 7, stretch=4.0)
    fade = np.clip(canvas.y / 0.15, 0, 1) * np.clip((0.5 - canvas.y) / 0.25, 0, 1)
    canvas.paint((smoothstep(0.52, 0.74, noise) * fade * 0.6).astype(np.float32), lit)
