"""The weather in front of everything: fog that hides, rain and snow that fall."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from training.art.canvas import OVERSAMPLING, Canvas, clouds, smoothstep
from training.art.colours import DAYLIGHT, mix, rgb
from training.scenes import Scene


def paint_weather(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Lay fog, rain or snow over the finished scene; nothing for other weathers."""
    painters = {"foggy": _fog, "rainy": _rain, "snowing": _snow}
    if scene.weather in painters:
        painters[scene.weather](canvas, scene, rng)


def _fog(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    fog = mix(DAYLIGHT[scene.time].haze, rgb(255, 255, 255), 0.12)
    for level, width, strength in ((0.55, 0.14, 0.45), (0.74, 0.06, 0.36), (0.92, 0.07, 0.5)):
        bank = np.exp(-(((canvas.y - level) / width) ** 2))
        drift = 0.55 + 0.6 * clouds(rng, canvas.size, 4, stretch=2.5)
        canvas.paint(np.clip(bank * drift * strength, 0, 0.8).astype(np.float32), fog)


def _rain(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    scale = canvas.size * OVERSAMPLING
    image = Image.new("L", (scale, scale))
    draw = ImageDraw.Draw(image)
    lean = rng.uniform(0.12, 0.26)
    for _ in range(46):
        x, y, length = rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1.0), rng.uniform(0.07, 0.13)
        line = [(x * scale, y * scale), ((x - lean * length) * scale, (y + length) * scale)]
        draw.line(line, fill=int(rng.integers(120, 220)), width=max(1, scale // 128))
    mask = np.asarray(image.reduce(OVERSAMPLING), np.float32) / np.float32(255)
    bright = mix(DAYLIGHT[scene.time].haze, rgb(236, 244, 255), 0.7)
    canvas.paint(mask * np.float32(0.8), bright)


def _snow(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    flake = mix(rgb(255, 255, 255), DAYLIGHT[scene.time].haze, 0.08)
    for radius, count in ((0.0065, 34), (0.0105, 26), (0.016, 9)):
        for _ in range(count):
            x, y = rng.random(), rng.random()
            mask = canvas.disc(x, y, radius * rng.uniform(0.8, 1.2))
            canvas.paint(mask * np.float32(0.94), flake)
    drift = smoothstep(0.86, 1.02, canvas.y + 0.05 * clouds(rng, canvas.size, 4))
    canvas.paint(drift * np.float32(0.25), flake)
