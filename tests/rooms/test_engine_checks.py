"""Picture checks in the engine: each kind of network, on tiny random weights of its real class."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.core import frames, limits
from calotype.core.messages import LoadModel, RowDone
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.engine.checks.base import Picture
from calotype.engine.checks.recogniser import Ending
from calotype.engine.checks.running import Checks, load_check
from tests.rooms.engine_bench import Bench, run_row
from tests.rooms.tiny_checks import MAKE, TEXT_ROOM, classifier

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
PROMPTS = ("Rate the image", "answer as Safe or Unsafe .", "the image")


@pytest.fixture(scope="module")
def uses(tmp_path_factory: pytest.TempPathFactory) -> dict[CheckKind, CheckUse]:
    return {kind: make(tmp_path_factory.mktemp(kind.value)) for kind, make in MAKE.items()}


def pictures(count: int = 3) -> list[Picture]:
    rng = np.random.default_rng(5)
    sizes = [(64, 64), (48, 96), (128, 72)]
    return [rng.integers(0, 256, (*sizes[at % 3], 3), np.uint8) for at in range(count)]


def seen(use: CheckUse, given: Sequence[Picture], prompts: Sequence[str] = PROMPTS) -> Any:
    checks = Checks(CPU)
    checks.expect("model", [use])
    if not use.reads:
        return checks.seen("model", given)
    return [checks.read("model", prompt, no_ending) for prompt in prompts[: len(given)]]


def no_ending() -> Ending:
    raise AssertionError("a text classifier doesn't want it")


@pytest.mark.parametrize("kind", list(MAKE))
def test_every_kind_scores_every_picture_alike_alone_or_in_a_batch(
    uses: dict[CheckKind, CheckUse], kind: CheckKind
) -> None:
    use, given = uses[kind], pictures()
    together = seen(use, given)
    for at, (picture, one) in enumerate(zip(given, together, strict=True)):
        assert one.failed == {}
        assert set(one.scores) == {use.score_name(label) for label in use.labels}
        assert all(0.0 <= score <= 1.0 for score in one.scores.values())
        [alone] = seen(use, [picture], PROMPTS[at:])
        assert alone.scores == pytest.approx(one.scores, abs=1e-4)
    assert together[0].scores != together[1].scores


def test_a_classifier_for_several_labels_scores_each_by_itself(
    uses: dict[CheckKind, CheckUse], tmp_path: Path
) -> None:
    use = classifier(tmp_path)
    [softmax] = seen(use, pictures(1))
    assert sum(softmax.scores.values()) == pytest.approx(1.0)
    config = json.loads((tmp_path / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (tmp_path / "config.json").write_text(json.dumps(config))
    [sigmoid] = seen(use, pictures(1))
    assert sum(sigmoid.scores.values()) != pytest.approx(1.0)


def test_concepts_flag_where_diffusers_own_checker_does(uses: dict[CheckKind, CheckUse]) -> None:
    from calotype.engine.checks.concepts import ConceptsCheck

    check = ConceptsCheck.load(uses[CheckKind.CONCEPTS], CPU)
    given = pictures()
    network = check._network
    for limit in (-0.5, -0.2, 0.0, 0.1, 0.3):
        network.concept_embeds_weights.data.fill_(limit)
        network.special_care_embeds_weights.data.fill_(limit)
        clip = check._processor(images=given, return_tensors="pt")["pixel_values"]
        _, flagged = network(clip, [np.array(each) for each in given])
        with torch.inference_mode():
            ours = [scores["concept"] > 0.5 for scores in check.scores(given)]
        assert ours == flagged, limit


def test_a_long_prompt_is_read_in_windows_and_the_worst_counts(
    uses: dict[CheckKind, CheckUse], monkeypatch: pytest.MonkeyPatch
) -> None:
    from calotype.engine.checks.texts import TextCheck

    check = TextCheck.load(uses[CheckKind.TEXT], CPU)
    prompt = "the image " * 30 + "Unsafe " * 5 + "answer " * 30
    windows = check._windows(prompt)
    assert len(windows) > 10
    assert all(len(window) <= TEXT_ROOM for window in windows)
    inner = [window[1:-1] for window in windows]  # without the special tokens
    for one, other in pairwise(inner):
        assert other[: check._overlap] == one[-check._overlap :], "they overlap by half"
    with torch.inference_mode():
        shares = [check._share(window)[1] for window in windows]
        [scores] = check.scores([prompt])
    assert scores["harm"] == pytest.approx(float(max(shares)), abs=1e-5)
    assert max(shares) > min(shares)
    monkeypatch.setattr(limits, "TEXT_WINDOWS_MAX", 3)
    [refused] = seen(uses[CheckKind.TEXT], pictures(1), [prompt])
    assert "windows" in refused.failed["text"]


@pytest.mark.parametrize("prompt", ["", "   ", "\u202e\u0000\U0001f600" * 300])
def test_whatever_is_asked_has_a_score(uses: dict[CheckKind, CheckUse], prompt: str) -> None:
    [one] = seen(uses[CheckKind.TEXT], pictures(1), [prompt])
    assert one.failed == {}


# Faults.


def test_weights_that_are_no_safetensors_are_not_loaded(
    uses: dict[CheckKind, CheckUse], tmp_path: Path
) -> None:
    use = classifier(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    [one] = seen(use, pictures(1))
    assert "safetensors" in one.failed[use.name]


def test_weights_with_a_part_missing_are_not_filled_by_chance(tmp_path: Path) -> None:
    use = classifier(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["classifier.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    [one] = seen(use, pictures(1))
    assert "classifier.weight" in one.failed[use.name]


@pytest.mark.parametrize("kind", list(MAKE))
def test_weights_of_another_dtype_are_loaded_without_making_it_everybodys(
    kind: CheckKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use = MAKE[kind](tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        half = {name: it.bfloat16() for name, it in load_file(path).items()}
        save_file(half, path, metadata={"format": "pt"})
    if (config := tmp_path / "config.json").exists():
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "bfloat16"}))
    made: list[torch.dtype] = []
    monkeypatch.setattr(torch, "set_default_dtype", made.append)  # of all threads, not of its own
    load_check(use, CPU)
    assert set(made) <= {torch.float32}


def test_a_folder_can_bring_no_code(tmp_path: Path) -> None:
    use = classifier(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    [one] = seen(use, pictures(1))
    assert use.name in one.failed
    assert not (tmp_path / "ran").exists()


def test_what_was_mended_is_loaded_with_the_next_picture(tmp_path: Path) -> None:
    use = classifier(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    checks = Checks(CPU)
    checks.expect("model", [use])
    [one] = checks.seen("model", pictures(1))
    assert one.scores == {}
    path.write_bytes(whole)
    [one] = checks.seen("model", pictures(1))
    assert one.failed == {}


def test_one_that_fails_leaves_the_others_their_answers(
    uses: dict[CheckKind, CheckUse], tmp_path: Path
) -> None:
    broken = replace(classifier(tmp_path), name="broken", labels=("other",))
    checks = Checks(CPU)
    checks.expect("model", [broken, uses[CheckKind.DOMAIN]])
    [one] = checks.seen("model", pictures(1))
    assert set(one.failed) == {"broken"}
    assert set(one.scores) == {"domain:outside"}


def test_one_that_hangs_is_left_and_nothing_is_judged_until_it_is_back(
    uses: dict[CheckKind, CheckUse], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHECK_S_MAX", 0.05)
    use, go_on = uses[CheckKind.DOMAIN], threading.Event()

    class Hanging:
        def scores(self, given: Sequence[Picture]) -> list[dict[str, float]]:
            go_on.wait(30)
            return [{"outside": 0.0} for _ in given]

    checks = Checks(CPU, lambda one, device: Hanging())
    checks.expect("model", [use])
    [one] = checks.seen("model", pictures(1))
    assert "longer than" in one.failed[use.name]
    [one] = checks.seen("model", pictures(1))
    assert "come back" in one.failed[use.name]
    go_on.set()
    checks.settle()
    [place] = checks._places[use.name]._places
    assert place._asked is not None
    place._asked.result(120)
    monkeypatch.setattr(limits, "CHECK_S_MAX", 30.0)
    [one] = checks.seen("model", pictures(1))
    assert one.failed == {}


def test_a_model_that_nobody_expects_has_no_scores() -> None:
    [one] = Checks(CPU).seen("model", pictures(1))
    assert not one.scores
    assert not one.failed


def test_a_check_is_loaded_once_for_all_its_models(uses: dict[CheckKind, CheckUse]) -> None:
    loads: list[str] = []

    def load(use: CheckUse, device: torch.device) -> Any:
        loads.append(use.name)
        return load_check(use, device)

    checks = Checks(CPU, load)
    for model in ("one", "other"):
        checks.expect(model, [uses[CheckKind.DOMAIN]])
        checks.seen(model, pictures(1))
    assert loads == ["domain"]


# In the engine.


def test_scores_and_failures_come_with_the_picture(
    uses: dict[CheckKind, CheckUse], tiny: Path, tmp_path: Path
) -> None:
    broken = replace(classifier(tmp_path), name="broken", labels=("other",))
    bench = Bench(tiny)
    bench.engine._checks.expect("tiny", [uses[CheckKind.DOMAIN], uses[CheckKind.TEXT], broken])
    bench.finish(run_row("r", steps=1))
    [done] = bench.said(RowDone)
    wanted = {"finite", "contrast", "domain:outside", "text:fine", "text:harm"}
    assert set(done.scores) == wanted
    assert "mapped" in done.unchecked["broken"]
    head = frames.encode(done)[frames.HEAD_BYTES : -frames.BLOB_HEAD_BYTES]
    assert frames.decode(head) == done


def test_a_check_travels_with_the_model_that_needs_it(uses: dict[CheckKind, CheckUse]) -> None:
    load = LoadModel("tiny", "/nowhere", "0", checks=tuple(uses.values()))
    head = frames.encode(load)[frames.HEAD_BYTES : -frames.BLOB_HEAD_BYTES]
    assert frames.decode(head) == load
