"""What our watermark survives, beside the `invisible-watermark` package, and how often it is wrong.

    python -m benchmarks.watermark attacks FOLDER_OF_PNGS...
    python -m benchmarks.watermark unmarked FILE.npy --first 0 --count 2500 [--search | --confirm]
    python -m benchmarks.watermark unmarked scenes --count 2500 --confirm
    python -m benchmarks.watermark likeness --count 1500

The package is measured where it can be imported (an environment of its own: `pip install
invisible-watermark`, MIT); else its columns are missing. Both get the same pictures and attacks;
ours carries 64 bits, the package 32. Prints JSON lines. Nothing here is part of Calotype.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from calotype.provenance import fingerprint
from calotype.provenance.detection import (
    CANDIDATES_MAX,
    DIRECT,
    SEARCHED,
    confirm,
    detect,
    threshold,
)
from calotype.provenance.geometry import Guess
from calotype.provenance.watermark import MarkKey, embed

Pixels = NDArray[np.uint8]
KEY = MarkKey("wmk_benchmark", bytes(range(32)))
PACKAGE_BITS = 32
Score = Callable[[Pixels], dict[str, float]]


def _encoded(form: str, quality: int) -> Callable[[Pixels], Pixels]:
    def attack(pixels: Pixels) -> Pixels:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form, quality=quality)
        return np.asarray(Image.open(file).convert("RGB"))

    return attack


def _resized(by: float) -> Callable[[Pixels], Pixels]:
    def attack(pixels: Pixels) -> Pixels:
        height, width, _ = pixels.shape
        size = (round(width * by), round(height * by))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))

    return attack


def _cropped(share: float) -> Callable[[Pixels], Pixels]:
    """Keep that share of the area, off the middle."""

    def attack(pixels: Pixels) -> Pixels:
        height, width = (int(side * share**0.5) for side in pixels.shape[:2])
        top, left = (pixels.shape[0] - height) // 3, (pixels.shape[1] - width) * 2 // 3
        return pixels[top : top + height, left : left + width]

    return attack


def _turned(degrees: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.asarray(
        Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC)
    )


def _noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(1).normal(0, 8, pixels.shape)
    return np.asarray(np.clip(pixels + noise, 0, 255), np.uint8)


def _then(*attacks: Callable[[Pixels], Pixels]) -> Callable[[Pixels], Pixels]:
    def attack(pixels: Pixels) -> Pixels:
        for each in attacks:
            pixels = np.ascontiguousarray(each(pixels))
        return pixels

    return attack


ATTACKS: dict[str, Callable[[Pixels], Pixels]] = {
    "none": lambda pixels: pixels,
    "jpeg 90": _encoded("jpeg", 90),
    "jpeg 75": _encoded("jpeg", 75),
    "jpeg 50": _encoded("jpeg", 50),
    "jpeg 30": _encoded("jpeg", 30),
    "webp 80": _encoded("webp", 80),
    "webp 50": _encoded("webp", 50),
    "resize 50 %": _resized(0.5),
    "resize 75 %": _resized(0.75),
    "resize 150 %": _resized(1.5),
    "crop to 75 %": _cropped(0.75),
    "crop to 50 %": _cropped(0.5),
    "crop to 25 %": _cropped(0.25),
    "crop to 10 %": _cropped(0.1),
    "crop 50 %, jpeg 75": _then(_cropped(0.5), _encoded("jpeg", 75)),
    "resize 50 %, jpeg 75": _then(_resized(0.5), _encoded("jpeg", 75)),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "turned by 3 degrees": _turned(3),
    "turned by 10 degrees": _turned(10),
    "screenshot": _then(_resized(1.25), _cropped(0.9), _encoded("jpeg", 90)),
    "noise 8": _noisy,
    "blur 1": lambda pixels: np.asarray(
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))
    ),
    "brightness 1.3": lambda pixels: np.asarray(np.clip(pixels * 1.3, 0, 255), np.uint8),
}


def psnr(one: Pixels, other: Pixels) -> float:
    """Decibels between two pictures."""
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float(10 * np.log10(255**2 / error))


def payload_for(number: int) -> int:
    """As if it were made of a key and a picture."""
    return int.from_bytes(hashlib.sha256(b"picture %d" % number).digest()[:8], "big")


def ours(pixels: Pixels, number: int) -> tuple[Pixels, Score]:
    """Mark a picture; the score of an attacked copy: found, id right, fits its sketch.

    And ``entry``: its mark is found where the log has twenty pictures that it may be.
    """
    payload = payload_for(number)
    marked, drawn = embed(pixels, payload, KEY), fingerprint.sketch(pixels)
    others = [payload_for(number + other) for other in range(1, CANDIDATES_MAX)]

    def score(attacked: Pixels) -> dict[str, float]:
        attacked = np.ascontiguousarray(attacked)
        scale = max(attacked.shape) / max(pixels.shape)
        one = confirm(attacked, [(KEY, each, scale) for each in (payload, *others)])
        entry = {"entry": float(one is not None and one[0] == 0)}
        mark = detect(attacked, [KEY])
        if mark is None:
            return {"found": 0.0, "id": 0.0, **entry}
        likeness = fingerprint.likeness(drawn, pixels.shape[:2], attacked, mark.placed)
        told = {} if likeness is None else {"likeness": likeness}
        return {"found": 1.0, "id": float(mark.payload == payload), **entry, **told}

    return marked, score


def package(method: str) -> Callable[[Pixels, int], tuple[Pixels, Score]]:
    """The package's own method; the score of an attacked copy: share of right bits."""
    from imwatermark import WatermarkDecoder, WatermarkEncoder

    def mark(pixels: Pixels, number: int) -> tuple[Pixels, Score]:
        bits = np.random.default_rng(number).integers(0, 2, PACKAGE_BITS).tolist()
        encoder = WatermarkEncoder()
        encoder.set_watermark("bits", bits)
        marked = encoder.encode(np.ascontiguousarray(pixels[..., ::-1]), method)

        def score(attacked: Pixels) -> dict[str, float]:
            bgr = np.ascontiguousarray(attacked[..., ::-1])
            read = WatermarkDecoder("bits", PACKAGE_BITS).decode(bgr, method)
            right = float(np.mean(np.asarray(read, int) == np.asarray(bits)))
            return {"bits": right, "all": float(right == 1.0)}

        return np.ascontiguousarray(marked[..., ::-1]), score

    return mark


def methods() -> Iterator[tuple[str, Callable[[Pixels, int], tuple[Pixels, Score]]]]:
    """Ours, and the package's two where it is installed."""
    yield "calotype", ours
    try:
        yield "dwtDct", package("dwtDct")
        yield "dwtDctSvd", package("dwtDctSvd")
    except ImportError:
        return


def attacks(folder: Path, most: int) -> Iterator[dict[str, Any]]:
    """One line for each method and attack: means over the folder's pictures."""
    paths = sorted(folder.glob("*.png"))[:most]
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    for name, mark in methods():
        start = time.process_time()
        try:
            made = [mark(pixels, 1000 + number) for number, pixels in enumerate(pictures)]
        except RuntimeError as error:  # the package refuses less than 256 x 256 pixels
            yield {"method": name, "failed": str(error)}
            continue
        embed_ms = (time.process_time() - start) * 1e3 / len(made)
        quality = np.mean([psnr(one, two[0]) for one, two in zip(pictures, made, strict=True)])
        told = {"folder": folder.name, "method": name, "pictures": len(made)}
        yield {**told, "psnr": round(float(quality), 1), "embed_cpu_ms": round(embed_ms, 1)}
        for attack, change in ATTACKS.items():
            scores = [score(change(marked)) for marked, score in made]
            names = sorted({key for each in scores for key in each})
            means = {
                key: round(float(np.mean([each[key] for each in scores if key in each])), 3)
                for key in names
            }
            least = min((each["likeness"] for each in scores if "likeness" in each), default=None)
            yield {**told, "attack": attack, **means, "likeness_least": least}


def unmarked(file: Path, first: int, count: int, how: str) -> dict[str, Any]:
    """How many of these unmarked pictures (N x height x width x 3) are called marked.

    ``how``: by the first look, with the search, or by the marks of twenty pictures of the log.
    """
    if file.name == "scenes":
        pictures: Any = scenes("unmarked", first, count)
    else:
        pictures = np.load(file, mmap_mode="r")[first : first + count]
    candidates = [(KEY, payload_for(number), 1.0) for number in range(CANDIDATES_MAX)]
    looks: dict[str, Callable[[Pixels], object]] = {
        "first": lambda pixels: detect(pixels, [KEY], search=False),
        "search": lambda pixels: detect(pixels, [KEY]),
        "confirm": lambda pixels: confirm(pixels, candidates),
    }
    found = sum(looks[how](np.array(pixels)) is not None for pixels in pictures)
    thresholds = {"direct": threshold(DIRECT, 1), "search": threshold(SEARCHED, 1)}
    return {"pictures": len(pictures), "look": how, "found": found, "thresholds": thresholds}


def scenes(name: str, first: int, count: int) -> list[Pixels]:
    """Scenes of the training renderer, 128 pixels."""
    from training.render import render
    from training.scenes import sample_scene

    seeds = range(first, first + count)
    return [render(sample_scene(Random(f"{name} {seed}")), 128) for seed in seeds]  # noqa: S311


# What is done to a picture before its likeness to its own sketch is asked, and its scale since.
CHANGES: dict[str, tuple[Callable[[Pixels], Pixels], float]] = {
    "jpeg 30": (ATTACKS["jpeg 30"], 1.0),
    "webp 50": (ATTACKS["webp 50"], 1.0),
    "resize 50 %": (ATTACKS["resize 50 %"], 0.5),
    "crop to 75 %": (ATTACKS["crop to 75 %"], 1.0),
    "crop to 50 %": (ATTACKS["crop to 50 %"], 1.0),
    "crop to 25 %": (ATTACKS["crop to 25 %"], 1.0),
    "noise 8": (ATTACKS["noise 8"], 1.0),
    "blur 1": (ATTACKS["blur 1"], 1.0),
    "brightness 1.3": (ATTACKS["brightness 1.3"], 1.0),
}
THRESHOLDS = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)


def likeness(count: int, others: int) -> Iterator[dict[str, Any]]:
    """How far apart a picture's likeness to its own sketch is from that of other pictures.

    Scenes of the training renderer, 128 pixels. For each change the share of ``count`` pictures
    below each threshold (called copied, wrongly); for pictures compared with the sketches of
    ``others`` others each the share that reaches it (a copied mark that isn't noticed).
    """
    pictures = scenes("likeness", 0, count)
    sketches = [fingerprint.sketch(pixels) for pixels in pictures]
    for name, (change, scale) in CHANGES.items():
        placed, own, foreign = Guess(0.0, scale), list[float](), list[float]()
        for at, pixels in enumerate(pictures):
            changed = np.ascontiguousarray(change(pixels))
            found = fingerprint.likeness(sketches[at], (128, 128), changed, placed)
            own += [] if found is None else [found]
            for step in range(1, others + 1):
                other = sketches[(at + 7 * step) % count]
                found = fingerprint.likeness(other, (128, 128), changed, placed)
                foreign += [] if found is None else [found]
        yield {
            "change": name,
            "own": len(own),
            "least": round(min(own), 4),
            "others": len(foreign),
            "most": round(max(foreign), 4),
            "own_below": {t: round(float(np.mean(np.array(own) < t)), 5) for t in THRESHOLDS},
            "others_reach": {
                t: round(float(np.mean(np.array(foreign) >= t)), 6) for t in THRESHOLDS
            },
        }


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("attacks")
    first.add_argument("folders", type=Path, nargs="+")
    first.add_argument("--most", type=int, default=50)
    second = commands.add_parser("unmarked")
    second.add_argument("file", type=Path)
    second.add_argument("--first", type=int, default=0)
    second.add_argument("--count", type=int, default=10_000)
    second.add_argument("--search", dest="how", action="store_const", const="search")
    second.add_argument("--confirm", dest="how", action="store_const", const="confirm")
    third = commands.add_parser("likeness")
    third.add_argument("--count", type=int, default=1_500)
    third.add_argument("--others", type=int, default=10)
    given = parser.parse_args()
    if given.command == "likeness":
        for line in likeness(given.count, given.others):
            print(json.dumps(line), flush=True)
        return
    if given.command == "attacks":
        for folder in given.folders:
            for line in attacks(folder, given.most):
                print(json.dumps(line), flush=True)
        return
    print(json.dumps(unmarked(given.file, given.first, given.count, given.how or "first")))


if __name__ == "__main__":
    main()
