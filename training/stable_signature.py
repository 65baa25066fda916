"""Keep a decoder's mark of the embedded model for the tests, and measure it.

    python -m training.dataset --count 2000
    python -m training.dataset --split unseen --count 10000
    calotype watermark train vignette --pictures training/runs/data/train/00000.npy
    python -m training.stable_signature keep <home>/secrets/decoders/<key>
    python -m training.stable_signature measure tests/data/decoder_mark

``measure`` draws pictures nobody chose with the embedded model, decodes each set of latents with
the unmarked decoder and with the marked one, and writes ``figures.json`` and the card
``README.md`` into the mark's folder: PSNR and SSIM to the unmarked picture, bits that are right
after each attack of ``benchmarks.watermark``, false positives on pictures that have no mark, and
what little it takes to remove it. ``keep`` copies it, in half precision, to where tests and the
documentation have it. No mark ships: one whose key everybody has would prove nothing, and each
installation would look for it in every stranger's picture.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.watermark import ATTACKS, KEY, psnr
from calotype.provenance import stable_signature, stable_signature_keys
from calotype.provenance.stable_signature import DecoderMark
from calotype.provenance.watermark import embed
from training import dataset, evaluate, shapes
from training.autoencoder import to_bytes, to_floats
from training.export import MODEL

PICTURES = 24
UNMARKED = 10_000
SEARCHED = 300  # of them, in all looks
REMOVAL_STEPS = (25, 100)  # of fine-tuning without the mark's loss
_REMOVAL_BATCH, _REMOVAL_RATE = 4, 3e-4
CARD = Path(__file__).parent / "cards" / "vignette-mark.md"
KEPT = Path(__file__).parent.parent / "tests" / "data" / "decoder_mark"

Pixels = NDArray[np.uint8]  # (n, height, width, 3)


@torch.no_grad()
def latents_of(pipeline: Any, count: int) -> torch.Tensor:
    """What the model draws for its first held-out prompts, as its autoencoder has it."""
    texts, found = [ask.text for ask in evaluate.asks(count)], []
    for first in range(0, count, evaluate.ROWS):
        rows = texts[first : first + evaluate.ROWS]
        answer = pipeline(
            rows,
            num_inference_steps=evaluate.STEPS,
            guidance_scale=evaluate.GUIDANCE,
            height=shapes.PIXELS,
            width=shapes.PIXELS,
            generator=[torch.Generator().manual_seed(first + k) for k in range(len(rows))],
            output_type="latent",
        )
        found.append(answer.images / pipeline.vae.config.scaling_factor)
    return torch.cat(found)


@torch.no_grad()
def decoded(vae: Any, latents: torch.Tensor) -> Pixels:
    """Pictures as they are stored."""
    drawn = [vae.decode(some, return_dict=False)[0] for some in latents.split(8)]
    return to_bytes(torch.cat(drawn))


def marked_vae(vae: Any, mark: DecoderMark) -> Any:
    """The same autoencoder with the mark's decoder."""
    other = copy.deepcopy(vae)
    other.load_state_dict(load_file(mark.decoder), strict=False)
    return other


def ssim(one: Pixels, other: Pixels) -> float:
    """Structural similarity of two pictures' brightness, windows of 8 x 8 (Wang 2004)."""
    weights = np.array([0.299, 0.587, 0.114])
    windows = [
        np.lib.stride_tricks.sliding_window_view(each @ weights, (8, 8)) for each in (one, other)
    ]
    (mean_a, mean_b) = (each.mean((2, 3)) for each in windows)
    (var_a, var_b) = (each.var((2, 3)) for each in windows)
    both = (windows[0] * windows[1]).mean((2, 3)) - mean_a * mean_b
    small_mean, small_var = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    light = (2 * mean_a * mean_b + small_mean) / (mean_a**2 + mean_b**2 + small_mean)
    rest = (2 * both + small_var) / (var_a + var_b + small_var)
    return float((light * rest).mean())


def most_right(pixels: NDArray[np.uint8], mark: DecoderMark) -> int:
    """Of a mark's bits, in the best of the looks that ``find`` would take, as it would."""
    best = 0
    for views in (stable_signature.whole, stable_signature.cut):
        for seen in (pixels, pixels[:, ::-1]):
            looks = [stable_signature.right_bits(it, mark) for it in views(seen, mark)]
            best = max([best, *looks])
        if best >= stable_signature.needed(len(mark.bits)):
            break
    return best


def bits(pictures: Sequence[NDArray[np.uint8]], mark: DecoderMark) -> dict[str, float]:
    """The mean share of bits that are right in the best look, and the share that is found."""
    right = np.array([most_right(np.ascontiguousarray(it), mark) for it in pictures])
    count = len(mark.bits)
    return {
        "bits": round(float(right.mean()) / count, 3),
        "found": round(float((right >= stable_signature.needed(count)).mean()), 3),
    }


def attacks(marked: Pixels, mark: DecoderMark) -> dict[str, Any]:
    """By attack: of marked pictures, and of the same as delivered, with the tile, too."""
    delivered = [embed(pixels, 1000 + k, KEY) for k, pixels in enumerate(marked)]
    return {
        name: {
            "marked": bits([attack(it) for it in marked], mark),
            "delivered": bits([attack(it) for it in delivered], mark),
        }
        for name, attack in ATTACKS.items()
    }


def false_positives(pictures: Pixels, mark: DecoderMark) -> dict[str, Any]:
    """How many unmarked pictures seem marked, at FALSE_MAX and at laxer bounds, and the bits.

    One look at each, as it is; the first SEARCHED are looked at in all ways.
    """
    count = len(mark.bits)
    right = np.array([stable_signature.right_bits(pixels, mark) for pixels in pictures])
    found = {}
    for allowed in (stable_signature.FALSE_MAX, 1e-4, 1e-3, 1e-2):
        least = next(k for k in range(count + 2) if stable_signature.tail(k, count) <= allowed)
        told = stable_signature.tail(least, count)
        found[f"{allowed:g}"] = {
            "needed": least,
            "told": float(f"{told:.3g}"),
            "measured": float(f"{(right >= least).mean():.3g}"),
        }
    return {
        "pictures": len(pictures),
        "most_right": int(right.max()),
        "mean_right": round(float(right.mean()), 3),
        "deviation": round(float(right.std()), 3),
        "deviation_of_coins": round(float(np.sqrt(count) / 2), 3),
        "searched": len(pictures[:SEARCHED]),
        "in_all_looks": bits(list(pictures[:SEARCHED]), mark),
        "by_bound": found,
    }


def again(vae: Any, marked: Pixels, mark: DecoderMark) -> dict[str, float]:
    """Drawn again: encoded, and decoded by the unmarked decoder."""
    with torch.no_grad():
        latents = torch.cat([vae.encode(some).latents for some in to_floats(marked).split(8)])
    drawn = decoded(vae, latents)
    db = float(np.mean([psnr(one, two) for one, two in zip(marked, drawn, strict=True)]))
    return {**bits(list(drawn), mark), "psnr": round(db, 1)}


def removal(vae: Any, mark: DecoderMark, pictures: Pixels, latents: torch.Tensor) -> dict[str, Any]:
    """Fine-tune the marked decoder as anybody would who has its weights: to decode well."""
    other, generator = marked_vae(vae, mark), np.random.default_rng(0)
    weights = list(other.decoder.requires_grad_(True).parameters())
    optimiser = torch.optim.AdamW(weights, lr=_REMOVAL_RATE)
    found = {}
    for step in range(1, max(REMOVAL_STEPS) + 1):
        chosen = generator.choice(len(pictures), _REMOVAL_BATCH, replace=False)
        wanted = to_floats(pictures[np.sort(chosen)])
        with torch.no_grad():
            seen = other.encode(wanted).latents
        difference = other.decode(seen, return_dict=False)[0] - wanted
        (difference.abs().mean() + 2 * difference.square().mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
        if step in REMOVAL_STEPS:
            found[str(step)] = bits(list(decoded(other, latents)), mark)
    return found


def measure(folder: Path, unmarked: Pixels, count: int) -> dict[str, Any]:
    """All figures of a mark's folder."""
    pipeline = evaluate.load_pipeline(MODEL)
    vae = pipeline.vae.requires_grad_(False).eval()
    mark = stable_signature_keys.read(folder)
    latents = latents_of(pipeline, count)
    plain, marked = decoded(vae, latents), decoded(marked_vae(vae, mark), latents)
    pairs = list(zip(plain, marked, strict=True))
    return {
        "key": mark.key,
        "model_sha256": evaluate.weights_digest(MODEL),
        "bits": len(mark.bits),
        "needed": stable_signature.needed(len(mark.bits)),
        "pictures": count,
        "psnr": round(float(np.mean([psnr(*pair) for pair in pairs])), 2),
        "psnr_least": round(min(psnr(*pair) for pair in pairs), 2),
        "ssim": round(float(np.mean([ssim(*pair) for pair in pairs])), 4),
        "attacks": attacks(marked, mark),
        "unmarked_renders": false_positives(unmarked, mark),
        "unmarked_own": false_positives(plain, mark),
        "drawn_again": again(vae, marked, mark),
        "fine_tuned": removal(vae, mark, unmarked[:500], latents),
    }


def card(figures: Mapping[str, Any]) -> str:
    """The card, in Markdown."""
    rows = [
        f"| {name} | {it['marked']['bits']:.1%} | {it['marked']['found']:.0%} | "
        f"{it['delivered']['bits']:.1%} | {it['delivered']['found']:.0%} |"
        for name, it in figures["attacks"].items()
    ]
    false = figures["unmarked_renders"]
    bounds = [
        f"| {bound} | {it['needed']} | {it['told']:.2g} | {it['measured']:.2g} |"
        for bound, it in false["by_bound"].items()
    ]
    tuned = [
        f"{steps} steps leave {it['bits']:.1%} of bits right and {it['found']:.0%} of marks found"
        for steps, it in figures["fine_tuned"].items()
    ]
    return CARD.read_text().format(
        **{key: value for key, value in figures.items() if not isinstance(value, dict)},
        attacks="\n".join(rows),
        bounds="\n".join(bounds),
        unmarked=f"{false['pictures']:,}",
        mean_right=false["mean_right"],
        deviation=false["deviation"],
        deviation_of_coins=false["deviation_of_coins"],
        most_right=false["most_right"],
        searched=false["searched"],
        searched_bits=f"{false['in_all_looks']['bits']:.1%}",
        searched_found=f"{false['in_all_looks']['found']:.1%}",
        own_deviation=figures["unmarked_own"]["deviation"],
        again_bits=f"{figures['drawn_again']['bits']:.1%}",
        again_found=f"{figures['drawn_again']['found']:.0%}",
        again_psnr=figures["drawn_again"]["psnr"],
        fine_tuned="; ".join(tuned),
    )


def kept(folder: Path, target: Path) -> DecoderMark:
    """Copy a mark in half precision; the copy, whose key has an id of its own."""
    mark = stable_signature_keys.read(folder)
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        for file in (stable_signature_keys.EXTRACTOR, stable_signature_keys.DECODER):
            with safe_open(folder / file, "pt") as opened:
                halves = {key: opened.get_tensor(key).half() for key in opened.keys()}  # noqa: SIM118
                save_file(halves, run / file, opened.metadata())
        copied = stable_signature_keys.keep(
            run / "kept",
            run,
            mark.bits,
            made_for=mark.made_for,
            made_at=datetime.fromisoformat(mark.made_at),
            drawn_px=mark.drawn_px,
        )
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run / "kept" / copied.key, target)
    return stable_signature_keys.read(target)


def main() -> None:
    """Measure a mark, or keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("measure", "keep"))
    parser.add_argument("folder", type=Path, help="of the mark")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--unmarked", type=int, default=UNMARKED, help="renders without a mark")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.do == "keep":
        print(kept(given.folder, KEPT).key)
        return
    renders = dataset.Pictures("unseen")
    chosen = renders.batch(list(range(min(given.unmarked, len(renders)))))
    figures = measure(given.folder, chosen, given.pictures)
    (given.folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (given.folder / "README.md").write_text(card(figures))
    print(json.dumps({k: v for k, v in figures.items() if k != "attacks"}, indent=1))


if __name__ == "__main__":
    main()
