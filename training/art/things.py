"""The objects: each drawn large, shaded, in its colour, standing (or floating) at its place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.art.canvas import Canvas, Field, Pixels, Sketch
from training.art.colours import (
    CREAM,
    DARK_WOOD,
    DAYLIGHT,
    PAINT,
    SLATE,
    WOOD,
    Colour,
    mix,
    rgb,
)
from training.art.sky import COLUMN
from training.scenes import Scene, Thing

HEIGHT = {  # of the whole object, in fractions of the picture
    "cottage": 0.42,
    "lighthouse": 0.62,
    "windmill": 0.56,
    "castle": 0.46,
    "tent": 0.38,
    "balloon": 0.54,
    "sailboat": 0.54,
}
HALF_WIDTH = {  # from its middle, in heights: what must stay inside the picture
    "cottage": 0.52,
    "lighthouse": 0.18,
    "windmill": 0.30,
    "castle": 0.50,
    "tent": 0.58,
    "balloon": 0.32,
    "sailboat": 0.38,
}
INK = rgb(38, 30, 44)  # of the soft outline around each object


class Brush:
    """Lays shaded parts of one object on the canvas, in one scene's light."""

    def __init__(self, canvas: Canvas, sketch: Sketch, scene: Scene) -> None:
        self.canvas, self.sketch, self.scene = canvas, sketch, scene
        self.light = DAYLIGHT[scene.time]

    def flat(self, mask: Field, colour: Colour) -> None:
        """One colour under the scene's light."""
        self.canvas.paint(mask, colour * self.light.things)

    def ramp(self, mask: Field, lit: Colour, shade: Colour, share: Field) -> None:
        """From ``lit`` (share 0) to ``shade`` (share 1)."""
        colours: Pixels = (lit + (shade - lit) * share[..., None]).astype(np.float32)
        self.canvas.paint(mask, colours * self.light.things)

    def barrel(self, mask: Field, colour: Colour, left: float, right: float) -> None:
        """A round body lit from the upper left."""
        across = self.sketch.across(left, right)
        turned = np.clip(np.abs(across - 0.32) / 0.68, 0, 1) ** 1.6
        self.ramp(mask, mix(colour, CREAM, 0.16), darker(colour, 0.42), turned)

    def outline(self, *masks: Field) -> None:
        """A thin dark rim around what these masks cover, and a shadow at its foot."""
        whole = np.maximum.reduce(masks)
        padded = np.pad(whole, 1)
        around = np.maximum.reduce(
            [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:], whole]
        )
        self.canvas.paint(around * np.float32(0.6), INK * self.light.things)

    def windows(self, *masks: Field) -> None:
        """Panes that shine when it is dark outside."""
        for mask in masks:
            if self.scene.time in ("night", "dawn", "sunset"):
                self.canvas.paint(mask, self.light.window)
            else:
                self.flat(mask, self.light.window)

    def shadow(self, width: float) -> None:
        """The soft contact shadow on the ground."""
        x, y = self.sketch.to_picture((0.06, 0.0))
        half = width * self.sketch.height / 2
        away = ((self.canvas.x - x) / half) ** 2 + ((self.canvas.y - y) / 0.022) ** 2
        mask = np.clip(1.15 - away, 0, 1) * np.float32(0.42)
        self.canvas.paint(mask.astype(np.float32), rgb(28, 26, 56))


def darker(colour: Colour, share: float) -> Colour:
    """Towards a cool shadow; white turns grey-blue rather than black."""
    return mix(colour, colour * rgb(110, 96, 150), share * 1.2)


def paint_things(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Paint the scene's objects, the farther first."""
    floats = {"balloon": 0, "sailboat": 1}
    for thing in sorted(scene.things, key=lambda thing: floats.get(thing.kind, 2)):
        size = (
            HEIGHT[thing.kind] * rng.uniform(0.92, 1.06) * (0.86 if len(scene.things) > 1 else 1.0)
        )
        inside = HALF_WIDTH[thing.kind] * size + 0.01
        x = float(np.clip(COLUMN[thing.place] + rng.uniform(-0.03, 0.03), inside, 1 - inside))
        foot = {"balloon": 0.68, "sailboat": 0.83}.get(thing.kind, 0.90) + rng.uniform(-0.02, 0.02)
        sketch = Sketch(canvas, x, foot, size)
        PAINTERS[thing.kind](Brush(canvas, sketch, scene), thing)


def _cottage(brush: Brush, thing: Thing) -> None:
    sketch, paint = brush.sketch, PAINT[thing.colour]
    brush.shadow(1.15)
    front = sketch.polygon([(-0.42, 0), (0.10, 0), (0.10, 0.46), (-0.16, 0.80), (-0.42, 0.46)])
    side = sketch.polygon([(0.10, 0), (0.46, 0.03), (0.46, 0.46), (0.10, 0.46)])
    roof = sketch.polygon([(-0.17, 0.86), (0.30, 0.84), (0.53, 0.44), (0.13, 0.42)])
    eave = sketch.polygon(
        [(-0.17, 0.86), (-0.50, 0.40), (-0.45, 0.37), (-0.16, 0.76), (0.10, 0.40), (0.16, 0.42)]
    )
    chimney = sketch.polygon([(0.22, 0.72), (0.33, 0.72), (0.33, 0.98), (0.22, 0.98)])
    brush.outline(front, side, roof, eave, chimney)
    brush.ramp(chimney, rgb(176, 124, 108), rgb(112, 74, 72), sketch.across(0.22, 0.33))
    brush.ramp(front, mix(paint, CREAM, 0.1), darker(paint, 0.18), 1 - sketch.up(0, 0.8))
    brush.ramp(side, darker(paint, 0.4), darker(paint, 0.55), sketch.across(0.1, 0.46))
    snowy = brush.scene.season == "winter"
    tile = rgb(244, 248, 255) if snowy else rgb(116, 78, 66)
    shade = rgb(196, 210, 236) if snowy else rgb(78, 52, 54)
    brush.ramp(roof, tile, shade, 1 - sketch.up(0.42, 0.88))
    brush.flat(eave, mix(tile, CREAM, 0.25))
    brush.flat(sketch.polygon([(-0.24, 0), (-0.08, 0), (-0.08, 0.27), (-0.24, 0.27)]), DARK_WOOD)
    panes = [
        sketch.polygon([(x, y), (x + w, y), (x + w, y + 0.15), (x, y + 0.15)])
        for x, y, w in ((-0.22, 0.42, 0.13), (0.19, 0.18, 0.15))
    ]
    for x, y, w in ((-0.245, 0.395, 0.18), (0.165, 0.155, 0.20)):
        brush.flat(sketch.polygon([(x, y), (x + w, y), (x + w, y + 0.20), (x, y + 0.20)]), CREAM)
    brush.windows(*panes)


def _lighthouse(brush: Brush, thing: Thing) -> None:
    sketch, paint = brush.sketch, PAINT[thing.colour]
    band = rgb(250, 246, 238) if thing.colour != "white" else rgb(206, 210, 218)
    brush.shadow(0.5)

    def slice_of(bottom: float, top: float) -> Field:
        low, high = (0.165 - 0.075 * h / 0.74 for h in (bottom, top))
        return sketch.polygon([(-low, bottom), (low, bottom), (high, top), (-high, top)])

    tower = slice_of(0, 0.74)
    gallery = sketch.polygon([(-0.135, 0.74), (0.135, 0.74), (0.135, 0.775), (-0.135, 0.775)])
    lamp = sketch.polygon([(-0.075, 0.775), (0.075, 0.775), (0.075, 0.89), (-0.075, 0.89)])
    cap = sketch.polygon([(-0.115, 0.89), (0.115, 0.89), (0.0, 1.0)])
    brush.outline(tower, gallery, lamp, cap)
    brush.barrel(tower, paint, -0.16, 0.16)
    for bottom, top in ((0.20, 0.30), (0.50, 0.60)):
        brush.barrel(slice_of(bottom, top), band, -0.16, 0.16)
    brush.barrel(gallery, SLATE, -0.135, 0.135)
    brush.barrel(cap, darker(paint, 0.3), -0.115, 0.115)
    brush.canvas.paint(lamp, rgb(255, 236, 160))
    brush.flat(sketch.polygon([(-0.045, 0), (0.045, 0), (0.04, 0.12), (-0.04, 0.12)]), DARK_WOOD)
    brush.windows(sketch.ellipse(0, 0.405, 0.07, 0.08))
    if brush.scene.time == "night" or brush.scene.weather in ("foggy", "rainy"):
        _beam(brush, sketch)


def _beam(brush: Brush, sketch: Sketch) -> None:
    x, y = sketch.to_picture((0.0, 0.83))
    brush.canvas.glow(brush.canvas.haze(x, y, 0.05) * np.float32(0.8), rgb(255, 226, 140))
    direction = -1 if x > 0.5 else 1
    reach = (brush.canvas.x - x) * direction
    width = 0.012 + 0.16 * np.clip(reach, 0, 1)
    ray = np.exp(-(((brush.canvas.y - y) / width) ** 2)) * np.clip(1 - reach / 0.8, 0, 1)
    ray = ray * (reach > 0.01) * np.float32(0.38)
    brush.canvas.glow(ray.astype(np.float32), rgb(255, 232, 160))


def _windmill(brush: Brush, thing: Thing) -> None:
    sketch, paint = brush.sketch, PAINT[thing.colour]
    brush.shadow(0.62)
    tower = sketch.polygon([(-0.24, 0), (0.24, 0), (0.14, 0.60), (-0.14, 0.60)])
    cap = sketch.polygon([(-0.17, 0.59), (0.17, 0.59), (0.13, 0.71), (0.0, 0.77), (-0.13, 0.71)])
    brush.outline(tower, cap)
    brush.barrel(tower, paint, -0.24, 0.24)
    brush.barrel(cap, rgb(110, 76, 64), -0.17, 0.17)
    door = [(-0.06, 0), (0.06, 0), (0.06, 0.15), (0.0, 0.20), (-0.06, 0.15)]
    brush.flat(sketch.polygon(door), DARK_WOOD)
    brush.windows(sketch.ellipse(-0.07, 0.33, 0.075, 0.09), sketch.ellipse(0.06, 0.46, 0.06, 0.075))
    turn = np.pi * (0.10 + 0.3 * ((brush.scene.seed % 97) / 97))
    hub = (0.0, 0.64)
    for sail in range(4):
        angle = turn + sail * np.pi / 2
        out = np.array([np.cos(angle), np.sin(angle)])
        over = np.array([-out[1], out[0]])
        corners = [
            tuple(np.array(hub) + out * a + over * b)
            for a, b in ((0.09, 0.0), (0.40, 0.0), (0.40, 0.115), (0.09, 0.095))
        ]
        tip = tuple(np.array(hub) + out * 0.41)
        cloth, arm = sketch.polygon(corners), sketch.stroke([hub, tip], 0.026)
        brush.outline(cloth, arm)
        brush.flat(cloth, CREAM)
        brush.flat(arm, DARK_WOOD)
    brush.flat(sketch.ellipse(*hub, 0.07, 0.07), WOOD)


def _castle(brush: Brush, thing: Thing) -> None:
    sketch, paint = brush.sketch, PAINT[thing.colour]
    brush.shadow(1.0)
    roof = darker(paint, 0.75) if thing.colour != "white" else rgb(112, 124, 156)
    keep = sketch.polygon([(-0.15, 0), (0.15, 0), (0.15, 0.66), (-0.15, 0.66)])
    wall = sketch.polygon([(-0.36, 0), (0.36, 0), (0.36, 0.34), (-0.36, 0.34)])
    towers = [
        sketch.polygon([(x - 0.10, 0), (x + 0.10, 0), (x + 0.10, 0.52), (x - 0.10, 0.52)])
        for x in (-0.36, 0.36)
    ]
    spires = [
        sketch.polygon([(x - half, foot), (x + half, foot), (x, top)])
        for x, half, foot, top in (
            (-0.36, 0.14, 0.52, 0.82),
            (0.36, 0.14, 0.52, 0.82),
            (0.0, 0.20, 0.66, 1.0),
        )
    ]
    brush.outline(keep, wall, *towers, *spires)
    brush.barrel(keep, paint, -0.15, 0.15)
    for start in np.arange(-0.24, 0.24, 0.12):
        tooth = [(start, 0.33), (start + 0.06, 0.33), (start + 0.06, 0.40), (start, 0.40)]
        brush.flat(sketch.polygon([(float(x), y) for x, y in tooth]), darker(paint, 0.2))
    brush.ramp(wall, mix(paint, CREAM, 0.06), darker(paint, 0.3), 1 - sketch.up(0, 0.36))
    for x, tower in zip((-0.36, 0.36), towers, strict=True):
        brush.barrel(tower, paint, x - 0.10, x + 0.10)
    for (left, right), spire in zip(((-0.5, -0.22), (0.22, 0.5), (-0.2, 0.2)), spires, strict=True):
        brush.barrel(spire, roof, left, right)
    gate = sketch.polygon([(-0.09, 0), (0.09, 0), (0.09, 0.15), (-0.09, 0.15)])
    arch = sketch.ellipse(0, 0.15, 0.18, 0.16)
    brush.flat(np.maximum(gate, arch), DARK_WOOD)
    brush.windows(
        sketch.ellipse(0, 0.50, 0.075, 0.12),
        sketch.ellipse(-0.36, 0.37, 0.06, 0.10),
        sketch.ellipse(0.36, 0.37, 0.06, 0.10),
    )


def _tent(brush: Brush, thing: Thing) -> None:
    sketch, paint = brush.sketch, PAINT[thing.colour]
    brush.shadow(1.25)
    side = sketch.polygon([(-0.12, 0.94), (0.30, 0.80), (0.60, 0.06), (0.14, 0)])
    front = sketch.polygon([(-0.52, 0), (0.16, 0), (-0.12, 0.94)])
    brush.outline(side, front)
    brush.ramp(side, darker(paint, 0.28), darker(paint, 0.5), sketch.across(0.0, 0.6))
    brush.ramp(front, mix(paint, CREAM, 0.14), darker(paint, 0.12), 1 - sketch.up(0, 0.95))
    inside = sketch.polygon([(-0.31, 0), (-0.02, 0), (-0.125, 0.66)])
    if brush.scene.time in ("night", "dawn", "sunset"):
        brush.canvas.paint(inside, brush.light.window)
    else:
        brush.flat(inside, darker(paint, 0.95) * np.float32(0.6))
    brush.flat(sketch.polygon([(-0.36, 0), (-0.27, 0), (-0.135, 0.68)]), mix(paint, CREAM, 0.45))
    brush.flat(sketch.stroke([(-0.12, 0.92), (-0.12, 1.0)], 0.03), WOOD)


def _balloon(brush: Brush, thing: Thing) -> None:
    sketch, paint = brush.sketch, PAINT[thing.colour]
    sway = np.float32(0.30)
    crown = sketch.ellipse(0, 0.68, 0.62, 0.62)
    skirt = sketch.polygon([(-0.285, 0.565), (0.285, 0.565), (0.09, 0.24), (-0.09, 0.24)])
    body = np.maximum(crown, skirt)
    basket = sketch.polygon([(-0.075, 0.0), (0.075, 0.0), (0.09, 0.12), (-0.09, 0.12)])
    ropes = [sketch.stroke([(x, 0.25), (x * 0.9, 0.11)], 0.014) for x in (-0.085, 0.085)]
    brush.outline(body, basket)
    for rope in ropes:
        brush.flat(rope, DARK_WOOD)
    brush.barrel(body, paint, -0.31, 0.31)
    pale = mix(paint, CREAM, 0.5) if thing.colour != "white" else rgb(204, 210, 222)
    for half in (0.075, 0.235):
        # Gores: the meridians of the envelope, as the difference of two ellipses.
        outer = sketch.ellipse(0, 0.68, 2 * half + 0.075, 0.62)
        inner = sketch.ellipse(0, 0.68, 2 * half, 0.62)
        gore = np.clip(outer - inner, 0, 1) * crown * sway
        brush.flat(gore * np.float32(2.2), pale)
    brush.ramp(basket, WOOD, DARK_WOOD, sketch.across(-0.09, 0.09))
    brush.flat(sketch.polygon([(-0.10, 0.10), (0.10, 0.10), (0.10, 0.135), (-0.10, 0.135)]), CREAM)


def _sailboat(brush: Brush, thing: Thing) -> None:
    sketch, paint = brush.sketch, PAINT[thing.colour]
    hull = sketch.polygon([(-0.34, 0.17), (0.38, 0.17), (0.24, 0.0), (-0.25, 0.0)])
    mast = sketch.stroke([(-0.01, 0.15), (-0.01, 1.0)], 0.026)
    main = sketch.polygon([(0.02, 0.22), (0.36, 0.24), (0.24, 0.48), (0.02, 0.97)])
    jib = sketch.polygon([(-0.04, 0.90), (-0.33, 0.24), (-0.04, 0.22)])
    brush.shadow(1.0)
    brush.outline(hull, mast, main, jib)
    brush.flat(mast, DARK_WOOD)
    brush.ramp(main, mix(paint, CREAM, 0.08), darker(paint, 0.3), sketch.across(0.0, 0.36))
    brush.ramp(jib, mix(paint, CREAM, 0.22), darker(paint, 0.12), sketch.across(-0.33, -0.02))
    brush.ramp(hull, rgb(168, 104, 62), rgb(96, 56, 42), 1 - sketch.up(0, 0.17))
    brush.flat(
        sketch.polygon([(-0.345, 0.185), (0.39, 0.185), (0.37, 0.145), (-0.32, 0.145)]), CREAM
    )


PAINTERS: dict[str, Callable[[Brush, Thing], None]] = {
    "cottage": _cottage,
    "lighthouse": _lighthouse,
    "windmill": _windmill,
    "castle": _castle,
    "tent": _tent,
    "balloon": _balloon,
    "sailboat": _sailboat,
}
