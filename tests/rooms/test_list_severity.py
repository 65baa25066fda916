"""What a match means: known abuse, unless the list's operator said otherwise, with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calotype.core.errors import InvalidInput, OperatorError
from calotype.flow import list_severity
from calotype.jobs.store import JobStore
from calotype.safety.conduct import Conduct
from calotype.safety.current import CurrentCheck
from calotype.safety.hash_lists import (
    BRUTE_MAX,
    ORDINARY,
    HashList,
    KnownPictures,
    added,
    is_severe,
    read,
    set_severity,
)
from calotype.safety.matchers import Loaded, MatcherUse
from calotype.safety.pdq import pdq, to_hex
from calotype.safety.pictures import PictureCheck
from tests.rooms.test_safety_pdq import far, near
from tests.rooms.test_safety_pictures import canary

ONE = far(1, seed=9)[0]


@pytest.mark.parametrize("more", [0, BRUTE_MAX])
@pytest.mark.parametrize("names", ["so", "os"])
def test_a_severe_list_goes_before_a_nearer_one_that_is_not(names: str, more: int) -> None:
    lists = {
        "s": HashList("abuse", np.concatenate([near(ONE, 20)[None], far(more, 1)])),
        "o": HashList("brands", np.concatenate([ONE[None], far(3, 2)]), is_severe=False),
    }
    known = KnownPictures([lists[name] for name in names])
    match = known.nearest(np.concatenate([far(7, 5), ONE[None]]))
    assert match is not None
    assert (match.source, match.distance, match.is_severe) == ("abuse", 20, True)
    alone = KnownPictures([lists["o"]]).nearest(np.concatenate([far(7, 5), ONE[None]]))
    assert alone is not None
    assert (alone.source, alone.distance, alone.is_severe) == ("brands", 0, False)
    severe = [replace(lists[name], is_severe=True) for name in names]
    assert known.version != KnownPictures(severe).version


def test_a_list_says_so_itself_and_is_severe_if_it_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "given.csv"
    file.write_text("".join(f"{to_hex(one)},90\n" for one in far(3)))
    folder = tmp_path / "hashes"
    assert is_severe(folder / "brands.pdq"), "before it is there"
    added(file, folder, "brands", is_severe=False)
    assert (folder / "brands.pdq").read_text().startswith(f"{ORDINARY}\n")
    assert read(folder / "brands.pdq").is_severe is False
    added(file, folder, "brands")
    assert read(folder / "brands.pdq").is_severe is True
    for said in (False, True, False):
        assert set_severity(folder, "brands", is_severe=said) is True
        assert set_severity(folder, "brands", is_severe=said) is False
        found = read(folder / "brands.pdq")
        assert (found.is_severe, is_severe(folder / "brands.pdq")) == (said, said)
        assert (found.hashes == far(3)).all()
    (folder / "brands.pdq").write_text(f"{to_hex(ONE)}\n{ORDINARY}\n")
    assert read(folder / "brands.pdq").is_severe, "only a first line says it"
    with pytest.raises(OperatorError):
        set_severity(folder, "absent", is_severe=False)


def test_what_is_listed_counts_as_any_refusal_and_what_is_known_is_a_case() -> None:
    conduct = Conduct.shipped()
    assert (conduct.is_severe("known"), conduct.is_case("known")) == (True, True)
    assert (conduct.is_severe("listed"), conduct.is_case("listed")) == (False, False)
    assert conduct.rule("listed") is conduct.ordinary


def test_a_running_check_sees_the_change_within_its_minute(tmp_path: Path) -> None:
    now, hashes = [0.0], pdq(canary()).positions[:1]
    (tmp_path / "brands.pdq").write_text(f"{to_hex(hashes[0])}\n")
    check = CurrentCheck([tmp_path], clock=lambda: now[0])
    for said, category in ((True, "known"), (False, "listed"), (True, "known")):
        set_severity(tmp_path, "brands", is_severe=said)
        now[0] += 61.0
        verdict = check.judge_input(canary())
        assert (verdict.category, verdict.check) == (category, "known:brands")
        assert verdict.detail == "The picture is one that is blocked.", "it tells nobody which"


class Knows:
    version = "1"

    def __init__(self, answer: float | None) -> None:
        self.answer = answer

    def distance(self, pixels: np.ndarray) -> float | None:
        return self.answer


def check_with(listed: bool | None, *matchers: tuple[float | None, bool]) -> PictureCheck:
    """``listed``: whether a list that has the picture is severe; None: none has it."""
    hashes = pdq(canary()).positions[:1]
    lists = [] if listed is None else [HashList("list", hashes, is_severe=listed)]
    check = PictureCheck(KnownPictures(lists))
    check._matchers = [
        Loaded(MatcherUse(f"plug{at}", 10.0, severe), Knows(answer))
        for at, (answer, severe) in enumerate(matchers)
    ]
    return check


@pytest.mark.parametrize(
    ("listed", "matchers", "category"),
    [
        (None, [], None),
        (False, [], "listed"),
        (True, [(None, True)], "known"),
        (False, [(1.0, True)], "known"),
        (False, [(99.0, True)], "listed"),
        (False, [(None, True)], "listed"),
        (False, [(None, True), (1.0, True)], "known"),
        (None, [(1.0, False)], "listed"),
        (None, [(1.0, False), (1.0, True)], "known"),
        (None, [(None, True)], "unjudgeable"),
        (None, [(None, False), (99.0, True)], "unjudgeable"),
    ],
)
def test_the_worst_that_anything_knows_is_what_counts(
    listed: bool | None, matchers: Sequence[tuple[float | None, bool]], category: str | None
) -> None:
    assert check_with(listed, *matchers).judge_input(canary()).category == category


async def test_who_said_so_and_why_is_written_down_first(tmp_path: Path) -> None:
    file, folder = tmp_path / "brands.csv", tmp_path / "hashes"
    file.write_text(f"{to_hex(ONE)}\n")
    store = await JobStore.open(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    try:
        with pytest.raises(InvalidInput) as refused:
            await list_severity.add(store, folder, file, "brands", is_severe=False, reason=" ")
        assert refused.value.field == "reason"
        assert not folder.exists()
        said = {"is_severe": False, "reason": "logos"}
        assert await list_severity.add(store, folder, file, "brands", **said) == 1  # type: ignore[arg-type]
        assert await list_severity.add(store, folder, file, "abuse", is_severe=True, reason="") == 1
        for reason, is_new in (("a mistake", True), ("again", False)):
            done = await list_severity.change(
                store, folder, "brands", is_severe=True, reason=reason
            )
            assert done is is_new
        trail = await store.people.audit.of(list_severity.SUBJECT)
        assert [(it.kind, it.by, it.data["list"], it.data["is_severe"]) for it in trail] == [
            ("list_added", "operator", "brands", False),
            ("list_added", "operator", "abuse", True),
            ("list_severity", "operator", "brands", True),
        ]
        assert trail[0].data["hashes"] == 1
        assert read(folder / "brands.pdq").is_severe
    finally:
        await store.close()
