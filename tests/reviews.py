"""Puts a picture in review into a home folder, as a server would, beside the one that may run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calotype.core.nouns import Image, Job, ModelInfo, Sampler, Spec, Tier, Verdict, VerdictKind
from calotype.core.reviews import Review, Withheld
from calotype.delivery.formats import encode
from calotype.flow.finish import Raw
from calotype.flow.sealed import Sealed, packed, sealed_parts
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


async def of_job(store: JobStore, job: Job) -> list[Review]:
    """A job's reviews, in its order."""
    every = await store.people.reviews.list(is_open=False, most=1_000)
    return sorted((it for it in every if it.job_id == job.id), key=lambda it: it.index)


async def hold(
    store: JobStore, sealed: Sealed, pixels: NDArray[np.uint8], *, spec: Spec | None = None,
    verdict: Verdict = UNSURE, is_severe: bool = False,
) -> Review:  # fmt: skip
    """A job whose one picture waits for people."""
    height, width, _ = pixels.shape
    spec = spec or spec_of("a tent by the sea")
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    job = await store.insert("default", Tier.FAST, spec, user="asker")
    lease = await store.lease(job.id, "test")
    name = f"img_{job.id.partition('_')[2]}"
    manifest = Manifest.of(
        spec, _MODEL, image=name, index=0, calotype="test", torch="none", device="cpu",
        pixels_sha256="",
    )  # fmt: skip
    raw = Raw(pixels.tobytes(), width, height, {}, manifest)
    await sealed.seal(name, packed(raw, encode(pixels, "png")))
    kept = Withheld(0, name, verdict, digest, is_severe, name)
    await store.people.reviews.end(lease, [], [kept])
    [review] = await of_job(store, job)
    return review


def made_ready(review: Review) -> Image:
    """A picture as it is delivered once people allow it; it has no files."""
    verdict = Verdict(VerdictKind.ALLOW, "people", "1", policy=review.policy)
    return Image(
        review.image, review.index, 7, 64, 128, "a" * 64, review.pixels_sha256, ("png",),
        verdict=verdict,
    )  # fmt: skip


def spec_of(prompt: str, seed: int = 1) -> Spec:
    return Spec(prompt, "", "vignette", SIDE, SIDE, 4, 3.0, Sampler.DPMPP_2M, seed, 1)


async def hold_one(
    home: Path, prompt: str = "a tent by the sea", *, is_severe: bool = False, seed: int = 1
) -> Review:
    """The same in a home folder, of a benign picture."""
    settings = Settings(home=home)
    sealed, _ = sealed_parts(settings)
    pixels = np.asarray(picture(SIDE, SIDE, seed).convert("RGB"))
    store = await JobStore.open(settings.database)
    try:
        spec = spec_of(prompt, seed)
        return await hold(store, sealed, pixels, spec=spec, is_severe=is_severe)
    finally:
        await store.close()


async def key_for(home: Path, user: str, *scopes: str) -> str:
    """The secret of a new key."""
    store = await JobStore.open(Settings(home=home).database)
    try:
        _, secret = await store.create_key(tenant="staff", user=user, name=user, scopes=scopes)
    finally:
        await store.close()
    return secret
