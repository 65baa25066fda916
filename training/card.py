"""Write the model's card: what ``vignette`` is, how it was made, what it was measured to do.

``python -m training.card`` writes into the model's folder ``README.md``, ``samples.webp`` (64
pictures nobody chose, beside 64 renders of the same scenes), ``calotype.json`` (how the platform
runs the model) and ``training.json`` (how long each part was trained, read from the checkpoints
in ``training/runs`` where there are any, else kept as it was). Figures come from
``evaluation.json``; it refuses one that was measured on other weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from training import adapters_card, captions, classifier, evaluate, export, loop, scenes, shapes
from training.dataset import Pictures
from training.preview import grid

RUNS = Path(__file__).parent / "runs"
SAMPLES = 64  # pictures, eight in a row
GAP = 24  # pixels between the model's and the renderer's
QUALITY = 88  # of samples.webp
PARTS = {  # name in the card: the trainer's checkpoint, pictures or captions in a step
    "text encoders": RUNS / "text" / "state.pt",
    "autoencoder": RUNS / "ae" / "checkpoint.pt",
    "UNet": RUNS / "unet" / "checkpoint.pt",
}
CALOTYPE = {
    "title": "Vignette",
    "domain": "vignette-domain",
    "licence": "Apache-2.0",
    "width": shapes.PIXELS,
    "height": shapes.PIXELS,
    "size_px_min": 64,
    "size_px_max": 256,
    "steps": evaluate.STEPS,
    "guidance": evaluate.GUIDANCE,
    "sampler": "dpmpp_2m",
}
EXAMPLE = "a cosy scarlet cottage on the right under a starry night, snowy hills"
TEMPLATE = Path(__file__).parent / "card.md"  # braces are filled in by ``text``


def training_facts(folder: Path) -> dict[str, Any]:
    """How the parts were trained: what checkpoints tell, over what ``training.json`` had.

    A part of which neither tells, since it was trained elsewhere, has None for both figures.
    """
    path = folder / "training.json"
    facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, checkpoint in PARTS.items():
        saved = loop.load(checkpoint)
        if saved is not None:
            spent_s = saved["spent_s"] if "spent_s" in saved else saved["elapsed_s"]
            steps = saved["step"] if "step" in saved else saved["steps"]
            facts[name] = {"minutes": round(spent_s / 60), "steps": steps}
        facts.setdefault(name, {"minutes": None, "steps": None})
    try:
        facts["pictures"] = len(Pictures("train"))
    except FileNotFoundError:
        if "pictures" not in facts:
            raise
    path.write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def measured(folder: Path) -> dict[str, Any]:
    """``evaluation.json``; raises ValueError if it was measured on other weights."""
    report: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    if report["model_sha256"] != evaluate.weights_digest(folder):
        raise ValueError("evaluation.json is of other weights: run training.evaluate again")
    return report


def parameters(folder: Path) -> int:
    """How many numbers the weights of ``folder`` are."""
    count = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "np") as file:
            count += sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())  # noqa: SIM118 - no dict
    return count


def _table_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _training_row(name: str, fact: dict[str, int | None]) -> str:
    told = ["not recorded" if fact[key] is None else f"{fact[key]:,}" for key in fact]
    return _table_row([name, *told])


def _percentages(row: dict[str, Any]) -> list[str]:
    return [f"{100 * row[name]:.1f}" for name in evaluate.HEADINGS]


def _verdict(report: dict[str, Any]) -> str:
    wanted = ", ".join(
        f"{evaluate.HEADINGS[name]} {100 * share:.0f} %" for name, share in evaluate.WANTED.items()
    )
    short = evaluate.shortfalls(report)
    end = f"It falls short in: {'; '.join(short)}." if short else "All of them are reached."
    return f"Wanted at the defaults: {wanted}. {end}"


def _words() -> str:
    """The scene's nouns as rows of a table."""
    rows = {
        "time of day": scenes.TIMES,
        "weather": scenes.WEATHERS,
        "season": scenes.SEASONS,
        "terrain": scenes.TERRAINS,
        "light in the sky": scenes.LIGHTS[1:],
        "objects (one or two)": scenes.OBJECTS,
        "their colours": scenes.COLOURS,
        "their places": scenes.PLACES,
    }
    return "\n".join(_table_row([name, ", ".join(values)]) for name, values in rows.items())


def _data(facts: dict[str, Any]) -> str:
    """The first sentence on the data."""
    return f"{facts['pictures']:,} pictures, a fresh caption for each at every step."


def text(folder: Path, report: dict[str, Any], facts: dict[str, Any], hardware: str) -> str:
    """The card, in Markdown."""
    rows = [
        _table_row([str(row["steps"]), f"{row['guidance']:g}", *_percentages(row)])
        for row in report["rows"]
    ]
    rows.append(_table_row(["renders", "", *_percentages(report["judge_on_renders"])]))
    headings = ["steps", "guidance", *evaluate.HEADINGS.values()]
    config = json.loads((folder / "vae" / "config.json").read_text())
    side, judge = shapes.LATENT_SIDE, classifier.header()
    return TEMPLATE.read_text().format(
        weights_mib=export.weights_bytes(folder) / 2**20,
        parameters_m=parameters(folder) / 1e6,
        pixels=shapes.PIXELS,
        example=EXAMPLE,
        steps=evaluate.STEPS,
        guidance=f"{evaluate.GUIDANCE:g}",
        words=_words(),
        data=_data(facts),
        hardware=hardware,
        training="\n".join(_training_row(name, facts[name]) for name in PARTS),
        latents=f"{side} x {side} x {config['latent_channels']}",
        count=report["pictures"],
        last=report["pictures"] - 1,
        headings=" | ".join(headings),
        rules="|".join("---:" for _ in headings),
        rows="\n".join(rows),
        judge=classifier.in_words({name: judge[name] for name in classifier.GROUPS}),
        verdict=_verdict(report),
        adapters=adapters_card.listed(),
        negative=report["negative_prompt"],
        tokens=export.tokenizer(folder).model_max_length,
        words_max=captions.WORDS_MAX,
        minutes_ae=facts["autoencoder"]["minutes"],
        minutes_unet=facts["UNet"]["minutes"],
        pictures=facts["pictures"],
    )


def samples(folder: Path) -> Image.Image:
    """The model's pictures at the left, the renderer's of the same scenes at the right."""
    wanted = evaluate.asks(SAMPLES)
    pipeline = evaluate.load_pipeline(folder)
    drawn = grid(evaluate.draw(pipeline, [ask.text for ask in wanted]), 8)
    rendered = grid(evaluate.renders(wanted), 8)
    sheet = Image.new("RGB", (drawn.width + GAP + rendered.width, drawn.height), "white")
    sheet.paste(drawn, (0, 0))
    sheet.paste(rendered, (drawn.width + GAP, 0))
    return sheet


def main() -> None:
    """Write the card from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=export.MODEL)
    parser.add_argument("--hardware", default="2 cores of an AMD EPYC, shared with other work")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.folder
    (folder / "calotype.json").write_text(json.dumps(CALOTYPE, indent=2) + "\n")
    report, facts = measured(folder), training_facts(folder)
    (folder / "README.md").write_text(text(folder, report, facts, arguments.hardware))
    samples(folder).save(folder / "samples.webp", quality=QUALITY, method=6)
    print(_verdict(report))


if __name__ == "__main__":
    main()
