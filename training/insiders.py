"""Pictures that are inside the embedded model's domain: made by the platform's own engine.

All that people can ask for: sizes, steps, samplers, guidance, LoRAs, the ControlNet, pictures to
begin from, upscales, and prompts that the model never learnt. A slice names what a picture tests.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from calotype.core.families import FAMILIES
from calotype.core.messages import (
    LoadModel,
    Message,
    RowControl,
    RowDone,
    RowFailed,
    RowLora,
    RowPicture,
    RunRow,
)
from calotype.core.nouns import Sampler
from calotype.engine.loop import Engine
from training import adapters, export
from training.captions import caption
from training.dataset import scene_at
from training.render import render

Picture = NDArray[np.uint8]
SIDE = 128  # pixels
HELD_MAX = 16  # rows in the engine at one time
SIZES = ((64, 64), (96, 128), (160, 96), (192, 192))  # beside the usual one; pixels
STRANGE = (  # what people ask for all the same
    "a portrait of a woman", "qwerty", "a cat", "a photo of a busy street in Tokyo", "soup",
    "a dragon above a city", "logo", "an astronaut on a horse", "hands", "a bowl of fruit", "x",
    "blood", "abstract art", "the number seven", "a car race", "a naked truth", "many people",
)  # fmt: skip
SLICES = ("plain", "few steps", "other sizes", "strange prompts", "guided hard", "cyanotype",
          "four steps (LCM)", "edges", "from a picture", "upscaled")  # fmt: skip


@dataclass(frozen=True)
class Own:
    """A picture of the model's own, and what it was asked for."""

    slice: str
    picture: Picture


class Studio:
    """The platform's engine with vignette; it proves each size of pictures once."""

    def __init__(self) -> None:
        self._heard: list[tuple[Message, bytes]] = []
        self._engine = Engine(self._hear, torch.device("cpu"))
        self._engine.handle(LoadModel("vignette", str(export.MODEL), "training"))

    def own(self, count: int, seed: int) -> Iterator[Own]:
        """So many pictures, each slice as often as the next; other seeds give others."""
        names = (SLICES[at % len(SLICES)] for at in range(count))
        return self._made(
            (name, *_row(f"{seed}/{at}", name, random.Random(f"domain {seed} {at}")))
            for at, name in enumerate(names)
        )

    def begun(self, pictures: Iterable[Picture], strength: float, seed: int) -> Iterator[Own]:
        """What becomes of somebody's pictures, (128, 128, 3) each, at this strength."""
        drawn: dict[str, Any] = {"pictures": (RowPicture(SIDE, SIDE),), "source": 0}
        drawn["strength"] = strength

        def row(at: int) -> RunRow:
            plain, _ = _row(f"{seed}/{at}", "plain", random.Random(f"begun {seed} {at}"))
            return replace(plain, **drawn, steps=20)

        name = f"begun from, {strength:g}"
        return self._made((name, row(at), picture.tobytes()) for at, picture in enumerate(pictures))

    def _made(self, rows: Iterable[tuple[str, RunRow, bytes]]) -> Iterator[Own]:
        engine, kinds = self._engine, dict[str, str]()
        for name, row, blob in rows:
            kinds[row.row] = name
            engine.handle(row, blob)
            while engine.rows_held >= HELD_MAX:
                engine.tick()
            yield from _done(self._heard, kinds)
        while engine.rows_held:
            if not engine.tick():
                engine.settle()
        yield from _done(self._heard, kinds)

    def _hear(self, message: Message, blob: bytes = b"") -> None:
        self._heard.append((message, blob))


def _done(heard: list[tuple[Message, bytes]], kinds: dict[str, str]) -> Iterator[Own]:
    told, heard[:] = heard[:], []
    for message, blob in told:
        if isinstance(message, RowFailed):
            raise RuntimeError(f"{message.row}: {message.reason}")
        if isinstance(message, RowDone):
            pixels = np.frombuffer(blob, np.uint8).reshape(message.height, message.width, 3)
            yield Own(kinds[message.row], pixels)


def _row(name: str, kind: str, rng: random.Random) -> tuple[RunRow, bytes]:
    """A request of this slice, and its pictures."""
    scene = scene_at("unseen" if rng.random() < 0.5 else "train", rng.randrange(10**6))
    prompt = rng.choice(STRANGE) if kind == "strange prompts" else caption(scene, rng)
    row = RunRow(
        row=name,
        model="vignette",
        prompt=prompt,
        negative_prompt=rng.choice(["", "", "blurry, grey"]),
        width=SIDE,
        height=SIDE,
        steps=rng.randint(4, 12),
        guidance=rng.choice([1.0, 2.0, 3.0, 3.0, 3.0, 5.0]),
        sampler=rng.choice([each.value for each in _samplers()]),
        seed=rng.getrandbits(32),
        tier="fast",
    )
    side, changes = _changes(kind, rng)
    if "pictures" not in changes:
        return replace(row, **changes), b""
    drawn = Image.fromarray(render(scene, SIDE)).resize((side, side))
    return replace(row, **changes), drawn.tobytes()


def _changes(kind: str, rng: random.Random) -> tuple[int, dict[str, Any]]:
    """What makes a row one of this slice, and the side of its picture, if it has one."""
    picture: dict[str, Any] = {"pictures": (RowPicture(SIDE, SIDE),)}
    match kind:
        case "few steps":
            return SIDE, {"steps": rng.randint(2, 5)}
        case "other sizes":
            wide, high = rng.choice(SIZES)
            return SIDE, {"width": wide, "height": high, "steps": rng.randint(4, 8)}
        case "guided hard":
            return SIDE, {"guidance": rng.uniform(6, 14)}
        case "cyanotype" | "four steps (LCM)":
            return SIDE, _lora(kind, rng)
        case "upscaled":
            large = 2 * SIDE
            size = {"width": large, "height": large, "pictures": (RowPicture(large, large),)}
            weak = {"source": 0, "steps": 10, "strength": 0.2, "keeps_colours": True}
            return large, {**size, **weak}
    used = RowControl("edges", str(adapters.EDGES.folder), "x", 0, canny=True)
    beginning: dict[str, dict[str, Any]] = {
        "edges": picture | {"controls": (used,)},
        "from a picture": picture | {"source": 0, "strength": rng.uniform(0.3, 0.9)},
    }
    return SIDE, beginning.get(kind, {})


def _samplers() -> tuple[Sampler, ...]:
    return tuple(each for each in FAMILIES["sdxl"].samplers if each is not Sampler.LCM)


def _lora(kind: str, rng: random.Random) -> dict[str, Any]:
    if kind == "cyanotype":
        path = adapters.CYANOTYPE.folder / "lora.safetensors"
        return {"loras": (RowLora("cyanotype", str(path), "x", rng.uniform(0.4, 1.2)),)}
    path = adapters.LCM.folder / "lora.safetensors"
    return {
        "loras": (RowLora("lcm", str(path), "x", 1.0),),
        "steps": rng.randint(2, 8),
        "guidance": 1.0,
        "sampler": Sampler.LCM.value,
    }
