"""What is set apart for a policy: its jobs run nowhere else, its pictures lie nowhere else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from calotype.api.images import headers_of
from calotype.core.errors import Forbidden, InternalError, InvalidInput, OperatorError
from calotype.core.events import EngineUp
from calotype.core.messages import RunRow
from calotype.core.nouns import Ask, Job, Key, Verdict
from calotype.core.states import JobState
from calotype.delivery.names import Asked, stored_name
from calotype.flow import finish
from calotype.flow.finish import Raw
from calotype.flow.platform import Platform
from calotype.flow.pools import PoolMissing, engines_of
from calotype.flow.safeguards import Safeguards
from calotype.jobs.store import JobStore
from calotype.pool.registry import ModelRegistry
from calotype.pool.reports import EngineHealth, EngineWarm
from calotype.pool.shelf import Entry
from calotype.provenance.certificates import SigningIdentity
from calotype.safety.configuration import Pool
from calotype.settings import Settings
from tests.flow.dispatch_bench import ALLOWED, MODEL, StubFinisher, StubPool, eventually
from tests.flow.test_finish import raw

COMMON, APART = "engine-0", "engine-1"
GROWN = 'adults = ["acme/ada"]\n[tenants]\nacme = "grown"\n[policies.grown]\nextends = "mature"\n'
POOL = '[pools.mature]\nengines = 1\nstore = "behind-the-curtain"\n'


def key_of(user: str) -> Key:
    return Key("key", "acme", user, "laptop", ("jobs",), datetime.now(UTC), None)


ADA, BOB = key_of("ada"), key_of("bob")  # of age, and not known to be


class House:
    """A platform of two stub engines, and what it was made of."""

    def __init__(self, platform: Platform, home: Path) -> None:
        self.platform, self.home = platform, home
        assert isinstance(platform._pool, StubPool)
        self.pool = platform._pool

    async def made(self, key: Key, *, waits: bool = False, **asked: object) -> Job:
        """A job of this person; unless it ``waits``, once its pictures are there."""
        job = await self.platform.admit(key, Ask("a tent", **asked))  # type: ignore[arg-type]
        return job if waits else await self.over(job)

    async def over(self, job: Job) -> Job:
        found: Job = await eventually(lambda: self._done(job.id))
        return found

    async def _done(self, job_id: str) -> Job | None:
        job = await self.platform._store.get(job_id)
        return job if job.state.is_final else None

    def ran_on(self, job: Job) -> set[str]:
        rows = [(at, it.row) for at, it in self.pool.sent if isinstance(it, RunRow)]
        return {engine for engine, row in rows if row.startswith(f"{job.id}/")}

    def files(self, folder: str) -> set[str]:
        found = (self.home / folder).rglob("img_*")
        return {path.name.partition(".")[0] for path in found}


@asynccontextmanager
async def house_in(
    home: Path, monkeypatch: pytest.MonkeyPatch, said: str = GROWN + POOL
) -> AsyncIterator[House]:
    def pool_of(*, apart: dict[str, str], **_: object) -> StubPool:
        pool = StubPool(2)
        pool._apart = apart
        return pool

    home.mkdir(exist_ok=True)  # noqa: ASYNC240
    (home / "safety.toml").write_text(said)
    monkeypatch.setattr("calotype.flow.platform.Finisher", lambda *_: StubFinisher())
    monkeypatch.setattr("calotype.flow.platform.EnginePool", pool_of)
    registry, settings = ModelRegistry([], home), Settings(home=home, engines=2)
    served = replace(MODEL, domain="vignette-domain", width=64, height=64)
    registry.shelf.put(Entry(MODEL.name, MODEL.build, served))
    store = await JobStore.open(settings.database)
    platform = Platform(settings, store, registry, SigningIdentity("es256", "", "", ""))
    await platform._dispatcher.start()
    try:
        yield House(platform, home)
    finally:
        await platform._dispatcher.stop()
        await store.close()


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with house_in(tmp_path / "home", monkeypatch) as made:
        for engine in (COMMON, APART):
            await made.pool.warm(engine=engine)
        await eventually(lambda: len(made.platform._dispatcher._line.policy._lines) == 2)
        yield made


# Engines.


async def test_a_pools_job_runs_on_its_engine_alone_and_no_other_job_does(house: House) -> None:
    ours, theirs = [], []
    for _ in range(6):
        ours.append(await house.made(ADA, waits=True))
        theirs.append(await house.made(BOB, waits=True))
    for job in (*ours, *theirs):
        await house.over(job)
    assert {engine for job in ours for engine in house.ran_on(job)} == {APART}
    assert {engine for job in theirs for engine in house.ran_on(job)} == {COMMON}


async def test_while_a_pools_engine_is_gone_its_jobs_wait_though_another_idles(
    house: House,
) -> None:
    await house.pool.lose(APART)
    job = await house.made(ADA, waits=True)
    await house.made(BOB)
    assert (await house.platform.job(ADA, job.id)).state is JobState.QUEUED
    assert house.platform.position(job.id) == 1
    assert house.ran_on(job) == set()
    await house.pool.warm(engine=APART)
    await house.over(job)
    assert house.ran_on(job) == {APART}


async def test_what_a_pools_own_engine_can_not_load_is_given_up_though_another_has_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = house.pool.health

    def health() -> list[EngineHealth]:
        damaged = {MODEL.name: "a damaged file"}
        return [replace(one, models_failed=damaged if one.pool else {}) for one in told()]

    await house.pool.lose(APART)
    job = await house.made(ADA, waits=True)
    monkeypatch.setattr(house.pool, "health", health)
    await house.pool.say(EngineWarm((), 16), APART)
    over = await house.over(job)
    assert (over.state, "a damaged file" in str(over.error)) == (JobState.FAILED, True)
    assert (await house.made(BOB)).state is JobState.SUCCEEDED


async def test_a_start_on_an_engine_of_another_pool_is_not_carried_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the policy ever wrong, nothing would be sent: the turn fails, and the server ends."""
    await house.pool.lose(APART)
    job = await house.made(ADA, waits=True)
    up = EngineUp(COMMON, (MODEL.name,), 16, pool="mature")  # as if it were the pool's
    line = house.platform._dispatcher._line
    async with line.turns.take():
        with pytest.raises(InternalError, match="can't start"):
            await line.tell(up)
    assert house.ran_on(job) == set()
    assert (await house.platform.job(ADA, job.id)).state is JobState.QUEUED


@pytest.mark.parametrize("said", [GROWN, GROWN + POOL.replace("mature", "other")])
async def test_without_a_pool_its_jobs_are_refused_and_all_others_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    async with house_in(tmp_path / "home", monkeypatch, said) as house:
        with pytest.raises(PoolMissing, match=r"\[pools\.mature\]") as refused:
            await house.made(ADA, waits=True)
        assert (refused.value.field, refused.value.status) == ("pools.mature", 503)
        assert (await house.made(BOB, waits=True)).spec.pool == ""


async def test_a_job_whose_pool_is_gone_after_a_restart_fails_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_in(tmp_path / "home", monkeypatch) as house:
        job = await house.made(ADA, waits=True)
    async with house_in(tmp_path / "home", monkeypatch, GROWN) as house:
        failed = await house.platform._store.get(job.id)
        assert failed.state is JobState.FAILED
        assert (failed.error or {})["type"].endswith("pool-missing")


def test_the_last_engines_are_a_pools_and_one_is_left_to_everybody() -> None:
    two, one = Pool("mature", 2, "/a"), Pool("studio", 1, "/b")
    assert engines_of({}, 3) == {}
    wanted = {"engine-1": "mature", "engine-2": "mature", "engine-3": "studio"}
    assert engines_of({"mature": two, "studio": one}, 4) == wanted
    with pytest.raises(OperatorError, match="one is left") as refused:
        engines_of({"mature": two, "studio": one}, 3)
    assert refused.value.limit == {"engines_min": 4}


# Pictures.


async def test_a_pools_pictures_lie_in_its_store_and_nothing_of_them_in_the_common_one(
    house: House,
) -> None:
    job, other = await house.made(ADA), await house.made(BOB)
    mine, theirs = ({image.id for image in each.images} for each in (job, other))
    assert mine
    assert house.files("behind-the-curtain/pictures") == mine
    assert house.files("pictures") == theirs
    # Whatever the files are called and whoever stores them: each store refuses the other's.
    pictures = house.platform.gallery.pictures
    for image_id, pool, store in ((*mine, "mature", ""), (*theirs, "", "mature")):
        name = stored_name("fast", str(image_id), "0" * 64, "png", pool=pool)
        with pytest.raises(InternalError, match="no place"):
            await pictures._stores[store].put(name, b"x")  # type: ignore[attr-defined]
        assert await pictures.presigned(name, ttl_s=60.0) is None


async def test_other_forms_are_stored_beside_the_picture_and_kept_by_no_cache(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def render(_: object) -> bytes:
        return b"smaller"

    gallery = house.platform.gallery
    monkeypatch.setattr(gallery._finisher, "render", render, raising=False)
    for key, folder, cached in (
        (ADA, "behind-the-curtain/pictures", "private, no-store"),
        (BOB, "pictures", "public, max-age="),
    ):
        [image] = (await house.made(key)).images
        found = await gallery.delivery.find(image.id)
        assert found is not None
        file = await gallery.delivery.file(found, Asked(image.id, form="avif"))
        assert list((house.home / folder).rglob(file.name.rpartition("/")[2]))
        address = gallery.path("acme", image.id, "avif").rpartition("/")[2]
        name, _, query = address.partition("?")
        given = dict(each.split("=") for each in query.split("&"))
        shown = await gallery.showing.show(name, accept="", **given)
        told = headers_of(shown, is_shared=True)
        assert told["Cache-Control"].startswith(cached)
        assert ("Cache-Tag" in told) == (key is BOB)


async def test_what_was_withdrawn_is_kept_apart_from_the_others_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    [image] = (await house.made(ADA)).images
    removals = house.platform.gallery.removals
    monkeypatch.setattr(removals, "_receipt", lambda removal: {"of": removal.image_id})
    (house.home / "quarantine").mkdir(exist_ok=True)
    # What the stub finisher signed isn't what its names say, so the stores don't look.
    monkeypatch.setattr("calotype.delivery.store._check_content", lambda name, data: None)
    await removals.withdraw(image.id, by="operator", reason="to look at it")
    assert house.files("behind-the-curtain/quarantine") == {image.id}
    assert house.files("behind-the-curtain/pictures") == set()
    assert house.files("quarantine") == set()
    await removals.delete(image.id, by="operator")
    assert house.files("behind-the-curtain") == set()


async def test_a_picture_is_not_judged_by_a_policy_whose_store_it_will_not_lie_in(
    house: House,
) -> None:
    grown = house.platform._safeguards.policy("acme", "ada")
    assert grown.pool == "mature"
    with pytest.raises(InternalError, match="isn't judged by grown"):
        finish._finish(replace(raw(), policy=grown, pool=""))


async def test_whoever_is_of_age_only_later_is_judged_as_everybody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Raw] = []
    finisher = house.platform._finisher
    assert isinstance(finisher, StubFinisher)

    def allow(raw: Raw) -> Verdict:
        seen.append(raw)
        return ALLOWED

    monkeypatch.setattr(finisher, "answer", allow)
    await house.pool.lose(COMMON)
    job = await house.made(BOB, waits=True)
    guards = house.platform._safeguards
    monkeypatch.setattr(guards.ages, "is_adult", lambda tenant, user: True)
    assert guards.policy("acme", "bob").name == "grown"
    await house.pool.warm(engine=COMMON)
    await house.over(job)
    await house.made(ADA)
    assert [(it.policy.name if it.policy else "", it.pool) for it in seen] == [
        ("pg13", ""),
        ("grown", "mature"),
    ]


@pytest.mark.parametrize("place", ["pictures", "inputs/deeper", ".", "quarantine", ".."])
def test_a_store_that_is_not_apart_is_refused(tmp_path: Path, place: str) -> None:
    from calotype.flow.gallery import stores

    home = tmp_path / "home"
    home.mkdir()
    (home / "safety.toml").write_text(GROWN + POOL.replace("behind-the-curtain", place))
    settings = Settings(home=home)
    with pytest.raises(OperatorError, match="can't keep its pictures") as refused:
        stores(settings, Safeguards(settings).setup.pools)
    assert refused.value.field == "pools.mature.store"


def test_a_bucket_of_its_own_is_apart_and_one_of_the_others_is_not(tmp_path: Path) -> None:
    from calotype.flow.gallery import stores

    settings = Settings(home=tmp_path, store_url="s3://house/calotype")
    stores(settings, {"mature": Pool("mature", 1, "s3://house/calotype-apart")})
    for url in ("s3://house/calotype", "s3://house", "s3://house/calotype/mature"):
        with pytest.raises(OperatorError, match="can't keep its pictures"):
            stores(settings, {"mature": Pool("mature", 1, url)})
    both = {name: Pool(name, 1, "s3://apart") for name in ("mature", "other")}
    with pytest.raises(OperatorError, match="pictures of the pool mature lie"):
        stores(settings, both)


# Who sees them.


async def test_only_its_people_are_shown_what_a_pool_made(house: House) -> None:
    job, other = await house.made(ADA), await house.made(BOB)
    platform = house.platform
    for ask in (platform.job, platform.cancel):
        with pytest.raises(Forbidden):
            await ask(BOB, job.id)
    with pytest.raises(Forbidden):
        await platform.events(BOB, job.id, after=0)
    listed = [each.id for each in await platform.jobs(BOB, limit=1, before=None)]
    assert listed == [other.id]
    both = await platform.jobs(ADA, limit=9, before=None)
    assert [each.id for each in both] == [other.id, job.id]
    [image] = job.images
    assert platform.gallery.addresses_of("acme", image)["url"]
    assert json.dumps(platform.gallery.addresses_for_anyone(job, image)).count("null") >= 3


async def test_jobs_past_many_of_a_pool_are_found(house: House) -> None:
    first = await house.made(BOB)
    for _ in range(5):
        await house.made(ADA)
    assert [it.id for it in await house.platform.jobs(BOB, limit=2, before=None)] == [first.id]


async def test_a_common_job_begins_from_nothing_that_a_pool_made(house: House) -> None:
    [mine], [theirs] = (await house.made(ADA)).images, (await house.made(BOB)).images
    for field, more in (("parent", {"kind": "vary_subtle"}), ("source", {})):
        with pytest.raises(InvalidInput, match="begin from") as refused:
            await house.made(BOB, waits=True, **{field: mine.id}, **more)
        assert refused.value.field == field
    assert (await house.made(ADA, waits=True, source=theirs.id)).spec.pool == "mature"
    assert (await house.made(ADA, waits=True, source=mine.id)).spec.pool == "mature"
