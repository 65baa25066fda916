"""Where a picture came from, told of real files: untouched, changed, stripped, copied, others'."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from calotype.core.nouns import Image as Picture
from calotype.core.nouns import ImageFile, Tier
from calotype.flow.examine import Seen, examine
from calotype.flow.finish import Finished, Finisher, Raw
from calotype.flow.verify import Origin, origin, origin_of
from calotype.jobs.store import JobStore
from calotype.provenance import certificates
from calotype.provenance.certificates import SigningIdentity
from calotype.provenance.manifest import MadeLora, MadeWith, Manifest
from calotype.provenance.signing import Signer
from calotype.provenance.verification import verify
from calotype.provenance.watermark import MarkKey, Pixels
from tests.flow.dispatch_bench import MODEL, SPEC
from tests.flow.test_finish import INSIDE, USES
from training.render import render
from training.scenes import sample_scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIDE = 256
KEY = MarkKey("wmk_test", bytes(range(32)))
IMAGE = "img_01ARZ3NDEKTSV4RRFFQ69G5FA{}"


def scene(seed: int) -> Pixels:
    return render(sample_scene(Random(seed)), SIDE)


def manifest_of(image: str) -> Manifest:
    return Manifest.of(
        SPEC, MODEL, image=image, index=0, calotype="0", torch="none", device="cpu",
        pixels_sha256="",
    )  # fmt: skip


@dataclass
class House:
    """An installation that has made two pictures."""

    store: JobStore
    identity: SigningIdentity
    finisher: Finisher
    made: list[Finished]

    async def look(self, data: bytes) -> Origin:
        return await origin(
            data, log=self.store.hash_log, keys=[KEY], anchors_pem=self.identity.anchors_pem
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    tmp_path = tmp_path_factory.mktemp("house")
    store = await JobStore.open(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    identity = certificates.ensure_development(tmp_path / "signing", now=datetime.now(UTC))
    finisher = Finisher(1, identity, KEY)
    try:
        made = []
        for seed in range(2):
            manifest = manifest_of(IMAGE.format(seed))
            raw = Raw(
                scene(seed).tobytes(), SIDE, SIDE, {"finite": 1.0} | INSIDE, manifest, uses=USES
            )
            made.append(await finisher.finish(raw))
        entries = [each.entry for each in made if each.entry is not None]
        await store.hash_log.append(entries)
        yield House(store, identity, finisher, made)
    finally:
        finisher.stop()
        await store.close()


def opened(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def saved(pixels: Pixels, form: str = "png", **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["png", "webp"])
async def test_what_is_delivered_is_ours_and_in_the_log(house: House, form: str) -> None:
    for number, made in enumerate(house.made):
        found = await house.look(made.files[form])
        assert (found.verdict, found.claim.state) == ("ours", "trusted")
        assert found.mark is not None
        assert made.entry is not None
        assert found.mark.payload == made.entry.mark
        assert found.logged is not None
        assert (found.logged.by, found.logged.kept.number) == ("file", number)
        assert found.logged.kept.entry.image == IMAGE.format(number)
        assert found.logged.is_proven


@pytest.mark.parametrize(
    "change",
    [
        {"made_with": MadeWith(loras=(MadeLora("etching", "0" * 16, 1.0),))},
        {"model": "sdxl@other", "build": "f" * 16},  # another autoencoder, or text encoder
        {"decoder_key": "dmk_0123456789abcdef"},
        {"kind": "inpaint", "made_with": MadeWith("a" * 64, "b" * 64)},
    ],
    ids=["an adapter", "another model", "a decoder", "a mask"],
)
async def test_nothing_that_a_picture_is_made_with_spares_it_the_mark(
    house: House, change: dict[str, Any]
) -> None:
    manifest, seed = replace(manifest_of(IMAGE.format(5)), **change), 5
    made = await house.finisher.finish(
        Raw(scene(seed).tobytes(), SIDE, SIDE, {"finite": 1.0} | INSIDE, manifest, uses=USES)
    )
    assert made.files.keys() == {"png", "webp"}
    for data in made.files.values():
        stripped = saved(opened(data))
        assert examine(stripped, keys=[KEY], anchors_pem=None).mark is not None
        assert b"c2pa.watermarked.bound" in data


async def test_the_same_pixels_make_the_same_files_but_for_the_signature(house: House) -> None:
    finisher = Finisher(1, house.identity, KEY)
    try:
        manifest = manifest_of(IMAGE.format(9))
        raw = Raw(scene(0).tobytes(), SIDE, SIDE, {"finite": 1.0} | INSIDE, manifest, uses=USES)
        again = await finisher.finish(raw)
    finally:
        finisher.stop()
    assert (opened(again.files["png"]) == opened(house.made[0].files["png"])).all()


async def test_one_changed_byte_is_never_unchanged(house: House) -> None:
    data = house.made[0].files["png"]
    for where in np.random.default_rng(4).integers(data.index(b"IDAT") + 8, len(data) - 20, 6):
        changed = bytearray(data)
        changed[where] ^= 1
        assert (await house.look(bytes(changed))).verdict != "ours"


async def test_no_byte_can_be_changed_wherever_it_is(house: House) -> None:
    """Also where the claim leaves itself out: the records know every file that was signed."""
    store, identity = house.store, house.identity
    lease = await store.lease((await store.insert("ada", Tier.FAST, SPEC)).id, "engine-0")
    files = {
        form: ImageFile(form, 0, f"fast/{form}", hashlib.sha256(data).hexdigest(), len(data))
        for form, data in house.made[0].files.items()
    }
    png, pixels = files["png"].sha256, house.made[0].pixels_sha256
    image = Picture(
        IMAGE.format(0), 0, 7, SIDE, SIDE, png, pixels, tuple(files), tuple(files.values()),
        verdict=house.made[0].verdict,
    )  # fmt: skip
    await store.succeed(lease, [image])

    async def verdict(data: bytes) -> str:
        claim = verify(data, anchors_pem=identity.anchors_pem, serials=identity.serials)
        seen = Seen(hashlib.sha256(data).hexdigest(), claim)
        return (await origin_of(seen, store.hash_log, store.files)).verdict

    for data in house.made[0].files.values():
        assert await verdict(data) == "ours"
        for at in range(0, len(data), max(1, len(data) // 150)):
            changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            assert await verdict(changed) != "ours", at


STRIPPED: dict[str, Callable[[Pixels], bytes]] = {
    "png": saved,
    "jpeg": lambda p: saved(p, "jpeg", quality=75),
    "mirrored": lambda p: saved(p[:, ::-1]),
    "cut": lambda p: saved(p[20:200, 40:230]),
}


@pytest.mark.parametrize("change", STRIPPED)
async def test_a_stripped_copy_is_known_by_its_mark(house: House, change: str) -> None:
    found = await house.look(STRIPPED[change](opened(house.made[1].files["png"])))
    assert (found.verdict, found.claim.state) == ("ours_by_mark", "none")
    assert found.logged is not None
    assert (found.logged.by, found.logged.kept.entry.image) == ("mark", IMAGE.format(1))
    assert found.logged.is_proven


FAINT: dict[str, Callable[[Pixels], bytes]] = {
    "webp": lambda p: saved(p, "webp", quality=60),
    "half the size, jpeg": lambda p: saved(
        np.asarray(Image.fromarray(p).resize((SIDE // 2, SIDE // 2))), "jpeg", quality=75
    ),
}


@pytest.mark.parametrize("change", FAINT)
async def test_a_mark_too_faint_to_be_found_is_found_by_what_the_picture_looks_like(
    house: House, change: str
) -> None:
    data = FAINT[change](opened(house.made[1].files["png"]))
    assert examine(data, keys=[KEY], anchors_pem=None).mark is None
    found = await house.look(data)
    assert found.verdict == "ours_by_mark"
    assert found.mark is not None
    assert found.mark.false_max < 1e-9
    assert found.logged is not None
    assert (found.logged.by, found.logged.kept.entry.image) == ("mark", IMAGE.format(1))
    unmarked = await house.look(FAINT[change](scene(1)))
    assert (unmarked.verdict, unmarked.mark) == ("ours_by_looks", None)


async def test_a_copied_mark_is_called_one(house: House) -> None:
    mark = opened(house.made[0].files["png"]).astype(int) - scene(0)
    forged = np.clip(scene(7) + 2 * mark, 0, 255).astype(np.uint8)
    found = await house.look(saved(forged))
    assert found.verdict == "copied_mark"


@pytest.mark.parametrize("cut", [0, 8])
async def test_a_copy_without_mark_is_known_by_its_looks(house: House, cut: int) -> None:
    unmarked = scene(1)[cut : SIDE - cut, cut : SIDE - cut]
    found = await house.look(saved(unmarked, "jpeg", quality=60))
    assert found.mark is None
    assert found.verdict == "ours_by_looks"
    assert found.logged is not None
    assert (found.logged.by, found.logged.kept.entry.image) == ("looks", IMAGE.format(1))


async def test_other_pictures_are_not_ours(house: House) -> None:
    for seed in (20, 21):
        found = await house.look(saved(scene(seed)))
        assert (found.verdict, found.mark, found.logged) == ("not_ours", None, None)


async def test_what_others_signed_is_told_apart(house: House, tmp_path: Path) -> None:
    other = certificates.ensure_development(tmp_path / "other", now=datetime.now(UTC))
    data = Signer(other).sign(saved(scene(30)), "png", manifest_of("img_theirs"))
    assert (await house.look(data)).verdict == "signed_by_others"


async def test_hostile_files_get_an_answer(house: House) -> None:
    whole = house.made[0].files["png"]
    for data in (b"", b"no picture", whole[:300], whole[: len(whole) // 2], b"GIF89a" + bytes(50)):
        found = await house.look(data)
        assert not found.is_picture
        assert found.verdict == "not_ours"
