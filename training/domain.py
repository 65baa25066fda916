"""Trains the domain check: is a picture of what the embedded model has learnt, or of anything else?

    python -m training.domain

On the pictures of ``domain_pictures``. The threshold is set on pictures of our own that weren't
learnt from: OWN_REFUSED of them are refused at most. Weights and card are written if the check is
better than the one that ships, measured beside it on the same pictures. About half an hour on two
cores, most of it for pictures; cut off, it goes on after the last whole epoch. EPOCHS in the
environment makes it learn longer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional

from calotype.core.picture_checks import OUTSIDE
from calotype.engine.checks.domain import WEIGHTS, DomainNet, read_net
from calotype.safety.evaluate import tally
from training import domain_pictures as sets
from training import export, loop, outsiders
from training.domain_pictures import RUNS, SEED, Set, count

FOLDER = export.MODEL.parent / "checks" / "vignette-domain"
NET = RUNS / "net.safetensors"  # once it is trained
CARD = Path(__file__).parent / "cards" / "vignette-domain.md"
CHECKPOINT = RUNS / "net.pt"  # until then
OWN_REFUSED = 0.01  # of own pictures, at most, by the threshold ...
OWN_REFUSED_MAX = 0.02  # ... and of others that it is measured on
OWN_WEIGHT = 3.0  # of an own picture, beside a render
EPOCHS, BATCH, RATE = count("EPOCHS", 12), 32, 2e-3


def main() -> None:
    """Gather, train, set the threshold, measure, and write if it is better than what ships."""
    torch.manual_seed(SEED)
    RUNS.mkdir(parents=True, exist_ok=True)
    net = DomainNet().eval()
    if not NET.exists():
        save_file(trained(sets.inner("learnt"), sets.outer("learnt"), net).state_dict(), NET)
    net.load_state_dict(load_file(NET))
    held_in, held_out, begun = sets.inner("held"), sets.outer("held"), sets.begun_from_photographs()
    shift(net, {kind: pictures[::2] for kind, pictures in held_in.items()})
    measured = {kind: pictures[1::2] for kind, pictures in held_in.items()}
    figures = {
        "inside refused": refused(net, measured),
        "outside refused": refused(net, held_out),
        "begun from photographs": refused(net, begun),
    }
    if (FOLDER / WEIGHTS).exists():
        shipped = read_net(FOLDER).eval()
        before = refused(shipped, measured | held_out | begun)
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
    """Whether more outsiders are refused, as a mean over their kinds, at no cost to ours.

    That is: no more of ours than before, or OWN_REFUSED_MAX of them at most.
    """
    inside, outside = figures["inside refused"], figures["outside refused"]

    def share(rows: dict[str, Any], kinds: Iterable[str]) -> float:
        return float(sum(rows[kind]["count"] / rows[kind]["of"] for kind in kinds))

    ours, of = (sum(row[what] for row in inside.values()) for what in ("count", "of"))
    most = max(OWN_REFUSED_MAX * of, sum(before[kind]["count"] for kind in inside))
    return ours <= most and share(outside, outside) > share(before, outside)


def trained(inside: Set, outside: Set, net: DomainNet) -> DomainNet:
    """The network after EPOCHS over both; classes are weighed evenly."""
    pictures = np.concatenate([*inside.values(), *outside.values()])
    ours = torch.cat([torch.full((len(some),), _weight_of(kind)) for kind, some in inside.items()])
    others = torch.ones(len(pictures) - len(ours))
    wanted = torch.cat((torch.zeros_like(ours), others))
    weight = torch.cat((ours * (others.sum() / ours.sum()), others))
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


def _weight_of(kind: str) -> float:
    return 1.0 if kind == "render" else OWN_WEIGHT


def shift(net: DomainNet, inside: Set) -> None:
    """Set the bias so that at most OWN_REFUSED of own pictures are past 0."""
    made = [pictures for kind, pictures in inside.items() if kind != "render"]
    own = torch.cat([logits(net, pictures) for pictures in made])
    limit = float(torch.quantile(own, 1 - OWN_REFUSED))
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


def _floats(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures).movedim(-1, 1).float() / 127.5 - 1


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

Learnt from {sets.RENDERS:,} renders and {sets.OWN:,} pictures of vignette's own (all sizes,
samplers and guidances, few steps, its LoRAs and its ControlNet, pictures to begin from, upscales,
prompts it never learnt) against {sets.EACH} of each kind of outsider. Nothing was fetched. The
check sees what vignette's decoder gives, and nothing else; so renders and outsiders went through
its autoencoder first, but for {sets.AS_DRAWN:.0%} of those that were learnt from. The threshold is
where at most {OWN_REFUSED:.0%} of {sets.HELD_OWN // 2} of its own pictures, none learnt from, would
be refused.

Inside, and refused all the same (false positives), with 95 % intervals by Wilson; renders are of
combinations that no trainer has seen:

| inside | refused |
|---|---|
{_table(figures["inside refused"], {})}

Outside, and refused, as they should be:

| outside | refused |
|---|---|
{_table(figures["outside refused"], outsiders.HELD_OUT)}

What the engine makes of photographs (20 steps). The more strength, the less is left of them: at 0.5
it is mostly a scene of vignette's own, which should pass.

| begun from photographs, at | refused |
|---|---|
{_table(figures["begun from photographs"], {})}

What it isn't: a judge of what a picture shows. A scene in the renderer's style with something
harmful in it, smaller than the third of the picture that "pasted" hides, can pass. The outsiders
are drawn by us, and the photographs are cut from two (a part of them is plain sky); pictures that
people would send are wanting. What a shrunk picture doesn't show, it doesn't see.
"""


if __name__ == "__main__":
    main()
