"""Puts a picture in review into a home folder, as a server would, beside the one that may run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from calotype.core.nouns import ModelInfo, Sampler, Spec, Tier, Verdict, VerdictKind
from calotype.core.reviews import Review, Withheld
from calotype.delivery.formats import encode
from calotype.flow.finish import Raw
from calotype.flow.sealed import packed, sealed_parts
from calotype.jobs.store import JobStore
from calotype.provenance.manifest import Manifest
from calotype.settings import Settings
from tests.pictures import picture

SIDE = 128
UNSURE = Verdict(
    VerdictKind.REVIEW, "looks", "1", "violence", 0.42, "A person looks.", policy="pg13-1-abcd"
)
_MODEL = ModelInfo(
    name="vignette", family="sdxl", path="/nowhere", build="0" * 16, title="", licence="",
    parameter_bytes=1, width=SIDE, height=SIDE, size_px_min=64, size_px_max=256, steps=4,
    guidance=3.0, sampler=Sampler.DPMPP_2M,
)  # fmt: skip


async def hold_one(
    home: Path, prompt: str = "a tent by the sea", *, is_severe: bool = False, seed: int = 1
) -> Review:
    """A job whose one benign picture waits for people."""
    settings = Settings(home=home)
    pictures, _ = sealed_parts(settings)
    pixels = np.asarray(picture(SIDE, SIDE, seed).convert("RGB"))
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    spec = Spec(prompt, "", "vignette", SIDE, SIDE, 4, 3.0, Sampler.DPMPP_2M, seed, 1)
    store = await JobStore.open(settings.database)
    try:
        job = await store.insert("default", Tier.FAST, spec, user="asker")
        lease = await store.lease(job.id, "test")
        name = f"img_{job.id.partition('_')[2]}"
        manifest = Manifest.of(
            spec, _MODEL, image=name, index=0, calotype="test", torch="none", device="cpu",
            pixels_sha256="",
        )  # fmt: skip
        raw = Raw(pixels.tobytes(), SIDE, SIDE, {}, manifest)
        await pictures.seal(name, packed(raw, encode(pixels, "png")))
        kept = Withheld(0, name, UNSURE, digest, is_severe, name)
        await store.people.reviews.end(lease, [], [kept])
        [review] = await store.people.reviews.of_job(job.id)
    finally:
        await store.close()
    return review


async def key_for(home: Path, user: str, *scopes: str) -> str:
    """The secret of a new key."""
    store = await JobStore.open(Settings(home=home).database)
    try:
        _, secret = await store.create_key(tenant="staff", user=user, name=user, scopes=scopes)
    finally:
        await store.close()
    return secret
