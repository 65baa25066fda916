"""Rows with LoRAs beside others: the same bits, who waits and who doesn't, what may be resident."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from calotype.core import limits
from calotype.core.messages import (
    CancelRow,
    LoadModel,
    ModelFailed,
    ModelLoaded,
    RowDone,
    RowFailed,
    RowLora,
    RowStarted,
    RunRow,
)
from calotype.engine.inbox import Inbox
from calotype.engine.lora.bank import LoraBank, lora_key
from calotype.engine.lora.reading import Lora
from tests.rooms import engine_loras as made
from tests.rooms.engine_bench import Bench, run_row, run_to_end, threads
from tests.rooms.test_engine_process import Server

pytestmark = pytest.mark.usefixtures("one_thread")

RANKS = (1, 4, 7, 16, 64)  # of the LoRAs there are; of five rank classes but one


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> Bench:
    return Bench(tiny)


@pytest.fixture
def bench(loaded: Bench) -> Iterator[Bench]:
    """An engine that has no rows and no LoRAs, and the whole budget."""
    loaded.heard.clear()
    yield loaded
    run_to_end(loaded.engine)
    loaded.model.loras.merge(())
    loaded.model.loras._bytes_max = limits.LORAS_BYTES_MAX
    loaded.model.build = "build"


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """LoRAs of different ranks; every other one for attention alone."""
    folder = tmp_path_factory.mktemp("loras")
    unet = UNet2DConditionModel.from_pretrained(tiny / "unet")
    chosen: list[Callable[[str], bool]] = [made.is_any, made.is_attention]
    return [
        made.save(
            made.random_tensors(
                unet, made.peft_name(), rank=rank, seed=number, chosen=chosen[number % 2]
            ),
            folder / f"lora{number}.safetensors",
        )
        for number, rank in enumerate(RANKS)
    ]


def held(bench: Bench) -> LoraBank:
    return bench.model.loras


@dataclass(frozen=True)
class Recipe:
    """What a row asks for, in a few small numbers."""

    loras: tuple[tuple[int, float], ...]
    steps: int
    guidance: float
    sampler: str
    seed: int

    def row(self, name: str, files: list[Path]) -> RunRow:
        return run_row(
            name,
            loras=tuple(made.lora(files[number], weight) for number, weight in self.loras),
            steps=self.steps,
            guidance=self.guidance,
            sampler=self.sampler,
            seed=self.seed,
        )


RECIPES = st.builds(
    Recipe,
    loras=st.lists(
        st.tuples(st.integers(0, len(RANKS) - 1), st.sampled_from([0.3, 0.5, 0.0, -0.2])),
        max_size=3,
        unique_by=lambda one: one[0],
    ).map(tuple),
    steps=st.integers(1, 4),
    guidance=st.sampled_from([1.0, 5.0]),
    sampler=st.sampled_from(["euler", "euler_a", "dpmpp_2m", "lcm"]),
    seed=st.integers(0, 3),
)


@dataclass
class Crowds:
    """An engine with so many threads, and what each recipe draws there with nobody beside it."""

    bench: Bench
    threads: int
    files: list[Path]
    known: dict[Recipe, bytes] = field(default_factory=dict)

    def alone(self, recipe: Recipe) -> bytes:
        if recipe not in self.known:
            self.bench.heard.clear()
            self.bench.finish(recipe.row("alone", self.files))
            self.known[recipe] = self.bench.pixels("alone")
        return self.known[recipe]


@pytest.fixture(scope="module", params=[1, 2], ids=["one-thread", "two-threads"])
def crowds(request: pytest.FixtureRequest, tiny: Path, files: list[Path]) -> Crowds:
    with threads(request.param):  # the batch sizes are proven with as many
        return Crowds(Bench(tiny), request.param, files)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # a smaller case isn't worth minutes of a machine
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(crowd=st.lists(st.tuples(RECIPES, st.integers(0, 3)), min_size=2, max_size=6))
def test_rows_with_different_loras_draw_the_same_bits_alone_and_beside_others(
    crowds: Crowds, crowd: list[tuple[Recipe, int]]
) -> None:
    """Each joins some passes after the one before, and leaves when it is done."""
    bench = crowds.bench
    with threads(crowds.threads):
        expected = [crowds.alone(recipe) for recipe, _ in crowd]
        bench.heard.clear()
        for number, (recipe, ticks_before) in enumerate(crowd):
            for _ in range(ticks_before):
                bench.engine.tick()
            bench.start(recipe.row(f"r{number}", crowds.files))
        run_to_end(bench.engine)
    assert [bench.pixels(f"r{number}") for number in range(len(crowd))] == expected


def test_a_row_without_loras_keeps_the_bits_it_had_before_there_were_any(
    bench: Bench, files: list[Path]
) -> None:
    bench.finish(run_row("before"))
    bench.finish(run_row("lora", loras=(made.lora(files[0]),)))
    bench.finish(run_row("after"))
    bench.finish(run_row("beside"), run_row("other", loras=(made.lora(files[2]),), seed=5))
    assert bench.pixels("before") == bench.pixels("after") == bench.pixels("beside")
    assert bench.pixels("lora") != bench.pixels("before")


def test_a_weight_of_zero_is_no_lora_and_reads_no_file(bench: Bench, files: list[Path]) -> None:
    bench.finish(run_row("bare"), run_row("zero", loras=(made.lora(files[0], 0.0),)))
    assert bench.pixels("zero") == bench.pixels("bare")
    assert len(held(bench)) == 0


def test_layers_are_wrapped_only_while_a_lora_needs_them(bench: Bench, files: list[Path]) -> None:
    before = dict(bench.model.denoiser.named_modules())
    bench.finish(run_row("a", loras=(made.lora(files[1]),)))
    changed = {name for name, it in before.items() if name not in _modules(bench, it)}
    assert changed
    assert all(made.is_attention(name) for name in changed)
    held(bench).evict(lora_key(made.lora(files[1])))
    assert _modules(bench) == list(before)
    assert all(bench.model.denoiser.get_submodule(name) is it for name, it in before.items())


def _modules(bench: Bench, only: torch.nn.Module | None = None) -> list[str]:
    named = bench.model.denoiser.named_modules()
    return [name for name, it in named if only is None or it is only]


def test_a_lora_that_was_evicted_is_read_again_and_draws_the_same(
    bench: Bench, files: list[Path]
) -> None:
    first, second = (made.lora(path) for path in files[:2])
    bench.finish(run_row("before", loras=(first,)))
    bank = held(bench)
    bank._bytes_max = bank.bytes + 1  # no room for another
    bench.finish(run_row("other", loras=(second,)))
    assert lora_key(first) not in bank
    bank._bytes_max = limits.LORAS_BYTES_MAX
    bench.finish(run_row("after", loras=(first,)))
    assert bench.pixels("before") == bench.pixels("after")


def test_the_budget_is_of_bytes_as_tensors_hold_them_and_the_oldest_goes(
    bench: Bench, files: list[Path]
) -> None:
    bank = held(bench)
    read = [bank.read(made.lora(path)) for path in files[:4]]
    bank._bytes_max = sum(one.bytes for one in read[:3])
    for one in read[:3]:
        bank.install(one)
    assert bank.bytes == bank._bytes_max == sum(_tensor_bytes(one) for one in read[:3])
    bench.finish(run_row("touch", loras=(made.lora(files[0]),)))
    bank.install(read[3])
    assert read[1].key not in bank, "used longest ago"
    assert bank.bytes <= bank._bytes_max


def _tensor_bytes(lora: Lora) -> int:
    pairs = lora.pairs.values()
    return sum(it.untyped_storage().nbytes() for pair in pairs for it in (pair.down, pair.up))


def test_what_running_rows_use_is_never_evicted_and_the_other_is_told_to_come_again(
    bench: Bench, files: list[Path]
) -> None:
    held(bench)._bytes_max = held(bench).read(made.lora(files[4])).bytes
    bench.start(run_row("runs", loras=(made.lora(files[4]),), steps=3))
    bench.finish(run_row("full", loras=(made.lora(files[1]),)))
    assert bench.pixels("runs")
    assert bench.failure("full").retryable
    assert "no room" in bench.failure("full").reason
    bench.finish(run_row("later", loras=(made.lora(files[1]),)))
    assert bench.pixels("later")
    held(bench)._bytes_max = 1000
    bench.finish(run_row("never", loras=(made.lora(files[0]),)))
    assert not bench.failure("never").retryable


class Gate:
    """Holds back a bank's reading until it is opened."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.open, self.reads = threading.Event(), threading.Event(), 0
        read = held(bench).read

        def gated(lora: RowLora) -> Lora:
            self.reads += 1
            self.begun.set()
            assert self.open.wait(60)
            return read(lora)

        monkeypatch.setattr(held(bench), "read", gated)


@pytest.fixture
def gate(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(bench, monkeypatch)
    yield gate
    gate.open.set()


def test_others_step_on_while_a_file_is_read(bench: Bench, files: list[Path], gate: Gate) -> None:
    bench.start(run_row("others", steps=3), run_row("waits", loras=(made.lora(files[0]),)))
    assert gate.begun.wait(60)
    while bench.engine.tick():
        pass
    bench.engine.settle()
    assert bench.pixels("others")
    assert "waits" not in {m.row for m in bench.said(RowStarted)}
    assert bench.engine.rows_held == 1
    gate.open.set()
    run_to_end(bench.engine)
    assert bench.pixels("waits")
    assert [m.row for m in bench.said(RowStarted)] == ["others", "waits"]


def test_a_file_is_read_once_for_all_that_want_it(
    bench: Bench, files: list[Path], gate: Gate
) -> None:
    rows = [run_row(f"r{i}", loras=(made.lora(files[0]),), seed=i) for i in range(3)]
    bench.start(*rows)
    gate.open.set()
    run_to_end(bench.engine)
    assert gate.reads == 1
    assert len(bench.said(RowDone)) == 3


def test_a_waiting_row_can_be_cancelled(bench: Bench, files: list[Path], gate: Gate) -> None:
    first, second = (made.lora(path) for path in files[:2])
    bench.start(run_row("gone", loras=(first,)), run_row("queued", loras=(second,)))
    assert gate.begun.wait(60)
    for row in ("gone", "queued"):
        bench.engine.handle(CancelRow(row))
    assert bench.engine.rows_held == 0
    gate.open.set()
    bench.finish(run_row("next", loras=(made.lora(files[2]),)))
    assert [m.row for m in bench.said(RowStarted)] == ["next"]
    assert gate.reads == 2, "what nobody wanted any more wasn't begun"
    assert len(held(bench)) == 1
    assert not bench.said(RowFailed)


def test_waiting_rows_are_bounded(
    bench: Bench, files: list[Path], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ADAPTERS_READ_MAX", 2)
    bench.start(*(run_row(f"r{i}", loras=(made.lora(files[i]),)) for i in range(3)))
    assert bench.failure("r2").retryable
    bench.start(
        *(run_row(f"s{i}", loras=(made.lora(files[0]),)) for i in range(limits.ENGINE_ROWS_MAX - 1))
    )
    assert bench.engine.rows_held == limits.ENGINE_ROWS_MAX
    assert bench.failure(f"s{limits.ENGINE_ROWS_MAX - 2}").retryable
    for i in range(limits.ENGINE_ROWS_MAX):
        bench.engine.handle(CancelRow(f"s{i}"))


def test_an_inbox_that_waits_can_be_woken() -> None:
    inbox = Inbox(4)
    inbox.wake()
    assert inbox.take(wait=False) is None
    assert inbox.take(wait=True) is None, "a wake isn't lost"
    inbox.put(CancelRow("r"))
    assert inbox.take(wait=True) == (CancelRow("r"), b"")
    thread = threading.Timer(0.01, inbox.wake)
    thread.start()
    assert inbox.take(wait=True) is None
    thread.join()


def test_an_engine_that_sleeps_is_woken_when_a_file_has_been_read(
    tiny: Path, files: list[Path]
) -> None:
    server = Server()
    try:
        server.say(LoadModel("tiny", str(tiny), "b"))
        server.hear_until(ModelLoaded)
        for number in range(2):  # nothing else steps, and no other command comes
            server.say(run_row(f"r{number}", loras=(made.lora(files[number]),)))
            told = {type(message) for message, _ in server.hear_until(RowDone)}
            assert RowStarted in told
    finally:
        server.socket.close()
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize(
    ("loras", "reason"),
    [
        ([(0, 1.0), (0, 0.5)], "twice"),
        ([(0, 4.5)], "weight 4.5"),
        ([(0, float("nan"))], "weight nan"),
        ([(i % 5, 1.0) for i in range(6)], "6 LoRAs"),
    ],
)
def test_what_cannot_be_asked_for_fails_for_good(
    bench: Bench, files: list[Path], loras: list[tuple[int, float]], reason: str
) -> None:
    asked = tuple(made.lora(files[number], weight) for number, weight in loras)
    bench.start(run_row("r", loras=asked))
    assert reason in bench.failure("r").reason
    assert not bench.failure("r").retryable


# Merged sets.


def load(bench: Bench, tiny: Path, *loras: RowLora) -> None:
    bench.engine.handle(LoadModel("tiny", str(tiny), "build", merged=loras))


def test_a_merged_set_is_in_the_weights_and_comes_out_again_bit_for_bit(
    bench: Bench, tiny: Path, files: list[Path]
) -> None:
    denoiser = bench.model.denoiser
    before = {name: it.clone() for name, it in denoiser.state_dict().items()}
    loras = (made.lora(files[0], 0.5), made.lora(files[1], 0.3))
    bench.finish(run_row("bare"), run_row("beside", loras=loras))
    load(bench, tiny, *loras)
    assert bench.engine._models.get("tiny").denoiser is denoiser, "nothing is read again"
    changed = [name for name, it in denoiser.state_dict().items() if not it.equal(before[name])]
    assert len(changed) == len(held(bench).layers.accepted)
    bench.finish(run_row("merged", loras=loras))
    apart = bench.picture("merged").astype(int) - bench.picture("beside").astype(int)
    assert abs(apart).max() <= 1
    load(bench, tiny)
    assert all(torch.equal(it, before[name]) for name, it in denoiser.state_dict().items())
    bench.finish(run_row("again"), run_row("beside again", loras=loras))
    assert bench.pixels("again") == bench.pixels("bare")
    assert bench.pixels("beside again") == bench.pixels("beside")


def test_a_merged_model_makes_only_rows_of_its_set_and_has_a_key_of_its_own(
    bench: Bench, tiny: Path, files: list[Path]
) -> None:
    loras = (made.lora(files[0], 0.5), made.lora(files[1], 0.3))
    load(bench, tiny, *loras)
    build = bench.model.build
    assert build.startswith("build+")
    bench.start(
        run_row("bare"),
        run_row("lighter", loras=(loras[0],)),
        run_row("right", loras=loras[::-1]),
    )
    for row in ("bare", "lighter"):
        assert bench.failure(row).retryable, "another engine can"
        assert "merged" in bench.failure(row).reason
    assert bench.engine._rows["right"].key.startswith(f"tiny@{build}:")
    load(bench, tiny)
    assert "has rows" in bench.said(ModelFailed)[-1].reason
    run_to_end(bench.engine)
    assert bench.pixels("right")
    assert len(held(bench)) == 0
    load(bench, tiny, loras[0])
    assert bench.model.build not in ("build", build)


def test_a_set_that_cannot_be_merged_leaves_the_model_as_it_was(
    bench: Bench, tiny: Path, files: list[Path], tmp_path: Path
) -> None:
    bench.finish(run_row("before"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(files[0].read_bytes()[:-8])
    load(bench, tiny, made.lora(files[1]), made.lora(broken))
    assert "broken" in bench.said(ModelFailed)[-1].reason
    bench.finish(run_row("after"))
    assert bench.pixels("after") == bench.pixels("before")
    load(bench, tiny, made.lora(files[1]))
    assert len(bench.said(ModelLoaded)) == 1


def test_loras_stay_out_of_a_compiled_denoiser(
    bench: Bench, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: Any = object()
    monkeypatch.setattr(bench.model.denoiser, "_compiled_call_impl", compiled)
    bench.start(run_row("r", loras=(made.lora(files[0]),)))
    assert "only merged" in bench.failure("r").reason
