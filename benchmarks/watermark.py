"""What our watermark survives, beside the `invisible-watermark` package, and how often it is wrong.

    python -m benchmarks.watermark attacks FOLDER_OF_PNGS...
    python -m benchmarks.watermark unmarked FILE.npy --first 0 --count 2500 [--search]

The package is measured where it can be imported (an environment of its own: `pip install
invisible-watermark`, MIT); else its columns are missing. Both get the same pictures and attacks;
ours carries 64 bits, the package 32. Prints JSON lines. Nothing here is part of Calotype.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from calotype.provenance import fingerprint
from calotype.provenance.detection import DIRECT, SEARCHED, detect, threshold
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


def ours(pixels: Pixels, number: int) -> tuple[Pixels, Score]:
    """Mark a picture; the score of an attacked copy: found, id right, fits its sketch."""
    marked, drawn = embed(pixels, number, KEY), fingerprint.sketch(pixels)

    def score(attacked: Pixels) -> dict[str, float]:
        mark = detect(np.ascontiguousarray(attacked), [KEY])
        if mark is None:
            return {"found": 0.0, "id": 0.0}
        likeness = fingerprint.likeness(drawn, pixels.shape[:2], attacked, mark.placed)
        told = {} if likeness is None else {"likeness": likeness}
        return {"found": 1.0, "id": float(mark.payload == number), **told}

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


def unmarked(file: Path, first: int, count: int, *, search: bool) -> dict[str, Any]:
    """How many of these unmarked pictures (N x height x width x 3) are called marked."""
    pictures = np.load(file, mmap_mode="r")[first : first + count]
    found = sum(detect(np.array(pixels), [KEY], search=search) is not None for pixels in pictures)
    thresholds = {"direct": threshold(DIRECT, 1), "search": threshold(SEARCHED, 1)}
    return {"pictures": len(pictures), "search": search, "found": found, "thresholds": thresholds}


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("attacks")
    first.add_argument("folders", type=Path, nargs="+")
    first.add_argument("--most", type=int, default=50)
    second = commands.add_parser("unmarked")
    second.add_argument("file", type=Path)
    second.add_argument("--first", type=int, default=0)
    second.add_argument("--count", type=int, default=10_000)
    second.add_argument("--search", action="store_true")
    given = parser.parse_args()
    if given.command == "attacks":
        for folder in given.folders:
            for line in attacks(folder, given.most):
                print(json.dumps(line), flush=True)
        return
    print(json.dumps(unmarked(given.file, given.first, given.count, search=given.search)))


if __name__ == "__main__":
    main()
