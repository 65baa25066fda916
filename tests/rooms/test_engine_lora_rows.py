"""Rows with LoRAs beside others: the same bits, and what may be resident."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from calotype.core import limits
from calotype.core.messages import RowFailed, RowStarted, RunRow
from calotype.engine.lora.bank import lora_key
from calotype.engine.lora.reading import Lora
from tests.rooms import engine_loras as made
from tests.rooms.engine_bench import Bench, run_row, run_to_end, threads

pytestmark = pytest.mark.usefixtures("one_thread")


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
        st.tuples(st.integers(0, len(made.RANKS) - 1), st.sampled_from([0.3, 0.5, 0.0, -0.2])),
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
def crowds(request: pytest.FixtureRequest, tiny: Path, lora_files: list[Path]) -> Crowds:
    with threads(request.param):  # the batch sizes are proven with as many
        return Crowds(Bench(tiny), request.param, lora_files)


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
    bench: Bench, lora_files: list[Path]
) -> None:
    bench.finish(run_row("before"))
    bench.finish(run_row("lora", loras=(made.lora(lora_files[0]),)))
    bench.finish(run_row("after"))
    bench.finish(run_row("beside"), run_row("other", loras=(made.lora(lora_files[2]),), seed=5))
    assert bench.pixels("before") == bench.pixels("after") == bench.pixels("beside")
    assert bench.pixels("lora") != bench.pixels("before")


def test_a_weight_of_zero_is_no_lora_and_reads_no_file(
    bench: Bench, lora_files: list[Path]
) -> None:
    bench.finish(run_row("bare"), run_row("zero", loras=(made.lora(lora_files[0], 0.0),)))
    assert bench.pixels("zero") == bench.pixels("bare")
    assert len(bench.model.loras) == 0


def test_layers_are_wrapped_only_while_a_lora_needs_them(
    bench: Bench, lora_files: list[Path]
) -> None:
    before = dict(bench.model.denoiser.named_modules())
    bench.finish(run_row("a", loras=(made.lora(lora_files[1]),)))
    changed = {name for name, it in before.items() if name not in _modules(bench, it)}
    assert changed
    assert all(made.is_attention(name) for name in changed)
    bench.model.loras.evict(lora_key(made.lora(lora_files[1])))
    assert _modules(bench) == list(before)
    assert all(bench.model.denoiser.get_submodule(name) is it for name, it in before.items())


def _modules(bench: Bench, only: torch.nn.Module | None = None) -> list[str]:
    named = bench.model.denoiser.named_modules()
    return [name for name, it in named if only is None or it is only]


def test_a_lora_that_was_evicted_is_read_again_and_draws_the_same(
    bench: Bench, lora_files: list[Path]
) -> None:
    first, second = (made.lora(path) for path in lora_files[:2])
    bench.finish(run_row("before", loras=(first,)))
    bank = bench.model.loras
    bank.shelf.bytes_max = bank.bytes + 1  # no room for another
    bench.finish(run_row("other", loras=(second,)))
    assert lora_key(first) not in bank
    bank.shelf.bytes_max = limits.LORAS_BYTES_MAX
    bench.finish(run_row("after", loras=(first,)))
    assert bench.pixels("before") == bench.pixels("after")


def test_the_budget_is_of_bytes_as_tensors_hold_them_and_the_oldest_goes(
    bench: Bench, lora_files: list[Path]
) -> None:
    bank = bench.model.loras
    read = [bank.read(made.lora(path)) for path in lora_files[:4]]
    bank.shelf.bytes_max = sum(one.bytes for one in read[:3])
    for one in read[:3]:
        bank.install(one)
    assert bank.bytes == bank.shelf.bytes_max == sum(_tensor_bytes(one) for one in read[:3])
    bench.finish(run_row("touch", loras=(made.lora(lora_files[0]),)))
    bank.install(read[3])
    assert read[1].key not in bank, "used longest ago"
    assert bank.bytes <= bank.shelf.bytes_max


def _tensor_bytes(lora: Lora) -> int:
    pairs = lora.pairs.values()
    return sum(it.untyped_storage().nbytes() for pair in pairs for it in (pair.down, pair.up))


def test_what_running_rows_use_is_never_evicted_and_the_other_waits_its_turn(
    bench: Bench, lora_files: list[Path]
) -> None:
    bench.model.loras.shelf.bytes_max = bench.model.loras.read(made.lora(lora_files[4])).bytes
    bench.start(run_row("runs", loras=(made.lora(lora_files[4]),), steps=3))
    bench.start(run_row("waits", loras=(made.lora(lora_files[1]),), steps=2))
    bench.finish(run_row("after", loras=(made.lora(lora_files[4]),), seed=3))
    assert bench.pixels("runs")
    assert bench.pixels("waits")
    assert bench.pixels("after")
    order = [m.row for m in bench.said(RowStarted)]
    assert order == ["runs", "waits", "after"], "or the second might wait for ever"
    assert not bench.said(RowFailed)
    bench.model.loras.shelf.bytes_max = 1000
    bench.finish(run_row("never", loras=(made.lora(lora_files[0]),)))
    assert not bench.failure("never").retryable


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
    bench: Bench, lora_files: list[Path], loras: list[tuple[int, float]], reason: str
) -> None:
    asked = tuple(made.lora(lora_files[number], weight) for number, weight in loras)
    bench.start(run_row("r", loras=asked))
    assert reason in bench.failure("r").reason
    assert not bench.failure("r").retryable
