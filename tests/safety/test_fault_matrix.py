"""Every fault of every check of a picture: it is blocked or held; no file, no address, no preview.

The check is the real one (tiny random weights), with the fault put into it; its answer goes through
the real judging, dispatcher and stores.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calotype.core import limits
from calotype.core.messages import CheckSettled, LoadModel, RowDone, UseChecks
from calotype.core.nouns import Verdict
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.core.states import JobState
from calotype.engine.checks.base import Picture
from calotype.engine.checks.recogniser import Ending
from calotype.engine.checks.running import Checks, Seen, load_check
from calotype.engine.checks.swaps import Swaps
from calotype.engine.checks.trials import Trials
from calotype.engine.room import Room
from calotype.flow.finish import Raw
from calotype.safety import pictures as judging
from calotype.safety.hash_lists import HashList, KnownPictures
from calotype.safety.pdq import pdq
from calotype.safety.pictures import PictureCheck, Scored
from calotype.safety.policies import shipped
from calotype.safety.setup import ConfiguredCheck, SafetySetup
from tests.flow.dispatch_bench import Bench, running_bench
from tests.rooms import tiny_checks
from tests.rooms.test_safety_pictures import canary

pytestmark = pytest.mark.usefixtures("one_thread", "short_times")

MAKE = tiny_checks.MAKE | {CheckKind.RECOGNISER: tiny_checks.recogniser}

MEANINGS = {"normal": "harmless", "nsfw": "sexual", "special": "sexual", "concept": "sexual",
            "dangerous": "illegal", "outside": "outside", "unsafe": "unsafe", "sexual": "sexual",
            "violence": "violence", "fine": "harmless",
            "harm": "sexual"}  # fmt: skip
GO_ON = threading.Event()  # to what hangs
LOOKS = CheckUse("looks", CheckKind.CLASSIFIER.value, "/nowhere", "0", ("nsfw",))  # it is well


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 30.0)


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Says that a fault is waited for, by which limit; what hangs goes on afterwards."""

    def short(fault: str, limit: str) -> None:
        if fault == "timeout":  # of others the reason has to be theirs
            monkeypatch.setattr(limits, limit, 0.1)

    GO_ON.clear()
    yield short
    GO_ON.set()


@pytest.fixture(scope="module")
def one_thread() -> Any:
    from tests.rooms.engine_bench import threads

    with threads(1):
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[CheckKind, Path]:
    made = {}
    for kind, make in MAKE.items():
        made[kind] = tmp_path_factory.mktemp(kind.value)
        make(made[kind])
    return made


Fault = Callable[[Any], None]  # into a loaded check


def hangs(check: Any) -> None:
    """Until the test is over: no time is too short for it."""
    scores = check.scores

    def hanging(given: Sequence[Picture]) -> Any:
        assert GO_ON.wait(120)
        return scores(given)

    check.scores = hanging


def out_of_memory(check: Any) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for part in _network(check).modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
            part.forward = full


def not_numbers(check: Any) -> None:
    for weights in _network(check).parameters():
        weights.data.fill_(float("nan"))


def wrong_labels(check: Any) -> None:
    scores = check.scores
    check.scores = lambda given: [dict(list(one.items())[1:]) for one in scores(given)]


def one_too_few(check: Any) -> None:
    scores = check.scores
    check.scores = lambda given: scores(given)[1:]


def _network(check: Any) -> Any:
    return getattr(check, "_network", None) or check._net


FAULTS: dict[str, Fault] = {
    "timeout": hangs,
    "out of memory": out_of_memory,
    "NaN": not_numbers,
    "wrong label count": wrong_labels,
    "half an answer": one_too_few,
}


def seen(use: CheckUse, fault: Fault) -> Seen:
    def load(one: CheckUse, device: torch.device) -> Any:
        check = load_check(one, device)
        fault(check)
        return check

    checks = Checks(torch.device("cpu"), load)
    checks.expect("tiny", [use])
    checks.settle()  # it is loaded
    if use.reads:
        return checks.read("tiny", "the image", lambda: Ending(torch.ones(32), ()))
    return checks.seen("tiny", [canary(size=64)])[0]


def judged(use: CheckUse, seen: Seen) -> Callable[[Raw], Verdict]:
    """The real judgement of what the engine would send."""
    uses = (LOOKS, use)
    configured = [
        ConfiguredCheck(each, {label: MEANINGS[label] for label in each.labels}) for each in uses
    ]
    check = PictureCheck(setup=SafetySetup(shipped(), checks=tuple(configured)))
    fine = {"finite": 1.0, LOOKS.score_name("nsfw"): 0.0}
    scored = Scored(fine | seen.scores, uses, seen.failed)
    return lambda raw: check.judge(canary(size=64), scored)


async def nothing_is_to_be_had(bench: Bench, answer: Callable[[Raw], Verdict], check: str) -> None:
    bench.finisher.answer = answer
    job = await bench.state(await bench.queue(), JobState.PENDING_SAFETY, JobState.FAILED)
    log = await bench.store.events(job.id)
    assert bench.files() == []
    assert (await bench.store.get(job.id)).images == ()
    assert await bench.previews(job) == 0
    assert not [event for event in log if event.kind in ("image_finished", "succeeded")]
    assert "url" not in str([event.data for event in log])
    held = [event.data["reason"] for event in log if event.kind == "pending_safety"]
    assert held, job.error
    assert check in held[0]


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("kind", list(MAKE))
async def test_a_fault_of_a_check_in_the_engine_delivers_nothing(
    folders: dict[CheckKind, Path],
    tmp_path: Path,
    kind: CheckKind,
    fault: str,
    hung: Callable[[str, str], None],
) -> None:
    use = _use(kind, folders[kind])
    hung(fault, "CHECK_S_MAX")
    said = seen(use, FAULTS[fault])
    assert said.scores == {}
    assert use.name in said.failed
    async with running_bench(tmp_path) as bench:
        await nothing_is_to_be_had(bench, judged(use, said), use.name)


# Another version that is to take its place.


def settled(use: CheckUse, other: CheckUse, fault: Fault) -> tuple[CheckSettled, Seen]:
    """What becomes of it, with a fault of its own, and what is said of a picture then."""

    def load(one: CheckUse, device: torch.device) -> Any:
        check = load_check(one, device)
        if one == other:
            fault(check)
        return check

    told: list[Any] = []
    checks = Checks(torch.device("cpu"), load)
    trials = Trials(torch.device("cpu"), told.append, load)
    swaps = Swaps(checks, trials, Room(), send=told.append, wake=lambda: None)
    swaps.expect(LoadModel("tiny", "/nowhere", "0", checks=(use,)))
    checks.settle()
    swaps.ask(UseChecks((other,)))
    swaps.settle()
    [said] = told
    if use.reads:
        return said, checks.read("tiny", "the image", lambda: Ending(torch.ones(32), ()))
    return said, checks.seen("tiny", [canary(size=64)])[0]


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("kind", list(MAKE))
def test_a_fault_in_the_proof_of_another_version_leaves_the_old_one_in_force(
    folders: dict[CheckKind, Path], kind: CheckKind, fault: str, hung: Callable[[str, str], None]
) -> None:
    use = _use(kind, folders[kind])
    hung(fault, "CHECK_PROOF_S_MAX")
    said, seen = settled(use, replace(use, build="1"), FAULTS[fault])
    assert (said.wanted, said.build) == ("1", use.build)
    assert said.why_not
    assert seen.builds == {use.name: use.build}
    assert seen.scores
    assert not seen.failed


@pytest.mark.parametrize("kind", list(MAKE))
def test_corrupt_weights_of_another_version_leave_the_old_one_in_force(
    folders: dict[CheckKind, Path], tmp_path: Path, kind: CheckKind
) -> None:
    use, other = _use(kind, folders[kind]), tmp_path / "other"
    shutil.copytree(folders[kind], other)
    [weights, *_] = sorted(other.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    said, seen = settled(use, replace(use, path=str(other), build="1"), lambda check: None)
    assert said.build == use.build
    assert said.why_not
    assert seen.builds == {use.name: use.build}
    assert not seen.failed


@pytest.mark.parametrize("kind", list(MAKE))
async def test_corrupt_weights_of_a_check_deliver_nothing(tmp_path: Path, kind: CheckKind) -> None:
    folder = tmp_path / "check"
    folder.mkdir()
    use = MAKE[kind](folder)
    [weights, *_] = sorted(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    said = seen(use, lambda check: None)
    assert said.scores == {}
    async with running_bench(tmp_path) as bench:
        await nothing_is_to_be_had(bench, judged(use, said), use.name)


@pytest.mark.parametrize("kind", list(MAKE))
async def test_an_engine_killed_over_a_check_delivers_nothing(
    folders: dict[CheckKind, Path], tmp_path: Path, kind: CheckKind
) -> None:
    """Its report never comes, and what comes late of it is nobody's."""
    async with running_bench(tmp_path) as bench:
        job = await bench.queue(_wait())
        await bench.state(job, JobState.RUNNING)
        row = f"{job.id}/1/0"
        await bench.pool.lose()
        scores = {_use(kind, folders[kind]).score_name("any"): 0.0, "finite": 1.0}
        await bench.pool.say(RowDone(row, 8, 8, scores, 0.1), blob=bytes(8 * 8 * 3))
        await bench.state(job, JobState.QUEUED)
        assert bench.files() == []
        assert (await bench.store.get(job.id)).images == ()
        assert await bench.events(job, "image_finished") == []


def _wait() -> Any:
    from tests.flow.dispatch_bench import WAIT

    return WAIT


def _use(kind: CheckKind, folder: Path) -> CheckUse:
    labels = {
        CheckKind.CLASSIFIER: tiny_checks.HARMLESS_LABELS,
        CheckKind.SHIELDGEMMA2: tiny_checks.POLICIES,
        CheckKind.TEXT: ("fine", "harm"),
        CheckKind.RECOGNISER: ("fine", "harm"),
        CheckKind.PROBE: tiny_checks.HARMLESS_LABELS,
    }
    return tiny_checks.use(folder, kind, labels.get(kind, ()))


# The checks that run beside the server.


def raises(error: BaseException) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        raise error

    return run


@pytest.mark.parametrize("fault", [MemoryError("full"), OSError("gone"), ValueError("shapes")])
@pytest.mark.parametrize("check", ["pdq", "phash.small"])
async def test_a_fault_of_a_comparison_delivers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, fault: Exception
) -> None:
    use = _use(CheckKind.CLASSIFIER, tmp_path)
    fine = Seen({use.score_name(label): 0.0 for label in use.labels})
    target, _, name = check.rpartition(".")
    monkeypatch.setattr(getattr(judging, target) if target else judging, name, raises(fault))
    async with running_bench(tmp_path) as bench:
        await nothing_is_to_be_had(bench, judged(use, fine), str(fault))


@pytest.mark.parametrize("score", [float("nan"), None])
async def test_a_damaged_or_missing_score_of_wholeness_delivers_nothing(
    tmp_path: Path, score: float | None
) -> None:
    use = _use(CheckKind.CLASSIFIER, tmp_path)
    scores = {use.score_name(label): 0.0 for label in use.labels}
    scores |= {"finite": score} if score is not None else {}
    setup = SafetySetup(
        shipped(),
        checks=(ConfiguredCheck(use, {label: MEANINGS[label] for label in use.labels}),),
    )
    check = PictureCheck(setup=setup)
    async with running_bench(tmp_path) as bench:
        bench.finisher.answer = lambda raw: check.judge(canary(size=64), Scored(scores, (use,)))
        job = await bench.state(await bench.queue(), JobState.PENDING_SAFETY, JobState.FAILED)
        assert bench.files() == []
        assert (await bench.store.get(job.id)).images == ()


def test_a_picture_that_is_known_is_blocked_though_every_check_allows_it() -> None:
    use = _use(CheckKind.CLASSIFIER, Path("/nowhere"))
    setup = SafetySetup(
        shipped(),
        checks=(ConfiguredCheck(use, {label: MEANINGS[label] for label in use.labels}),),
    )
    known = KnownPictures([HashList("canaries", pdq(canary()).positions[:1])])
    scores = {"finite": 1.0} | {use.score_name(label): 0.0 for label in use.labels}
    turned = np.ascontiguousarray(np.rot90(canary()))
    verdict = PictureCheck(known, setup).judge(turned, Scored(scores, (use,)))
    assert (verdict.category, verdict.check) == ("known", "known:canaries")
