"""What people decided on, given out to learn from: no more than may be, and written down first."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from calotype.core.errors import Conflict, Forbidden, InvalidInput
from calotype.core.nouns import Image, ImageFile, Key, Verdict, VerdictKind
from calotype.core.reviews import Person, Review
from calotype.delivery.formats import encode
from calotype.delivery.names import stored_name
from calotype.delivery.store import PictureStore
from calotype.flow.review_export import Export
from calotype.flow.sealed import Sealed, sealed_parts
from calotype.jobs.files import RemovalKind
from calotype.jobs.store import JobStore
from calotype.safety.conduct import Conduct
from calotype.settings import Settings
from tests.pictures import picture
from tests.reviews import UNSURE, hold, spec_of

REVIEWER = Key("key_1", "staff", "rita", "rita", ("review",), datetime.now(UTC), None)
RITA, SAM = Person("key_1", "staff/rita"), Person("key_2", "staff/sam")
ALLOWED = Verdict(VerdictKind.ALLOW, "people", "1", policy="pg13-1-abcd")


def pixels(seed: int) -> np.ndarray:
    return np.asarray(picture(64, 64, seed).convert("RGB"))


@dataclass
class House:
    folder: Path
    store: JobStore
    sealed: Sealed
    pictures: PictureStore

    @property
    def export(self) -> Export:
        return Export(self.store, self.sealed, self.pictures, Conduct.shipped())

    async def held(self, seed: int = 1, **more: object) -> Review:
        return await hold(self.store, self.sealed, pixels(seed), **more)  # type: ignore[arg-type]

    async def decide(
        self, review: Review, *, is_allowed: bool, by: Person = RITA, seed: int = 1
    ) -> Review:
        image = await self.delivered(review, seed) if is_allowed else None
        return await self.store.people.reviews.decide(
            review.id, by, is_allowed=is_allowed, reason="seen", image=image
        )

    async def delivered(self, review: Review, seed: int) -> Image:
        png = encode(pixels(seed), "png")
        sha256 = hashlib.sha256(png).hexdigest()
        name = stored_name("fast", review.image, sha256, "png")
        await self.pictures.put(name, png)
        file = ImageFile("png", 0, name, sha256, len(png))
        return Image(
            *(review.image, 0, 1, 64, 64, sha256, review.pixels_sha256, ("png",), (file,)),
            verdict=ALLOWED,
        )

    def files(self, output: Path) -> dict[str, bytes]:
        found = sorted(it for it in output.rglob("*") if it.is_file())
        return {it.relative_to(output).as_posix(): it.read_bytes() for it in found}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = Settings(home=tmp_path)
    store = await JobStore.open(settings.database)
    sealed, _ = sealed_parts(settings)
    yield House(tmp_path, store, sealed, PictureStore.local(settings.pictures_folder))
    await store.close()


async def test_what_people_said_is_a_picture_s_label(house: House) -> None:
    allowed, blocked, upheld = [await house.held(seed) for seed in (1, 2, 3)]
    await house.decide(allowed, is_allowed=True)
    await house.decide(blocked, is_allowed=False)
    await house.decide(upheld, is_allowed=False)
    await house.store.people.reviews.appeal(upheld.job_id, "default", "it is a tent")
    await house.decide(upheld, is_allowed=False, by=SAM)
    await house.held(4)  # undecided
    output = house.folder / "out"
    done = await house.export.to(output, REVIEWER, reason="the next check")
    assert done.labels == {"harmless": 1, "violence": 2}
    assert done.left_out == {}
    files = house.files(output)
    assert {name.rpartition("/")[0] for name in files} == {"harmless/kept", "violence/kept"}
    assert files[f"violence/kept/{blocked.id}.png"] == encode(pixels(2), "png")
    assert {it.stat().st_mode & 0o077 for it in output.rglob("*.png")} == {0}
    trail = await house.store.people.audit.of(done.id)
    assert [(it.kind, it.by) for it in trail] == [("exported", "staff/rita (key_1)")]
    assert trail[0].data == {"reviews": 3, "reason": "the next check", "folder": str(output)}
    for review in (allowed, blocked, upheld):
        last = (await house.store.people.audit.of(review.id))[-1]
        assert (last.kind, last.data["export"]) == ("exported", done.id)
    assert await house.store.people.audit.verify()


async def test_of_what_was_let_go_the_delivered_picture_is_taken_unless_it_is_gone(
    house: House,
) -> None:
    there, gone = [await house.held(seed) for seed in (1, 2)]
    for seed, review in ((1, there), (2, gone)):
        await house.decide(review, is_allowed=True, seed=seed)
    await house.sealed.destroy(await house.store.people.reviews.let_go(before=datetime.now(UTC)))
    await house.store.files.take_away(gone.image, RemovalKind.DELETED, by="ada", reason="")
    done = await house.export.to(house.folder / "out", REVIEWER, reason="why")
    assert (done.labels, done.left_out) == ({"harmless": 1}, {"kept no longer": 1})
    assert list(house.files(house.folder / "out")) == [f"harmless/delivered/{there.id}.png"]


async def test_nothing_severe_and_nothing_of_a_pool_is_given_out(house: House) -> None:
    severe = await house.held(1, is_severe=True)
    for person in (RITA, SAM):
        await house.decide(severe, is_allowed=False, by=person)
    known = await house.held(2, verdict=replace(UNSURE, category="known"))
    apart = await house.held(3, spec=replace(spec_of("a tent"), pool="mature"))
    for review in (known, apart):
        await house.decide(review, is_allowed=False)
    output = house.folder / "out"
    done = await house.export.to(output, REVIEWER, reason="why")
    assert (done.labels, house.files(output)) == ({}, {})
    assert done.left_out == {"severe": 1, "of a pool": 1}
    for review in (severe, known, apart):
        trail = await house.store.people.audit.of(review.id)
        assert "exported" not in [it.kind for it in trail]


async def test_the_last_so_many_are_given_out(house: House) -> None:
    found = [await house.held(seed) for seed in (1, 2, 3)]
    for review in found:
        await house.decide(review, is_allowed=False)
    done = await house.export.to(house.folder / "out", REVIEWER, reason="why", most=2)
    assert done.labels == {"violence": 2}
    names = {Path(name).stem for name in house.files(house.folder / "out")}
    assert names == {found[1].id, found[2].id}


async def test_who_may_not_and_what_may_not_is_refused_before_anything_is_written(
    house: House,
) -> None:
    output = house.folder / "out"
    with pytest.raises(Forbidden, match="scope 'review'"):
        await house.export.to(output, replace(REVIEWER, scopes=("jobs",)), reason="why")
    for reason in (" ", "x" * 5_000):
        with pytest.raises(InvalidInput):
            await house.export.to(output, REVIEWER, reason=reason)
    for most in (0, 5_001):
        with pytest.raises(InvalidInput) as refused:
            await house.export.to(output, REVIEWER, reason="why", most=most)
        assert refused.value.limit == 5_000
    assert not output.exists()
    (output / "harmless").mkdir(parents=True)
    with pytest.raises(Conflict, match="isn't empty"):
        await house.export.to(output, REVIEWER, reason="why")
    assert await house.store.people.audit.verify() == 0
