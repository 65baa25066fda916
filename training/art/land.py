"""The land: what lies between the sky and the objects, and the ground they stand on."""

from __future__ import annotations

import numpy as np

from training.art.canvas import Canvas, Field, Line, Sketch, clouds, ridge, smoothstep
from training.art.colours import (
    DAYLIGHT,
    DUNE_FAR,
    DUNE_NEAR,
    DUNE_SHADE,
    GROWTH,
    ROCK,
    ROCK_LIT,
    SEA,
    SNOW_CAP,
    Colour,
    land_light,
    mix,
    rgb,
    sky_colours,
)
from training.scenes import Scene

SHORE_KINDS = {"sailboat", "balloon"}  # these need no ground under them


def paint_land(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Paint the terrain from the far end to the foreground."""
    painters = {
        "hills": _hills,
        "mountains": _mountains,
        "desert": _desert,
        "forest": _forest,
        "sea": _sea,
    }
    painters[scene.terrain](canvas, scene, rng)


def _distant(scene: Scene, colour: Colour, away: float) -> Colour:
    """A colour of the land, ``away`` (0..1) of the way into the haze."""
    haze = mix(DAYLIGHT[scene.time].haze, sky_colours(scene)[2], 0.5)
    thick = {"clear": 0.55, "cloudy": 0.6, "foggy": 0.98, "rainy": 0.75, "snowing": 0.8}
    return mix(colour * land_light(scene), haze, away * thick[scene.weather])


def _rolling(
    canvas: Canvas, line: Line, top: Colour, foot: Colour, depth: float, shade: Field | None = None
) -> Field:
    """A layer of land under a line, lit along its crest and darker ``depth`` further down."""
    mask = canvas.below(line)
    down = np.clip((canvas.y - line[None, :]) / depth, 0, 1)[..., None]
    colours = (top + (foot - top) * down).astype(np.float32)
    if shade is not None:
        colours *= (1 - 0.22 * shade[..., None]).astype(np.float32)
    canvas.paint(mask, colours)
    return mask


def _hills(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    growth = GROWTH[scene.season]
    for away, level, swing in ((1.0, 0.54, 0.05), (0.6, 0.62, 0.06), (0.28, 0.70, 0.05)):
        line = ridge(rng, canvas.size, level, swing, 0.42, 3)
        top = _distant(scene, mix(growth.near, growth.far, away), away)
        foot = _distant(scene, growth.shade, away * 0.9)
        _rolling(canvas, line, top, foot, 0.26)
        if away < 0.7:
            for _ in range(int(rng.integers(2, 5))):
                x = rng.random()
                height = 0.045 + 0.03 * (1 - away)
                y = float(line[min(int(x * canvas.size), canvas.size - 1)]) + 0.006
                _round_tree(canvas, scene, x, y, height * rng.uniform(0.8, 1.3), away)
    _meadow(canvas, scene, rng, 0.80)


def _mountains(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    snow_line = {"spring": 0.10, "summer": 0.075, "autumn": 0.09, "winter": 0.5}[scene.season]
    for away, level, swing, peaks in ((0.95, 0.44, 0.08, 3), (0.5, 0.52, 0.15, 2)):
        line, lit = _peaks(canvas, rng, level, swing, peaks)
        mask = canvas.below(line)
        dark = _distant(scene, ROCK, away)
        pale = _distant(scene, ROCK_LIT, away)
        canvas.paint(mask, (dark + (pale - dark) * lit[..., None]).astype(np.float32))
        depth = canvas.y - line[None, :]
        ragged = snow_line * (0.75 + 0.9 * clouds(rng, canvas.size, 9)) * (1.15 - away * 0.4)
        cap = mask * smoothstep(0.012, -0.012, (depth - ragged).astype(np.float32))
        snow = _distant(scene, SNOW_CAP, away * 0.7)
        shaded = _distant(scene, rgb(176, 192, 224), away * 0.7)
        canvas.paint(cap, (shaded + (snow - shaded) * lit[..., None]).astype(np.float32))
    growth = GROWTH[scene.season]
    line = ridge(rng, canvas.size, 0.70, 0.03, 0.5, 3)
    _rolling(
        canvas, line, _distant(scene, growth.far, 0.45), _distant(scene, growth.shade, 0.4), 0.2
    )
    for x in np.sort(rng.random(int(rng.integers(5, 10)))):
        y = float(line[min(int(x * canvas.size), canvas.size - 1)]) + 0.02
        _fir(canvas, scene, float(x), y, rng.uniform(0.06, 0.10), 0.4)
    _meadow(canvas, scene, rng, 0.81)


def _peaks(
    canvas: Canvas, rng: np.random.Generator, level: float, swing: float, count: int
) -> tuple[Line, Field]:
    """A range of sharp peaks, and where the light falls on it (0..1)."""
    x = canvas.x[0]
    height = np.zeros(canvas.size, np.float32)
    tops = (np.arange(count) + rng.uniform(0.15, 0.85, count)) / count
    best = np.zeros(canvas.size, np.int64)
    for index, top in enumerate(tops):
        slope = rng.uniform(1.0, 1.5)
        peak = (swing * rng.uniform(0.75, 1.25) + 0.12) - slope * 0.45 * np.abs(x - top)
        best = np.where(peak > height, index, best)
        height = np.maximum(height, peak)
    rough = ridge(rng, canvas.size, 0.0, 0.022, 0.75, 5)
    line = (level + 0.10 - height + rough).astype(np.float32)
    # Each peak's left face is lit down a wavering edge from its top.
    waver = 0.05 * (clouds(rng, canvas.size, 8) - 0.5) * 2
    edge = tops[best][None, :] + waver * np.clip((canvas.y - level + 0.3) * 3, 0.1, 1)
    lit = smoothstep(0.012, -0.012, (canvas.x - edge).astype(np.float32))
    return line, lit


def _desert(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    mesa = ridge(rng, canvas.size, 0.57, 0.03, 0.3, 2)
    steps = np.round(mesa * 26) / 26  # far tables of rock have flat tops
    soft = np.convolve(np.pad(steps, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    rock = _distant(scene, rgb(188, 112, 84), 0.75)
    _rolling(canvas, soft.astype(np.float32), rock, _distant(scene, DUNE_FAR, 0.6), 0.12)
    for away, level, swing in ((0.65, 0.63, 0.04), (0.35, 0.71, 0.05), (0.0, 0.80, 0.045)):
        line = ridge(rng, canvas.size, level, swing, 0.35, 2)
        slope = np.gradient(line) * canvas.size
        depth = canvas.y - line[None, :]
        lee = smoothstep(-0.10, 0.30, np.broadcast_to(slope[None, :], depth.shape))
        shade = lee * np.clip(1 - depth / 0.16, 0, 1)
        top = _distant(scene, mix(DUNE_NEAR, DUNE_FAR, away), away)
        foot = _distant(scene, mix(DUNE_NEAR, DUNE_SHADE, 0.45), away)
        mask = _rolling(canvas, line, top, foot, 0.25)
        shaded = _distant(scene, DUNE_SHADE, away)
        canvas.paint((mask * shade * 0.85).astype(np.float32), shaded)
        if away == 0.0:
            ripple = 0.5 + 0.5 * np.sin(
                depth * 150 + 3 * np.sin(canvas.x * rng.uniform(5, 9)) + 4 * canvas.x
            )
            canvas.paint((mask * ripple**3 * 0.16).astype(np.float32), shaded)


def _forest(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    growth = GROWTH[scene.season]
    rows = ((0.85, 0.60, 0.13, 13), (0.5, 0.68, 0.19, 10), (0.2, 0.76, 0.26, 8))
    for away, level, height, count in rows:
        line = ridge(rng, canvas.size, level, 0.02, 0.5, 2)
        ground = _distant(scene, mix(growth.shade, growth.leaf, 0.3), away)
        _rolling(canvas, line, ground, _distant(scene, growth.shade, away), 0.15)
        for place in np.linspace(0, 1, count) + rng.uniform(-0.04, 0.04, count):
            foot = float(line[int(np.clip(place, 0, 0.999) * canvas.size)]) + 0.012
            tall = height * rng.uniform(0.75, 1.15)
            if rng.random() < 0.6:
                _fir(canvas, scene, float(place), foot, tall, away)
            else:
                _round_tree(canvas, scene, float(place), foot, tall * 0.85, away)
    _meadow(canvas, scene, rng, 0.82)


def _fir(canvas: Canvas, scene: Scene, x: float, y: float, height: float, away: float) -> None:
    growth = GROWTH[scene.season]
    needles = rgb(30, 84, 66) if scene.season != "autumn" else rgb(66, 88, 46)
    sketch = Sketch(canvas, x, y, height)
    dark, pale = (
        _distant(scene, needles, away),
        _distant(scene, mix(needles, rgb(120, 190, 110), 0.3), away),
    )
    across = sketch.across(-0.3, 0.3)[..., None]
    for foot, top, half in ((0.08, 0.58, 0.30), (0.34, 0.80, 0.23), (0.58, 1.0, 0.16)):
        tier = sketch.polygon([(-half, foot), (half, foot), (0, top)])
        canvas.paint(tier, (pale + (dark - pale) * across).astype(np.float32))
        if scene.season == "winter":
            cap = sketch.polygon(
                [
                    (-half * 0.62, foot + (top - foot) * 0.38),
                    (half * 0.5, foot + (top - foot) * 0.5),
                    (0, top),
                ]
            )
            canvas.paint(cap * np.float32(0.92), _distant(scene, growth.leaf_lit, away))


def _round_tree(
    canvas: Canvas, scene: Scene, x: float, y: float, height: float, away: float
) -> None:
    growth = GROWTH[scene.season]
    sketch = Sketch(canvas, x, y, height)
    canvas.paint(
        sketch.polygon([(-0.05, 0), (0.05, 0), (0.04, 0.5), (-0.04, 0.5)]),
        _distant(scene, rgb(96, 66, 52), away),
    )
    dark, pale = _distant(scene, growth.leaf, away), _distant(scene, growth.leaf_lit, away)
    for left, up, width in ((-0.16, 0.55, 0.42), (0.16, 0.56, 0.42), (0.0, 0.74, 0.50)):
        crown = sketch.ellipse(left, up, width, width)
        share = np.clip(sketch.up(up - 0.2, up + 0.22) - 0.35 * sketch.across(-0.3, 0.4), 0, 1)
        colours = (dark + (pale - dark) * share[..., None]).astype(np.float32)
        canvas.paint(crown, colours)


def _meadow(canvas: Canvas, scene: Scene, rng: np.random.Generator, level: float) -> None:
    """The ground under the objects: grass, or snow, with flowers, leaves or glints on it."""
    growth = GROWTH[scene.season]
    line = ridge(rng, canvas.size, level, 0.014, 0.4, 2)
    _ground(canvas, scene, line, rng)
    for _ in range(int(rng.integers(14, 24))):
        x, y = rng.random(), rng.uniform(level + 0.05, 0.99)
        radius = 0.004 + 0.008 * (y - level) / (1 - level)
        speck = growth.speck
        if scene.season == "spring":
            speck = (speck, rgb(250, 250, 250), rgb(246, 160, 200))[int(rng.integers(3))]
        canvas.paint(canvas.disc(x, y, radius), _distant(scene, speck, 0.0))


def _ground(canvas: Canvas, scene: Scene, line: Line, rng: np.random.Generator) -> Field:
    growth = GROWTH[scene.season]
    patches = clouds(rng, canvas.size, 5, stretch=2.5)
    return _rolling(
        canvas,
        line,
        _distant(scene, growth.near, 0.05),
        _distant(scene, mix(growth.near, growth.shade, 0.7), 0.0),
        0.24,
        shade=patches * np.float32(0.35 if scene.season == "winter" else 0.9),
    )


def _sea(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    level = np.float32(rng.uniform(0.55, 0.58))
    line = np.full(canvas.size, level, np.float32)
    horizon = sky_colours(scene)[2]
    deep = mix(
        SEA[scene.time] * np.float32(0.9 if scene.weather == "rainy" else 1.0), horizon, 0.08
    )
    pale = mix(deep, horizon, 0.55)
    if rng.random() < 0.6:
        island = ridge(rng, canvas.size, float(level) + 0.012, 0.055, 0.5, 3)
        _rolling(canvas, island, _distant(scene, GROWTH[scene.season].far, 0.9),
                 _distant(scene, ROCK, 0.8), 0.08)  # fmt: skip
    mask = _rolling(canvas, line, pale, deep, 0.34)
    depth = np.clip((canvas.y - level) / (1 - level), 0, 1)
    waves = np.sin(
        (depth**0.6) * rng.uniform(52, 62) + 2.2 * clouds(rng, canvas.size, 6, 2.0) * 2 * np.pi
    )
    crest = smoothstep(0.55, 0.98, waves.astype(np.float32)) * mask
    canvas.paint(
        (crest * (0.20 + 0.25 * depth)).astype(np.float32), mix(pale, rgb(255, 255, 255), 0.35)
    )
    _glitter(canvas, scene, mask * crest, float(level))
    if any(thing.kind not in SHORE_KINDS for thing in scene.things):
        _shore(canvas, scene, rng)


def _glitter(canvas: Canvas, scene: Scene, crest: Field, level: float) -> None:
    """The path of a sun or a moon on the water, under the brightest part of the sky."""
    if scene.light not in ("sun", "moon"):
        return
    row = canvas.pixels[: int(level * canvas.size)].sum(axis=(0, 2))
    x = float(np.argmax(np.convolve(row, np.ones(9), mode="same"))) / canvas.size
    width = 0.04 + 0.10 * np.clip((canvas.y - level) / 0.4, 0, 1)
    path = np.exp(-(((canvas.x - x) / width) ** 2)) * (0.25 + 0.75 * crest) * (canvas.y > level)
    canvas.glow((path * 0.7).astype(np.float32), DAYLIGHT[scene.time].sun)


def _shore(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """A strip of beach and grass in front, with a line of foam, for what can't float."""
    line = ridge(rng, canvas.size, 0.82, 0.016, 0.4, 2)
    canvas.paint(canvas.below(line - np.float32(0.035)) * np.float32(0.75),
                 _distant(scene, rgb(250, 252, 252), 0.1))  # fmt: skip
    _rolling(canvas, line - np.float32(0.022), _distant(scene, rgb(244, 220, 168), 0.05),
             _distant(scene, rgb(216, 180, 128), 0.0), 0.1)  # fmt: skip
    _ground(canvas, scene, line + np.float32(0.022), rng)
