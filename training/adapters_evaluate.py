"""Measure vignette's adapters in the unmodified diffusers.

``python -m training.adapters_evaluate [lcm cyanotype edges]`` draws the same held-out combinations
as ``training.evaluate``, with the same seeds, and writes ``evaluation.json`` into the folder of
each adapter. What the judge reads of the pictures is measured for all of them; besides it

- of the LCM-LoRA, how strong contrasts are beside those of vignette's own pictures: a distillation
  that fails fades;
- of the style, how far a pixel's colour is from the cyanotype's own colours, in levels of 0..255,
  and how well contours are where the same seed has them without the style;
- of the ControlNet, how well the edges of the picture follow the asked ones.

Agreement of edges is the F1 of ``canny``'s maps, a pixel counting as found where the other map has
one at most one pixel away (as in the tolerance of Martin et al. 2004, IEEE PAMI 26(5)).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, LCMScheduler, StableDiffusionXLControlNetPipeline

from calotype.engine.canny import canny
from training import adapters, classifier, evaluate, export, shapes
from training.adapters import CYANOTYPE, EDGES, LCM, Adapter
from training.cyanotype import coloured, cyanotype
from training.edges import condition

COUNTS = {LCM.name: 200, CYANOTYPE.name: 100, EDGES.name: 60}  # pictures of each row
WEIGHTS = (0.0, 0.5, 1.0)  # of the style
LCM_STEPS = (4, 2, 8)
SCALES = (1.0,)  # of the ControlNet


def digests(adapter: Adapter) -> dict[str, str]:
    """Which weights are measured: the adapter's and those of the model under it."""
    return {
        "model_sha256": evaluate.weights_digest(export.MODEL),
        "adapter_sha256": evaluate.weights_digest(adapter.folder),
    }


def judged(pictures: np.ndarray, wanted: Sequence[evaluate.Ask]) -> dict[str, float]:
    """What the judge reads: shares right, 0 to 1."""
    return evaluate.judged(classifier.load(), pictures, wanted)


def contrast(pictures: np.ndarray) -> float:
    """The mean deviation of brightness within a picture, in levels of 0..255."""
    return float((pictures @ np.array([0.299, 0.587, 0.114])).std(axis=(1, 2)).mean())


def off_colour(pictures: np.ndarray) -> float:
    """The mean distance of a pixel's colour from the cyanotype's colours, 0..441."""
    known = coloured(np.linspace(0, 1, 64)[:, None])  # (64, 3)
    pixels = torch.from_numpy(pictures[:, ::2, ::2].reshape(-1, 3)).float()
    return float(torch.cdist(pixels, torch.from_numpy(known).float()).amin(1).mean())


def _widened(edges: np.ndarray) -> np.ndarray:
    """A map (h, w) of 0 and 1 with all pixels beside its own."""
    framed = np.pad(edges, 1)
    height, width = edges.shape
    moved = [framed[a : a + height, b : b + width] for a in range(3) for b in range(3)]
    found: np.ndarray = np.maximum.reduce(moved)
    return found


def agreement(found: np.ndarray, asked: np.ndarray) -> float:
    """F1 of edge maps (h, w), 0 for none, with a tolerance of one pixel: 0 to 1."""
    first, second = found > 0, asked > 0
    if not first.any() or not second.any():
        return float(first.any() == second.any())
    precision = (first & _widened(second)).sum() / first.sum()
    recall = (second & _widened(first)).sum() / second.sum()
    return float(2 * precision * recall / max(1e-9, precision + recall))


def mean_agreement(pictures: np.ndarray, maps: np.ndarray) -> float:
    """The mean ``agreement`` of pictures' edges with these maps."""
    pairs = zip(pictures, maps, strict=True)
    return float(np.mean([agreement(canny(picture), asked) for picture, asked in pairs]))


def load_adapted(adapter: Adapter, weight: float = 1.0) -> Any:
    """Vignette with a LoRA, as diffusers and peft load it, added to the weights."""
    pipeline = evaluate.load_pipeline(export.MODEL)
    pipeline.load_lora_weights(adapter.folder, weight_name="lora.safetensors")
    pipeline.fuse_lora(lora_scale=weight)
    return pipeline


def with_lcm(pipeline: Any) -> Any:
    """The same pipeline with the consistency sampler."""
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def of_lcm(count: int) -> dict[str, Any]:
    """Rows with and without the LCM-LoRA; those of the usual sampler are in vignette's own report.

    Those are of 500 pictures, of which these are the first.
    """
    wanted = evaluate.asks(count)
    texts = [ask.text for ask in wanted]
    known = json.loads((export.MODEL / "evaluation.json").read_text())
    usual = {row["steps"]: row for row in known["rows"] if row["guidance"] == evaluate.GUIDANCE}
    rows = [{"sampler": known["sampler"], "lora": False, **usual[steps]} for steps in (30, 4)]
    sampled = with_lcm(evaluate.load_pipeline(export.MODEL))
    adapted = with_lcm(load_adapted(LCM))
    runs = [(False, 4, sampled), *((True, steps, adapted) for steps in LCM_STEPS)]
    for has_lora, steps, pipeline in runs:
        pictures = evaluate.draw(pipeline, texts, steps=steps, guidance=1.0)
        row: dict[str, Any] = {"sampler": "lcm", "lora": has_lora, "steps": steps, "guidance": 1.0}
        row |= judged(pictures, wanted) | {"contrast": round(contrast(pictures), 2)}
        print(row, flush=True)
        rows.append(row)
    return {"rows": rows, "contrast_of_renders": round(contrast(evaluate.renders(wanted)), 2)}


def of_cyanotype(count: int) -> dict[str, Any]:
    """Rows for weights of the style, and one for renders that were redrawn."""
    wanted = evaluate.asks(count)
    texts = [ask.text for ask in wanted]
    rows = []
    maps = None
    for weight in WEIGHTS:
        pictures = evaluate.draw(load_adapted(CYANOTYPE, weight), texts)
        if maps is None:
            maps = np.stack([canny(picture) for picture in pictures])
        row: dict[str, Any] = {"weight": weight, "off_colour": round(off_colour(pictures), 2)}
        row |= {"kept_edges": round(mean_agreement(pictures, maps), 4)} | judged(pictures, wanted)
        print(row, flush=True)
        rows.append(row)
    redrawn = np.stack([cyanotype(picture) for picture in evaluate.renders(wanted)])
    reference = {"off_colour": round(off_colour(redrawn), 2)} | judged(redrawn, wanted)
    return {"rows": rows, "renders_redrawn": reference}


@torch.no_grad()
def draw_edges(
    pipeline: Any, texts: Sequence[str], maps: np.ndarray, *, scale: float = 1.0, steps: int = 20
) -> np.ndarray:
    """Draw text k along map k, (n, 128, 128), with seed k: uint8 (n, 128, 128, 3)."""
    drawn = []
    for first in range(0, len(texts), evaluate.ROWS):
        rows = list(texts[first : first + evaluate.ROWS])
        answer = pipeline(
            rows,
            image=condition(maps[first : first + len(rows)]),
            controlnet_conditioning_scale=scale,
            num_inference_steps=steps,
            guidance_scale=evaluate.GUIDANCE,
            height=shapes.PIXELS,
            width=shapes.PIXELS,
            generator=[torch.Generator().manual_seed(first + k) for k in range(len(rows))],
            output_type="np",
        )
        drawn.append(np.rint(255 * np.asarray(answer.images)).astype(np.uint8))
    return np.concatenate(drawn)


def load_controlled(folder: Path = EDGES.folder) -> Any:
    """Vignette with the ControlNet, as diffusers loads both, in fp32."""
    network = ControlNetModel.from_pretrained(folder)
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(export.MODEL, controlnet=network)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def of_edges(count: int) -> dict[str, Any]:
    """Rows with and without the ControlNet, for the edges of renders of the same scenes."""
    wanted = evaluate.asks(count)
    texts = [ask.text for ask in wanted]
    maps = np.stack([canny(picture) for picture in evaluate.renders(wanted)])
    plain = evaluate.draw(evaluate.load_pipeline(export.MODEL), texts)
    controlled = load_controlled()
    runs = [("full", 0.0, plain)]
    runs += [("full", scale, draw_edges(controlled, texts, maps, scale=scale)) for scale in SCALES]
    runs += [("none", 1.0, draw_edges(controlled, [""] * count, maps))]
    rows = []
    for told, scale, pictures in runs:
        row: dict[str, Any] = {"text": told, "scale": scale}
        row |= {"agreement": round(mean_agreement(pictures, maps), 4)} | judged(pictures, wanted)
        print(row, flush=True)
        rows.append(row)
    return {"rows": rows}


MEASURES = {LCM.name: of_lcm, CYANOTYPE.name: of_cyanotype, EDGES.name: of_edges}


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(MEASURES), help="of adapters; all")
    parser.add_argument("--count", type=int, help="pictures of a row; fewer are not kept")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for adapter in adapters.ALL:
        if adapter.name not in arguments.names:
            continue
        count = arguments.count or COUNTS[adapter.name]
        report = {**digests(adapter), "pictures": count, **MEASURES[adapter.name](count)}
        if count >= COUNTS[adapter.name]:  # a quick look is not the record
            path = adapter.folder / "evaluation.json"
            path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
