"""The pictures that the domain check learns from and is measured on: made once, then read.

Two splits: "learnt" and "held". Inside are renders and the model's own pictures (``insiders``).
Outside are ``outsiders``, unfinished denoising and latents that no picture has. An engine's check
sees what a decoder gives and nothing else, so all that is drawn goes through the model's
autoencoder first, as a picture does that somebody begins from. OWN, RENDERS and EACH in the
environment make it more, or less; all is kept in ``training/runs/domain``.
"""

from __future__ import annotations

import functools
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from torch.nn import functional

from calotype.engine.autoencoder import Autoencoder
from calotype.engine.checks.domain import SIDE, brought
from training import export, insiders, outsiders
from training.canvas import Picture
from training.dataset import scene_at
from training.render import render

SEED = 2026
RUNS = Path(__file__).parent / "runs" / "domain"


def count(name: str, usual: int) -> int:
    """How many, as the environment says."""
    return int(os.environ.get(name, usual))


RENDERS, OWN = count("RENDERS", 2000), count("OWN", 650)  # learnt: pictures
EACH = count("EACH", 600)  # learnt: pictures of each kind of outsider
HELD_OWN, HELD_RENDERS, HELD_EACH, BEGUN = 500, 400, 200, 100
FIRST = {"learnt": 0, "held": 10**7}  # seed of a split's own pictures, number of its scenes
CHUNK = 50  # own pictures that are made and kept at a time
AS_DRAWN = 0.25  # of what is drawn to be learnt from: not through the autoencoder
STRENGTHS = (0.1, 0.3, 0.5)  # of pictures that are begun from photographs, to measure
PIXELS_PER_LATENT = 8  # each way
NOISES = (0.03, 0.8)  # share of the clean latents' variance that is left in unfinished ones

Set = dict[str, Any]  # pictures (n, 128, 128, 3) by kind


def inner(split: str) -> Set:
    """Our own pictures by slice, and renders; brought to 128 x 128. Made once, then read."""
    found: dict[str, list[Picture]] = {"render": list(renders(split))}
    own = {"learnt": OWN, "held": HELD_OWN}[split]
    studio: insiders.Studio | None = None
    for number in range(own // CHUNK):
        path = RUNS / f"{split}-{number:03}.npz"
        if not path.exists():
            studio = studio or insiders.Studio()
            np.savez(path, allow_pickle=False, **chunk(studio, FIRST[split] + number))
            print(path.name, flush=True)
        for kind, pictures in _read(path).items():
            found.setdefault(kind, []).extend(pictures)
    return {kind: np.stack(pictures) for kind, pictures in found.items()}


def renders(split: str) -> NDArray[np.uint8]:
    """Scenes as the decoder gives them, when somebody begins from one; some as they were drawn."""
    path = RUNS / f"{split}-renders.npy"
    if not path.exists():
        of = "unseen" if split == "held" else "train"
        count = {"learnt": RENDERS, "held": HELD_RENDERS}[split]
        drawn = np.stack([render(scene_at(of, FIRST[split] + at), SIDE) for at in range(count)])
        np.save(path, _some_through(split, drawn))
        print(path.name, flush=True)
    found: NDArray[np.uint8] = np.load(path)
    return found


def chunk(studio: insiders.Studio, seed: int) -> Set:
    """CHUNK pictures of our own, by slice."""
    found: dict[str, list[Picture]] = defaultdict(list)
    for made in studio.own(CHUNK, seed=seed):
        found[made.slice].append(small(made.picture))
    return {kind: np.stack(pictures) for kind, pictures in found.items()}


def outer(split: str) -> Set:
    """Outsiders by kind, made once; the kinds that are held out are there to measure only."""
    path = RUNS / f"{split}-outside.npz"
    if not path.exists():
        rng = np.random.default_rng([SEED, split == "held"])
        is_learnt = split == "learnt"
        each, ours = EACH if is_learnt else HELD_EACH, renders(split)
        kinds = outsiders.LEARNT | ({} if is_learnt else outsiders.HELD_OUT)
        found: Set = {}
        for kind, draw in kinds.items():
            found[kind] = np.stack([draw(rng, SIDE, SIDE) for _ in range(each)])
        for kind, spoil in outsiders.SPOILT.items():
            found[kind] = np.stack([spoil(rng, ours[at % len(ours)]) for at in range(each)])
        found = {kind: _some_through(split, pictures) for kind, pictures in found.items()}
        np.savez(path, allow_pickle=False, **found, **latents_gone_wrong(rng, ours, each))
        print(path.name, flush=True)
    return _read(path)


def begun_from_photographs() -> Set:
    """What the engine makes of photographs, by strength: the more, the more of it is our own."""
    path = RUNS / "begun.npz"
    if not path.exists():
        rng, studio = np.random.default_rng([SEED, 2]), insiders.Studio()
        photographs = [outsiders.photographs(rng, SIDE, SIDE) for _ in range(BEGUN)]
        begun = {
            f"strength {strength:g}": np.stack(
                [made.picture for made in studio.begun(photographs, strength, SEED)]
            )
            for strength in STRENGTHS
        }
        np.savez(path, allow_pickle=False, **begun)
        print(path.name, flush=True)
    return _read(path)


def _some_through(split: str, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All as the decoder gives them; of those that are learnt from AS_DRAWN as they were drawn."""
    kept = round(len(pictures) * AS_DRAWN) if split == "learnt" else 0
    return np.concatenate((pictures[:kept], _through(pictures[kept:])))


@functools.cache
def _autoencoder() -> Autoencoder:
    vae = AutoencoderTiny.from_pretrained(export.MODEL / "vae").eval()
    return Autoencoder(vae, PIXELS_PER_LATENT)


@torch.inference_mode()
def _through(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the model's decoder makes of their latents."""
    autoencoder = _autoencoder()
    encoded = (autoencoder.encode(brought(picture), None) for picture in pictures)
    return np.stack([_pixels(autoencoder.decode(latents)[None]) for latents in encoded])


@torch.inference_mode()
def latents_gone_wrong(rng: np.random.Generator, ours: NDArray[np.uint8], each: int) -> Set:
    """What the decoder makes of latents that aren't done, and of those that no picture has."""
    autoencoder = _autoencoder()
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    found: dict[str, list[Picture]] = {"unfinished": [], "no picture's latents": []}
    for at in range(each):
        clean = autoencoder.encode(brought(ours[at % len(ours)]), None)
        noise = torch.randn(clean.shape, generator=generator)
        left = float(rng.uniform(*NOISES))
        unfinished = math.sqrt(left) * clean + math.sqrt(1 - left) * noise
        found["unfinished"].append(_pixels(autoencoder.decode(unfinished)[None]))
        size = int(rng.choice([2, 4, 8]))
        coarse = torch.randn((1, clean.shape[1], size, size), generator=generator)
        strange = functional.interpolate(coarse, clean.shape[-2:], mode="bilinear") * 1.5
        found["no picture's latents"].append(_pixels(autoencoder.decode(strange)[None]))
    return {kind: np.stack(pictures) for kind, pictures in found.items()}


def small(picture: Picture) -> Picture:
    """A picture of any size as the check sees it, in bytes again."""
    return _pixels(brought(picture))


def _pixels(floats: torch.Tensor) -> Picture:
    unit = (floats[0] * 0.5 + 0.5).clamp(0, 1) * 255
    found: Picture = unit.round().to(torch.uint8).movedim(0, -1).numpy()
    return found


def _read(path: Path) -> Set:
    with np.load(path) as file:
        return {kind: file[kind] for kind in file.files}
