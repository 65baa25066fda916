"""Trains the domain check: is a picture of what the embedded model has learnt, or of anything else?

    python -m training.domain

Renders and the model's own pictures (``insiders``) against outsiders (``outsiders``), unfinished
denoising and latents that no picture has. The threshold is set on pictures of our own that weren't
learnt from: OWN_REFUSED of them are refused at most. Weights and card are written if the check is
better than the one that ships, measured beside it on the same pictures. About a quarter of an hour
on a busy core, most of it for pictures, kept in ``training/runs/domain``; cut off, it goes
on after the last whole epoch. OWN, RENDERS, EACH and EPOCHS in the environment make it learn more.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional

from calotype.core.picture_checks import OUTSIDE
from calotype.engine.autoencoder import Autoencoder
from calotype.engine.checks.domain import SIDE, WEIGHTS, DomainNet, brought, read_net
from calotype.safety.evaluate import tally
from training import export, insiders, loop, outsiders
from training.dataset import scene_at
from training.outsiders import Picture
from training.render import render

SEED = 2026
FOLDER = export.MODEL.parent / "checks" / "vignette-domain"
RUNS = Path(__file__).parent / "runs" / "domain"
NET = RUNS / "net.safetensors"  # once it is trained
CARD = Path(__file__).parent / "cards" / "vignette-domain.md"
CHECKPOINT = RUNS / "net.pt"  # until then


def _count(name: str, usual: int) -> int:
    return int(os.environ.get(name, usual))


RENDERS, OWN = _count("RENDERS", 800), _count("OWN", 200)  # learnt: pictures
EACH = _count("EACH", 120)  # learnt: pictures of each kind of outsider
MEASURED_OWN, MEASURED_RENDERS, MEASURED = 150, 300, 100  # of ours a third set the threshold
CHUNK = 50  # own pictures that are made and kept at a time
OWN_REFUSED = 0.002  # of own pictures, at most, by the threshold ...
MARGIN = (
    3.0  # ... which is so much above, as logit: few pictures set it, and people wait for theirs
)
EPOCHS, BATCH, RATE = _count("EPOCHS", 8), 32, 2e-3
PIXELS_PER_LATENT = 8  # each way
NOISES = (0.03, 0.8)  # share of the clean latents' variance that is left in unfinished ones

Set = dict[str, Any]  # pictures (n, 128, 128, 3) by kind


def main() -> None:
    """Gather, train, set the threshold, measure, and write if it is better than what ships."""
    torch.manual_seed(SEED)
    net = DomainNet().eval()
    if not NET.exists():
        save_file(trained(*gathered("learnt", OWN, RENDERS, EACH), net).state_dict(), NET)
    net.load_state_dict(load_file(NET))
    held_in, held_out = gathered("held", MEASURED_OWN, MEASURED_RENDERS, MEASURED)
    setting = {kind: pictures[::3] for kind, pictures in held_in.items()}
    measured = {
        kind: pictures[np.arange(len(pictures)) % 3 > 0] for kind, pictures in held_in.items()
    }
    shift(net, setting)
    figures = {"inside refused": refused(net, measured), "outside refused": refused(net, held_out)}
    if (FOLDER / WEIGHTS).exists():
        shipped = read_net(FOLDER).eval()
        before = {kind: refused(shipped, some) for kind, some in (measured | held_out).items()}
        print(json.dumps({"shipped": before, "new": figures}, indent=2))
        if not is_better(figures, before):
            print("the one that ships is as good: it stays")
            return
    FOLDER.mkdir(parents=True, exist_ok=True)
    weights = {name: it.half().contiguous() for name, it in net.state_dict().items()}
    save_file(weights, FOLDER / WEIGHTS)
    (FOLDER / "calotype.json").write_text(json.dumps({"labels": [OUTSIDE]}) + "\n")
    (FOLDER / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n")
    text = card(figures, (FOLDER / WEIGHTS).stat().st_size)
    CARD.write_text(text, encoding="utf-8")
    (FOLDER / "README.md").write_text(text, encoding="utf-8")


def is_better(figures: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether no more of ours is refused, and more outsiders are, as a mean over their kinds."""
    inside, outside = figures["inside refused"], figures["outside refused"]

    def share(rows: dict[str, Any], kinds: Iterable[str]) -> float:
        return float(sum(rows[kind]["count"] / rows[kind]["of"] for kind in kinds))

    ours = sum(row["count"] for row in inside.values())
    return ours <= sum(before[kind]["count"] for kind in inside) and share(outside, outside) > (
        share(before, outside)
    )


def gathered(split: str, own: int, renders: int, each: int) -> tuple[Set, Set]:
    """Inside and outside, by kind; our own pictures are made once and then read."""
    RUNS.mkdir(parents=True, exist_ok=True)
    inside = inner(split, own, renders)
    return inside, outer(split, inside["render"], each)


def inner(split: str, own: int, renders: int) -> Set:
    """Our own pictures by slice, and renders; brought to 128 x 128."""
    found: dict[str, list[Picture]] = defaultdict(list)
    first = {"learnt": 0, "held": 10**7}[split]
    for at in range(renders):
        of = "unseen" if split == "held" else "train"
        found["render"].append(render(scene_at(of, first + at), SIDE))
    studio: insiders.Studio | None = None
    for number in range(own // CHUNK):
        path = RUNS / f"{split}-{number:03}.npz"
        if not path.exists():
            studio = studio or insiders.Studio()
            np.savez(path, allow_pickle=False, **chunk(studio, first + number))
            print(path.name, flush=True)
        for kind, pictures in _read(path).items():
            found[kind] += list(pictures)
    return {kind: np.stack(pictures) for kind, pictures in found.items()}


def chunk(studio: insiders.Studio, seed: int) -> Set:
    """CHUNK pictures of our own, by slice."""
    found: dict[str, list[Picture]] = defaultdict(list)
    for made in studio.own(CHUNK, seed=seed):
        found[made.slice].append(small(made.picture))
    return {kind: np.stack(pictures) for kind, pictures in found.items()}


def outer(split: str, ours: NDArray[np.uint8], each: int) -> Set:
    """Outsiders by kind; the kinds that are held out are there to measure only."""
    rng = np.random.default_rng([SEED, split == "held"])
    kinds = outsiders.LEARNT | (outsiders.HELD_OUT if split == "held" else {})
    found: Set = {
        kind: np.stack([draw(rng, SIDE, SIDE) for _ in range(each)]) for kind, draw in kinds.items()
    }
    for kind, spoil in outsiders.SPOILT.items():
        found[kind] = np.stack([spoil(rng, ours[at % len(ours)]) for at in range(each)])
    found |= decoded(rng, ours, 2 * each)
    return found


@torch.inference_mode()
def decoded(rng: np.random.Generator, ours: NDArray[np.uint8], count: int) -> Set:
    """What the model's decoder makes of latents that aren't done, and of those nothing has."""
    vae = AutoencoderTiny.from_pretrained(export.MODEL / "vae").eval()
    autoencoder = Autoencoder(vae, PIXELS_PER_LATENT)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    found: dict[str, list[Picture]] = {"unfinished": [], "no picture's latents": []}
    for at in range(count):
        clean = autoencoder.encode(brought(ours[at % len(ours)]), None)
        noise = torch.randn(clean.shape, generator=generator)
        left = float(rng.uniform(*NOISES))
        unfinished = math.sqrt(left) * clean + math.sqrt(1 - left) * noise
        found["unfinished"].append(_pixels(autoencoder.decode(unfinished)[None]))
        if at % 2:
            size = int(rng.choice([2, 4, 8]))
            coarse = torch.randn((1, clean.shape[1], size, size), generator=generator)
            strange = functional.interpolate(coarse, clean.shape[-2:], mode="bilinear") * 1.5
            found["no picture's latents"].append(_pixels(autoencoder.decode(strange)[None]))
    return {kind: np.stack(pictures) for kind, pictures in found.items()}


def trained(inside: Set, outside: Set, net: DomainNet) -> DomainNet:
    """The network after EPOCHS over both; classes are weighed evenly."""
    pictures = np.concatenate([*inside.values(), *outside.values()])
    counts = [sum(map(len, each.values())) for each in (inside, outside)]
    wanted = torch.cat((torch.zeros(counts[0]), torch.ones(counts[1])))
    weight = torch.where(wanted > 0, 1.0, counts[1] / counts[0])
    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.02)
    steps = EPOCHS * (len(pictures) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=0.1)
    first = 0
    if (kept := loop.load(CHECKPOINT)) is not None:
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        schedule.load_state_dict(kept["schedule"])
        first = kept["epochs"]
    for epoch in range(first, EPOCHS):
        rng = random.Random(f"{SEED} {epoch}")
        generator = torch.Generator().manual_seed(SEED + epoch)
        order, total = torch.randperm(len(pictures), generator=generator), 0.0
        for chosen in order[: steps // EPOCHS * BATCH].split(BATCH):
            batch = _floats(pictures[chosen.numpy()])
            if rng.random() < 0.5:
                batch = batch.flip(-1)
            loss = functional.binary_cross_entropy_with_logits(
                net(batch), wanted[chosen], weight[chosen]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch}: {total * BATCH / len(pictures):.4f}", flush=True)
        states = {"net": net, "optimiser": optimiser, "schedule": schedule}
        loop.save(
            {name: it.state_dict() for name, it in states.items()} | {"epochs": epoch + 1},
            CHECKPOINT,
        )
    net.eval()
    return net


def shift(net: DomainNet, inside: Set) -> None:
    """Set the bias so that at most OWN_REFUSED of own pictures are past 0, by MARGIN."""
    made = [pictures for kind, pictures in inside.items() if kind != "render"]
    own = torch.cat([logits(net, pictures) for pictures in made])
    limit = float(torch.quantile(own, 1 - OWN_REFUSED)) + MARGIN
    print(f"own pictures: {own.max():.2f} at most, threshold {limit:.2f}")
    with torch.no_grad():
        net.head.bias -= limit


def refused(net: DomainNet, pictures: Set) -> dict[str, Any]:
    """By kind: how many are refused."""
    return {
        kind: tally(int((logits(net, some) > 0).sum()), len(some))
        for kind, some in pictures.items()
    }


@torch.inference_mode()
def logits(net: DomainNet, pictures: NDArray[np.uint8]) -> torch.Tensor:
    """Of many pictures."""
    parts = [net(_floats(pictures[at : at + 256])) for at in range(0, len(pictures), 256)]
    return torch.cat(parts)


def small(picture: Picture) -> Picture:
    """A picture of any size as the check sees it, in bytes again."""
    return _pixels(brought(picture))


def _pixels(floats: torch.Tensor) -> Picture:
    unit = (floats[0] * 0.5 + 0.5).clamp(0, 1) * 255
    found: Picture = unit.round().to(torch.uint8).movedim(0, -1).numpy()
    return found


def _floats(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures).movedim(-1, 1).float() / 127.5 - 1


def _read(path: Path) -> Set:
    with np.load(path) as file:
        return {kind: file[kind] for kind in file.files}


def _table(rows: dict[str, Any], marked: dict[str, Any]) -> str:
    return "\n".join(
        f"| {kind.replace('_', ' ')}{' (never learnt)' if kind in marked else ''} | "
        f"{row['count']} of {row['of']} ({row['count'] / row['of']:.1%}; {row['low']:.1%} to "
        f"{row['high']:.1%}) |"
        for kind, row in rows.items()
    )


def card(figures: dict[str, Any], size: int) -> str:
    """What it learnt from, and how well it does."""
    return f"""# The domain check of vignette

Says whether a picture is of what vignette has learnt to draw (our renderer's scenes) or of
anything else, so that what comes out of the embedded model is what it was made for. A network of
five convolutions, {size / 1e3:.0f} KB of safetensors, that looks at pictures of 128 x 128 pixels;
larger ones are shrunk first. Made by `python -m training.domain`, which writes this page.

Learnt from {RENDERS:,} renders and {OWN:,} pictures of vignette's own (all sizes, samplers and
guidances, few steps, its LoRAs and its ControlNet, pictures to begin from, upscales, prompts it
never learnt) against {EACH} of each kind of outsider, and twice as many unfinished ones. Nothing
was fetched. The threshold is where at most {OWN_REFUSED:.1%} of {MEASURED_OWN // 3} of its own
pictures, none learnt from, would be refused, and {MARGIN:g} above as logit: set by so few pictures
alone it refused 6 of 100 others.

Inside, and refused all the same (false positives), with 95 % intervals by Wilson; renders are of
combinations that no trainer has seen:

| inside | refused |
|---|---|
{_table(figures["inside refused"], {})}

Outside, and refused, as they should be:

| outside | refused |
|---|---|
{_table(figures["outside refused"], outsiders.HELD_OUT)}

What it isn't: a judge of what a picture shows. A scene in the renderer's style with something
harmful in it, smaller than the third of the picture that "pasted" hides, can pass. The outsiders
are drawn by us, and the photographs are cut from two; pictures that people would send are wanting.
What a shrunk picture doesn't show, it doesn't see.
"""


if __name__ == "__main__":
    main()
