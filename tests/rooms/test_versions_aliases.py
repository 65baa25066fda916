"""Versions by name: aliases, promoted and rolled back, canaries, and what is not removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.errors import Conflict, InvalidInput, ModelBroken, OperatorError
from calotype.policy.canary import is_chosen
from calotype.pool.aliases import changing
from tests.rooms.registry_of import BASE, add, catalogue_of, files_below
from tests.tensors import (
    make_base,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def three(home: Path, tmp_path: Path) -> list[str]:
    """Versions of ``dream``, the first of them stable."""
    return [
        add(home, make_base(tmp_path / f"m{at}", fill=bytes([at])), name="dream").record.version
        for at in range(3)
    ]


def build(home: Path, reference: str = "dream", job_id: str = "") -> str:
    return catalogue_of(home).models.choose(reference, job_id).info.build


def test_an_alias_is_promoted_and_rolled_back_with_its_history(
    home: Path, three: list[str]
) -> None:
    root = catalogue_of(home).versions.root
    for version in three[1:]:
        with changing(root) as state:
            state.point(BASE, "dream", "stable", version, "promoted")
        assert build(home) == version
    for expected in (three[1], three[0]):
        with changing(root) as state:
            assert state.roll_back(BASE, "dream", "stable") == expected
        assert build(home) == build(home, "dream@stable") == expected
    with pytest.raises(Conflict, match="stood for nothing else before"), changing(root) as state:
        state.roll_back(BASE, "dream", "stable")
    history = catalogue_of(home).versions.state().alias(BASE, "dream", "stable").history
    assert [(it.version, it.why) for it in history] == [
        (three[0], "added"),
        (three[1], "promoted"),
        (three[2], "promoted"),
        (three[1], "rolled back"),
        (three[0], "rolled back"),
    ]


def test_a_canary_is_given_to_its_share_of_jobs_and_always_to_the_same(
    home: Path, three: list[str]
) -> None:
    catalogue = catalogue_of(home)
    with changing(catalogue.versions.root) as state:
        state.try_out(BASE, "dream", "stable", three[1], 0.05)
    catalogue = catalogue_of(home)
    jobs = [f"job_{at:026}" for at in range(4_000)]
    chosen = [catalogue.models.choose("dream", job) for job in jobs]
    said = [catalogue.models.choose("dream@stable", job).info for job in jobs]
    assert [it.info for it in chosen] == said
    given = [it for it in chosen if it.is_canary]
    assert {it.info.build for it in given} == {three[1]}
    assert {it.info.build for it in chosen if not it.is_canary} == {three[0]}
    assert 0.035 < len(given) / len(jobs) < 0.065
    assert build(home) == three[0], "who is no job is given none"
    assert not catalogue.models.choose(f"dream@{three[0]}", jobs[0]).is_canary
    others = [is_chosen(job, "dream@stable", 0.05) for job in jobs]
    more = [is_chosen(job, "dream@stable", 0.10) for job in jobs]
    assert all(b for a, b in zip(others, more, strict=True) if a), "a larger share keeps them"
    assert not any(is_chosen(job, "dream@stable", 0.0) for job in jobs)
    assert all(is_chosen(job, "dream@stable", 1.0) for job in jobs)


def test_a_canary_that_broke_is_tried_on_nobody(home: Path, three: list[str]) -> None:
    catalogue = catalogue_of(home)
    with changing(catalogue.versions.root) as state:
        state.try_out(BASE, "dream", "stable", three[1], 1.0)
    assert build(home, "dream", "job_1") == three[1]
    folder = catalogue.versions.folder(BASE, "dream", three[1])
    (folder / "vae" / "config.json").unlink()
    assert build(home, "dream", "job_1") == three[0]


def test_what_something_stands_for_is_not_removed(home: Path, three: list[str]) -> None:
    versions = catalogue_of(home).versions
    with changing(versions.root) as state:
        state.try_out(BASE, "dream", "stable", three[1], 0.5)
        state.pinned.append(f"base/dream@{three[2]}")
    for version, why in zip(three, ("stands for it", "is the canary", "is pinned"), strict=True):
        with pytest.raises(InvalidInput, match=why):
            versions.remove(BASE, "dream", version, is_forced=False)
    known = catalogue_of(home).models
    versions.remove(BASE, "dream", three[0], is_forced=True)
    assert build(home) == three[2], "a name whose stable is gone stands for what came last"
    assert known.get(f"dream@{three[0]}").build == three[0], "jobs that have it keep it"
    versions.remove(BASE, "dream", three[1], is_forced=True)
    versions.remove(BASE, "dream", three[2], is_forced=True)
    with pytest.raises(InvalidInput, match="no model named 'dream'"):
        build(home)
    assert versions.state().aliases == {}
    assert versions.state().pinned == []
    assert [it for it in files_below(home) if it not in ("lock", "state.json")] == []


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("dream@beta", "no version or alias 'beta'"),
        ("dream@000000", "no version or alias '000000'"),
        ("dream@", "no version or alias|dream"),
        ("dream@stable@stable", "no version or alias 'stable@stable'"),
        ("vignette@stable", "no version or alias 'stable'"),
        ("nothing@stable", "no model named 'nothing@stable'"),
        ("../dream", "no model named"),
    ],
)
def test_a_reference_to_nothing_is_refused_with_what_there_is(
    home: Path, three: list[str], reference: str, says: str
) -> None:
    if reference == "dream@":
        assert build(home, reference) == three[0], "it says nothing more than the name"
        return
    with pytest.raises(InvalidInput, match=says) as caught:
        build(home, reference)
    assert caught.value.field == "model"
    assert caught.value.limit


def test_limits_of_names_are_told(
    home: Path, three: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = catalogue_of(home).versions.root
    monkeypatch.setattr(limits, "ALIASES_MAX", 1)
    with pytest.raises(InvalidInput) as caught, changing(root) as state:
        state.point(BASE, "dream", "beta", three[1], "set")
    assert (caught.value.field, caught.value.limit) == ("alias", 1)
    monkeypatch.setattr(limits, "MODEL_VERSIONS_MAX", 3)
    with pytest.raises(InvalidInput) as caught:
        add(home, make_base(tmp_path / "more", fill=b"\7"), name="dream")
    assert (caught.value.field, caught.value.limit) == ("name", 3)
    monkeypatch.setattr(limits, "MODEL_BYTES_MAX", 10)
    with pytest.raises(ModelBroken) as large:
        add(home, make_base(tmp_path / "large"), name="other")
    assert large.value.limit == 10


def test_aliases_that_can_t_be_read_are_no_reason_to_guess(home: Path, three: list[str]) -> None:
    catalogue = catalogue_of(home)
    (catalogue.versions.root / "state.json").write_text('{"format": 2}')
    with pytest.raises(OperatorError, match=r"state.json can't be read"):
        catalogue_of(home)
    with pytest.raises(OperatorError, match=r"state.json can't be read"):
        catalogue.refresh()
    assert catalogue.models.get("dream").build == three[0], "what was read stays"
