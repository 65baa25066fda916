"""Another version of a check takes the place of the one in force, between two pictures or never."""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.core import limits
from calotype.core.messages import CheckSettled, LoadModel, UseChecks
from calotype.core.picture_checks import CheckKind, CheckUse, Trial
from calotype.engine.checks.canaries import landscape, noise
from calotype.engine.checks.recogniser import Ending
from calotype.engine.checks.running import Checks, Seen, load_check
from calotype.engine.checks.swaps import Swaps
from calotype.engine.checks.trials import Trials
from calotype.engine.room import Room
from calotype.engine.tensors import bytes_of
from tests.rooms import tiny_checks
from tests.rooms.test_engine_checks import CPU, pictures

pytestmark = pytest.mark.usefixtures("one_thread")
OLD, NEW = "a" * 16, "b" * 16
LABELS = {CheckKind.CLASSIFIER: tiny_checks.HARMLESS_LABELS, CheckKind.TEXT: ("fine", "harm")}


class Device:
    """The checks of one engine, what it says of them, and the model that needs them."""

    def __init__(self, use: CheckUse, load: Any = load_check, room: Room | None = None) -> None:
        self.said: list[Any] = []
        self.checks = Checks(CPU, load)
        self.woken = threading.Event()
        self.trials = Trials(CPU, self.said.append, load)
        self.swaps = Swaps(
            *(self.checks, self.trials, room or Room()),
            send=self.said.append,
            wake=self.woken.set,
        )
        self.swaps.expect(LoadModel("model", "/nowhere", "0", checks=(use,)))
        self.checks.settle()

    def ask(self, *uses: CheckUse) -> list[CheckSettled]:
        """Ask for these, wait until that is over, and say what came of it."""
        self.swaps.ask(UseChecks(uses))
        self.swaps.settle()
        said, self.said[:] = [*self.said], []
        return said

    def seen(self) -> Seen:
        return self.checks.seen("model", pictures(1))[0]

    def judges(self, use: CheckUse) -> bool:
        """Whether this version answers, and whole."""
        seen = self.seen()
        return seen.builds == {use.name: use.build} and not seen.failed and bool(seen.scores)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CheckUse:
    return replace(tiny_checks.classifier(tmp_path_factory.mktemp("old")), build=OLD)


@pytest.fixture(scope="module")
def other(made: CheckUse, tmp_path_factory: pytest.TempPathFactory) -> CheckUse:
    """Other weights."""
    return version(made, tmp_path_factory.mktemp("new") / "check")


def version(use: CheckUse, folder: Path, change: Callable[[Any], Any] = lambda it: -it) -> CheckUse:
    """The same check with other weights, in a folder of its own."""
    shutil.copytree(use.path, folder)
    for file in folder.glob("*.safetensors"):
        weights = {name: change(tensor) for name, tensor in load_file(file).items()}
        save_file(weights, file, {"format": "pt"})
    return replace(use, path=str(folder), build=NEW)


def test_what_is_proven_judges_from_the_next_picture_on(made: CheckUse, other: CheckUse) -> None:
    device = Device(made)
    before = device.seen()
    assert before.builds == {made.name: OLD}
    assert device.ask(other) == [CheckSettled(made.name, NEW, NEW)]
    after = device.seen()
    assert after.builds == {made.name: NEW}
    assert after.scores != before.scores
    assert device.ask(made) == [CheckSettled(made.name, OLD, OLD)], "and back"
    assert device.seen() == before
    assert device.ask(made) == [CheckSettled(made.name, OLD, OLD)], "nothing is to be done"


def test_a_picture_is_judged_to_its_end_by_what_it_was_begun_with(
    made: CheckUse, other: CheckUse
) -> None:
    asked, go_on = threading.Event(), threading.Event()
    device, found = Device(made, holding(OLD, asked, go_on)), []
    looking = threading.Thread(target=lambda: found.append(device.seen()))
    looking.start()
    assert asked.wait(60)
    assert device.ask(other) == [CheckSettled(made.name, NEW, NEW)]
    assert device.judges(other)
    go_on.set()
    looking.join(60)
    [seen] = found
    assert seen.builds == {made.name: OLD}
    assert not seen.failed
    assert seen.scores == Device(made).seen().scores


def test_while_it_is_proven_the_old_one_judges_and_both_are_counted(
    made: CheckUse, other: CheckUse
) -> None:
    loaded, go_on = threading.Event(), threading.Event()
    hold = holding(NEW, loaded, go_on)
    device = Device(made, hold)
    one = bytes_of(device.checks.tensors())
    device.swaps.ask(UseChecks((other,)))
    device.swaps.step()
    assert device.swaps.bytes or loaded.is_set(), "there is room kept for it"
    assert loaded.wait(60)
    assert device.judges(made)
    assert bytes_of(device.checks.tensors()) == 2 * one
    assert device.said == []
    go_on.set()
    device.swaps.settle()
    assert device.judges(other)
    assert device.woken.is_set()
    gc.collect()
    assert bytes_of(device.checks.tensors()) == one, "the old one is gone"


def holding(build: str, loaded: threading.Event, go_on: threading.Event) -> Any:
    """A version that is loaded, and then waits in its first answer."""

    def load(use: CheckUse, device: torch.device) -> Any:
        check = load_check(use, device)
        if use.build == build:
            scores = check.scores

            def held(given: Sequence[Any]) -> Any:
                loaded.set()
                assert go_on.wait(60)
                return scores(given)

            check.scores = held  # type: ignore[method-assign]
        return check

    return load


def test_without_room_for_both_it_is_refused_and_tried_when_there_is(
    made: CheckUse, other: CheckUse
) -> None:
    room = Room(2**20)
    device = Device(made, room=room)
    held = 0
    room.lines = lambda: {"checks": bytes_of(device.checks.tensors()), "weights": held}
    held = 2**20 - room.lines()["checks"] - 1_000
    [said] = device.ask(other)
    assert (said.build, said.is_full) == (OLD, True)
    assert "only 1,000 are free" in said.why_not
    assert device.judges(made)
    held = 0
    assert device.ask(other) == [CheckSettled(made.name, NEW, NEW)]


def test_one_that_takes_more_than_its_files_is_not_taken(made: CheckUse, other: CheckUse) -> None:
    room = Room(2**20)
    device = Device(made, room=room)
    room.lines = lambda: {"checks": 2**21 * (bytes_of(device.checks.tensors()) > one)}
    one = bytes_of(device.checks.tensors())
    [said] = device.ask(other)
    assert (said.build, said.is_full) == (OLD, True)
    assert device.judges(made)


def test_one_that_hangs_is_left_and_no_other_is_begun_before_it_comes_back(
    made: CheckUse, other: CheckUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, go_on = threading.Event(), threading.Event()
    device = Device(made, holding(NEW, loaded, go_on))
    monkeypatch.setattr(limits, "CHECK_PROOF_S_MAX", 0.5)
    [said] = device.ask(other)
    assert said.build == OLD
    assert "longer than" in said.why_not
    assert device.judges(made)
    [again] = device.ask(other)
    assert "hasn't come back" in again.why_not
    assert device.judges(made)
    go_on.set()
    [places] = device.swaps._left
    [place] = places._places
    assert place._asked is not None
    place._asked.exception(60)
    monkeypatch.setattr(limits, "CHECK_PROOF_S_MAX", 60.0)
    assert device.ask(other) == [CheckSettled(made.name, NEW, NEW)]


def test_what_is_asked_for_last_counts(made: CheckUse, other: CheckUse) -> None:
    """One that is proven when another is wanted by then isn't taken."""
    loaded, go_on = threading.Event(), threading.Event()
    device = Device(made, holding(NEW, loaded, go_on))
    device.swaps.ask(UseChecks((other,)))
    device.swaps.step()
    assert loaded.wait(60)
    device.swaps.ask(UseChecks((made,)))
    go_on.set()
    device.swaps.settle()
    assert device.said == [CheckSettled(made.name, OLD, OLD)]
    assert device.judges(made)


def test_a_check_that_no_model_here_needs_is_tried_when_one_comes(
    made: CheckUse, other: CheckUse
) -> None:
    device = Device(replace(made, name="another"))
    assert device.ask(other) == [CheckSettled(made.name, NEW, "")]
    device.swaps.expect(LoadModel("late", "/nowhere", "0", checks=(made,)))
    device.swaps.settle()
    assert device.said == [CheckSettled(made.name, NEW, NEW)]


@pytest.mark.parametrize("kind", [CheckKind.TEXT, CheckKind.RECOGNISER])
def test_what_reads_prompts_is_swapped_as_well(tmp_path: Path, kind: CheckKind) -> None:
    (tmp_path / "old").mkdir()
    make = tiny_checks.text if kind == CheckKind.TEXT else tiny_checks.recogniser
    use = replace(make(tmp_path / "old"), build=OLD)
    later = version(use, tmp_path / "new")
    device = Device(use)

    def read() -> Seen:
        return device.checks.read("model", "the image", lambda: Ending(torch.ones(32), ()))

    before = read()
    assert device.ask(later) == [CheckSettled(use.name, NEW, NEW)]
    after = read()
    assert (before.builds, after.builds) == ({use.name: OLD}, {use.name: NEW})
    assert before.scores != after.scores
    head = Path(later.path) / "head.safetensors"
    if kind == CheckKind.RECOGNISER:
        head.write_bytes(head.read_bytes()[:-9])
        [said] = device.ask(replace(later, build="c" * 16))
        assert said.build == NEW
        assert "head.safetensors" in said.why_not


def test_what_is_on_trial_changes_with_it(made: CheckUse, other: CheckUse) -> None:
    device = Device(made)
    trial = Trial(**{**vars(other), "share": 1.0})
    device.swaps.ask(UseChecks((made,), (trial,)))
    device.trials.offer("model", "job_1/1/0", device.seen(), pictures(1)[0])
    device.trials.settle()
    [told] = [said for said in device.said if not isinstance(said, CheckSettled)]
    assert (told.build, told.current_build, told.failed) == (NEW, OLD, "")
    assert list(device.trials.tensors())
    device.ask(other)  # it is in force, and on trial no more
    assert not list(device.trials.tensors())
    device.trials.offer("model", "job_1/1/1", device.seen(), pictures(1)[0])
    device.trials.settle()
    assert [said for said in device.said if not isinstance(said, CheckSettled)] == []


@pytest.mark.parametrize("kind", [CheckKind.TEXT, CheckKind.RECOGNISER])
def test_what_reads_prompts_is_on_trial_beside_the_one_that_does(
    tmp_path: Path, kind: CheckKind
) -> None:
    (tmp_path / "old").mkdir()
    make = tiny_checks.text if kind == CheckKind.TEXT else tiny_checks.recogniser
    use = replace(make(tmp_path / "old"), build=OLD)
    trial = Trial(**{**vars(version(use, tmp_path / "new")), "share": 1.0})
    device = Device(use)
    device.swaps.ask(UseChecks((use,), (trial,)))
    ending = Ending(torch.ones(32), ())
    seen = device.checks.read("model", "the image", lambda: ending)
    device.trials.offer("model", "job_1/1/0", seen, pictures(1)[0])  # it isn't asked of pictures
    device.trials.offer_words("model", "job_1/1/0", seen, "the image", lambda: ending)
    device.trials.settle()
    [told] = device.said
    assert (told.build, told.current_build, told.failed) == (NEW, OLD, "")
    assert set(told.scores) == set(told.current) == set(use.labels)
    assert told.scores != told.current
    if kind == CheckKind.RECOGNISER:

        def unread() -> Ending:
            raise RuntimeError("no embedding")

        device.trials.offer_words("model", "job_1/1/1", seen, "the image", unread)
        assert "no embedding" in device.said[-1].failed


def test_the_canaries_are_always_the_same_and_no_two_alike() -> None:
    assert (landscape() == landscape()).all()
    assert (noise() == noise()).all()
    assert landscape().shape == noise().shape
    assert landscape().std() > 20


@pytest.fixture(autouse=True)
def no_rests() -> Iterator[None]:
    yield
    gc.collect()
