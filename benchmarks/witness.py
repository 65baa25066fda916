"""Many pictures, each looked at again: ``python -m benchmarks.witness [COUNT] [--engine]``.

Scenes of the training renderer are judged, marked, encoded and signed by the finishing processes as
any picture is, logged and recorded. With ``--engine`` the whole platform makes them: jobs through
the line, drawn by the embedded model, small and in few steps. Then each file has to be ours and
unchanged, and the same file with one bit of one byte changed, anywhere, mustn't be.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from calotype.core.ids import new_id
from calotype.core.nouns import Ask, Job, Key
from calotype.flow.examine import Seen
from calotype.flow.finish import Finished, Finisher, Raw
from calotype.flow.identity import trust_of
from calotype.flow.platform import Platform
from calotype.flow.verify import origin_of
from calotype.jobs.store import JobStore
from calotype.provenance import certificates
from calotype.provenance.certificates import SigningIdentity
from calotype.provenance.manifest import Manifest
from calotype.provenance.verification import Report, verify
from calotype.provenance.watermark import MarkKey
from calotype.settings import Settings
from tests.flow.dispatch_bench import MODEL, SPEC
from tests.flow.test_finish import INSIDE, USES
from training.render import render
from training.scenes import sample_scene

SIDE, AT_ONCE = 128, 4
DRAWN_SIDE, DRAWN_STEPS = 64, 6  # pixels, steps: enough for the check to know the model's domain
PROMPTS = ("a red lighthouse by the sea", "a tent on a green hill", "a snowy village at night")


def main() -> None:
    """Do so, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--engine", action="store_true", help="drawn by the embedded model")
    parser.add_argument("--first", type=int, default=0, help="seed of the first picture")
    given = parser.parse_args()
    count, began = given.count, time.monotonic()
    how = drawn if given.engine else looked_at
    whole, files, changed, missed = asyncio.run(how(count, given.first))
    print(f"{count} pictures, {files} files: {whole} ours and unchanged")
    print(f"one bit changed in each: {changed} ours and unchanged (by the claim alone: {missed})")
    print(f"{time.monotonic() - began:.0f} s")


async def looked_at(count: int, seed: int) -> tuple[int, int, int, int]:
    """Files that are ours and unchanged, all files, and those that still are with a bit changed.

    And those of the last that are by their claim alone, which leaves a few bytes of itself out.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        identity = certificates.ensure_development(folder / "signing", now=datetime.now(UTC))
        store = await JobStore.open(f"sqlite+aiosqlite:///{folder / 'jobs.db'}")
        finisher = Finisher(2, identity, MarkKey("wmk_bench", bytes(range(32))))
        found = [0, 0, 0, 0]
        try:
            for first in range(seed, seed + count, AT_ONCE):
                seeds = range(first, min(first + AT_ONCE, seed + count))
                made = await asyncio.gather(*(finish(finisher, seed) for seed in seeds))
                for this, finished in zip(seeds, made, strict=True):
                    assert finished.entry is not None
                    await store.hash_log.append([finished.entry])
                    for data in finished.files.values():
                        found[0] += await is_ours(data, finished, store, identity)
                        found[1] += 1
                        other = spoilt(data, this)
                        found[2] += await is_ours(other, finished, store, identity)
                        found[3] += claim_of(other, identity).state == "trusted"
        finally:
            finisher.stop()
            await store.close()
        return found[0], found[1], found[2], found[3]


async def drawn(count: int, seed: int) -> tuple[int, int, int, int]:
    """The same of pictures that a platform of its own makes, from the job to the stored file."""
    with tempfile.TemporaryDirectory() as name:
        platform = await Platform.start(Settings(home=Path(name)))
        try:
            found, made = [0, 0, 0, 0], 0
            key = await platform.authenticate(platform.new_key or "")
            anchors_pem, serials = trust_of(Settings(home=Path(name)))
            while made < count:
                jobs = await asyncio.gather(
                    *(one_job(platform, key, seed + more) for more in range(AT_ONCE))
                )
                seed += AT_ONCE
                for image in [image for job in jobs for image in job.images][: count - made]:
                    made += 1
                    delivered = await platform.gallery.delivery.find(image.id)
                    assert delivered is not None
                    assert {file.form for file in delivered.files} == set(image.formats)
                    for file in delivered.files:
                        data = await platform.gallery.delivery.read(file)
                        other = spoilt(data, made)
                        claim = verify(other, anchors_pem=anchors_pem, serials=serials)
                        found[0] += (await platform.gallery.look(data)).verdict == "ours"
                        found[1] += 1
                        found[2] += (await platform.gallery.look(other)).verdict == "ours"
                        found[3] += claim.state == "trusted"
        finally:
            await platform.stop()
        return found[0], found[1], found[2], found[3]


async def one_job(platform: Platform, key: Key, seed: int) -> Job:
    """A small job of the embedded model, when it is over."""
    prompt = PROMPTS[seed % len(PROMPTS)]
    ask = Ask(prompt, width=DRAWN_SIDE, height=DRAWN_SIDE, steps=DRAWN_STEPS, n=4, seed=seed)
    job = await platform.admit(key, ask)
    async for _ in await platform.events(key, job.id, after=0):
        pass
    return await platform.job(key, job.id)


async def finish(finisher: Finisher, seed: int) -> Finished:
    """One picture as it would be delivered."""
    pixels = render(sample_scene(Random(seed)), SIDE)  # noqa: S311
    manifest = Manifest.of(
        SPEC, MODEL, image=new_id("img"), index=0, calotype="0", torch="none", device="cpu",
        pixels_sha256="",
    )  # fmt: skip
    scores = {"finite": 1.0} | INSIDE
    return await finisher.finish(Raw(pixels.tobytes(), SIDE, SIDE, scores, manifest, uses=USES))


async def is_ours(
    data: bytes, finished: Finished, store: JobStore, identity: SigningIdentity
) -> bool:
    """Whether a file is called ours and unchanged: by its claim, and by what was signed."""
    sha256 = hashlib.sha256(data).hexdigest()
    origin = await origin_of(Seen(sha256, claim_of(data, identity)), store.hash_log)
    assert finished.entry is not None
    return origin.verdict == "ours" and sha256 in finished.entry.files.values()


def claim_of(data: bytes, identity: SigningIdentity) -> Report:
    """What a file's claim is worth."""
    return verify(data, anchors_pem=identity.anchors_pem, serials=identity.serials)


def spoilt(data: bytes, seed: int) -> bytes:
    """The file with one bit changed."""
    chance = Random(f"spoilt {seed} {len(data)}")  # noqa: S311
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


if __name__ == "__main__":
    main()
