"""A prompt is read before the first step: as it is, and as the model's text encoder has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.core import frames, limits
from calotype.core.messages import (
    CancelRow,
    ParkRow,
    RowDone,
    RowFailed,
    RowParked,
    RowRefused,
    RowStarted,
)
from calotype.core.picture_checks import HEAD_FILE, CheckUse
from calotype.engine.checks.recogniser import Ending, RecogniserCheck
from tests.rooms.engine_bench import Bench, run_row
from tests.rooms.engine_models import make_model, pair
from tests.rooms.tiny_checks import recogniser, text

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
HARM = "recogniser:harm"


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Bench:
    return Bench(tiny)


@pytest.fixture
def bench(engine: Bench) -> Bench:
    engine.rest()
    return engine


def expects(bench: Bench, *uses: CheckUse) -> None:
    checks = bench.engine._checks
    checks.expect("tiny", uses)
    for use in uses:  # the engine's of an earlier test may have its name
        checks.swap(checks.placed(use))


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_an_ending_is_what_clip_pools(family: str, tmp_path: Path) -> None:
    model, pipeline = pair(make_model(family, tmp_path / family))
    last = "_2" if family == "sdxl" else ""
    encoder = getattr(pipeline, f"text_encoder{last}")
    tokenizer = getattr(pipeline, f"tokenizer{last}")
    with torch.inference_mode():
        for text in ("", "a red house", "a red house under a starry night " * 40):
            ids = tokenizer(
                text, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            said = encoder(ids)
            pooled = said.text_embeds if last else said.pooler_output
            found = model.ending(model.encode(text))
            assert torch.allclose(found, pooled[0].float(), atol=1e-5)


READERS = pytest.mark.parametrize("make", [recogniser, text])
Make = Callable[[Path], CheckUse]


@READERS
def test_a_row_past_its_limit_makes_no_step(bench: Bench, tmp_path: Path, make: Make) -> None:
    use = make(tmp_path)
    expects(bench, use)
    passes = bench.engine.passes
    bench.finish(run_row("r", refused_from={use.score_name("harm"): 0.0}))
    [refused] = bench.said(RowRefused)
    assert refused.row == "r"
    assert set(refused.scores) == {use.score_name("fine"), use.score_name("harm")}
    assert refused.unchecked == {}
    assert bench.engine.passes == passes, "nothing was denoised"
    assert bench.latents == [], "and nothing decoded"
    assert bench.engine.rows_held == 0
    assert not bench.said(RowStarted)
    head = frames.encode(refused)[frames.HEAD_BYTES : -frames.BLOB_HEAD_BYTES]
    assert frames.decode(head) == refused


@READERS
def test_a_row_that_may_begin_brings_its_scores_with_the_picture(
    bench: Bench, tmp_path: Path, make: Make
) -> None:
    use = make(tmp_path)
    expects(bench, use)
    bench.finish(run_row("r", steps=1, refused_from={use.score_name("harm"): 1.0}))
    [done] = bench.said(RowDone)
    assert {use.score_name("fine"), use.score_name("harm")} < set(done.scores)
    assert done.unchecked == {}


def test_the_prompt_is_what_is_read_and_not_the_negative_one(bench: Bench, tmp_path: Path) -> None:
    use = text(tmp_path)
    expects(bench, use)
    for name, prompt, negative in (
        ("one", "Safe", "Unsafe"),
        ("two", "Safe", ""),
        ("three", "Unsafe", ""),
    ):
        bench.finish(run_row(name, steps=1, prompt=prompt, negative_prompt=negative))
    one, two, three = (done.scores[use.score_name("harm")] for done in bench.said(RowDone))
    assert one == two
    assert two != three


class Hanging:
    """A check that waits for a word, and then allows."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def scores(self, given: Sequence[Any]) -> list[dict[str, float]]:
        self.asked.set()
        self.go_on.wait(60)
        return [{"fine": 1.0, "harm": 0.0} for _ in given]


@pytest.fixture
def hanging(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    check = Hanging()
    monkeypatch.setattr(bench.engine._checks, "_load", lambda use, device: check)
    expects(bench, replace(text(tmp_path), name="hangs"))
    yield check
    check.go_on.set()
    bench.engine._reading.settle()


def test_rows_that_step_do_not_wait_for_one_that_is_read(bench: Bench, hanging: Any) -> None:
    bench.start(run_row("read"))
    assert hanging.asked.wait(60)
    expects(bench)
    bench.start(run_row("steps", steps=2))
    while not any(done.row == "steps" for done in bench.said(RowDone)):
        bench.engine.tick()
        bench.engine._decoding.settle()
    assert [started.row for started in bench.said(RowStarted)] == ["steps"]
    assert bench.engine.rows_held == 1
    hanging.go_on.set()
    bench.finish()
    assert [done.row for done in bench.said(RowDone)] == ["steps", "read"]


def test_a_row_that_is_read_can_be_handed_back_or_dropped(bench: Bench, hanging: Any) -> None:
    bench.start(run_row("back"), run_row("dropped"))
    assert hanging.asked.wait(60)
    bench.engine.handle(ParkRow("back"))
    bench.engine.handle(CancelRow("dropped"))
    [parked] = bench.said(RowParked)
    assert (parked.row, parked.step) == ("back", 0)
    assert bench.engine.rows_held == 0
    hanging.go_on.set()
    bench.finish()
    assert not bench.said(RowStarted)


def test_a_check_that_hangs_begins_no_row(
    bench: Bench, hanging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHECK_S_MAX", 0.05)
    bench.finish(run_row("r"))
    [refused] = bench.said(RowRefused)
    assert "longer than" in refused.unchecked["hangs"]


def test_the_second_place_reads_where_the_first_is_damaged(bench: Bench, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    other = text(tmp_path / "second")
    use = replace(text(tmp_path / "first"), standby=other.path, standby_build="1")
    (tmp_path / "first" / "model.safetensors").write_bytes(b"none")
    expects(bench, use)
    bench.finish(run_row("r", steps=1, refused_from={use.score_name("harm"): 1.0}))
    [done] = bench.said(RowDone)
    assert use.score_name("harm") in done.scores
    assert "text" in done.degraded


def test_a_prompt_s_scores_are_its_embedding_s(bench: Bench, tmp_path: Path) -> None:
    use = recogniser(tmp_path)
    expects(bench, use)
    prompt = "a boat by the sea"
    bench.finish(run_row("r", steps=1, prompt=prompt))
    [done] = bench.said(RowDone)
    head = load_file(tmp_path / HEAD_FILE)
    with torch.inference_mode():
        embedding = bench.model.ending(bench.model.encode(prompt))
        chance = torch.sigmoid(head["head.weight"] @ embedding)[1].item()
    odds = chance / (1 - chance) / (0.6 / 0.4)  # against those of its threshold
    assert done.scores[HARM] == pytest.approx(odds / (1 + odds), abs=1e-4)


def broken_head(folder: Path) -> None:
    (folder / HEAD_FILE).write_bytes(b"none")


def other_encoder(folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"text_encoders": ["another"]}))


def no_threshold(folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"thresholds": {"fine": 0.5}}))


def other_width(folder: Path) -> None:
    recogniser(folder, width=33)


@pytest.mark.parametrize("spoil", [broken_head, other_encoder, no_threshold, other_width])
def test_without_an_answer_no_row_begins(bench: Bench, tmp_path: Path, spoil: Any) -> None:
    use = recogniser(tmp_path)
    spoil(tmp_path)
    check_no_row_begins(bench, use)


def broken_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"none")


def no_numbers(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = {name: each.fill_(torch.nan) for name, each in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("spoil", [broken_weights, no_numbers, no_tokenizer])
def test_without_a_classifiers_answer_no_row_begins(
    bench: Bench, tmp_path: Path, spoil: Any
) -> None:
    use = text(tmp_path)
    spoil(tmp_path)
    check_no_row_begins(bench, use)


def check_no_row_begins(bench: Bench, use: CheckUse) -> None:
    expects(bench, use)
    passes = bench.engine.passes
    bench.finish(run_row("r", refused_from={use.score_name("harm"): 1.0}))
    [refused] = bench.said(RowRefused)
    assert refused.scores == {}
    assert set(refused.unchecked) == {use.name}
    assert not bench.said(RowDone)
    assert bench.engine.passes == passes


def test_a_model_whose_end_of_text_is_not_known_begins_no_row(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expects(bench, recogniser(tmp_path))

    def none(encoding: Any) -> Any:
        raise KeyError("pooled")

    monkeypatch.setattr(bench.model, "ending", none)
    bench.finish(run_row("r"))
    [refused] = bench.said(RowRefused)
    assert "pooled" in refused.unchecked["recogniser"]


def test_a_model_without_one_is_not_held_up(bench: Bench) -> None:
    expects(bench)
    bench.finish(run_row("r", steps=1, refused_from={HARM: 0.0}))
    assert len(bench.said(RowDone)) == 1
    assert not bench.said(RowRefused)
    assert not bench.said(RowFailed)


def test_half_is_where_a_label_s_threshold_is(tmp_path: Path) -> None:
    use = replace(recogniser(tmp_path), labels=("harm", "fine"))  # in whatever order
    check = RecogniserCheck.load(use, CPU)
    check._network.weight.zero_()
    for bias, past in ((0.39, False), (0.42, True)):  # a chance of 0.6 is a logit of 0.405
        check._network.bias.fill_(bias)
        [scores] = check.scores([Ending(torch.zeros(32), ())])
        assert (scores["harm"] >= 0.5) is past
