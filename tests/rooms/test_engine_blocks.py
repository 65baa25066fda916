"""An engine on a CPU that acts as if its memory could be torn: told, refused, laid anew."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from calotype.core.messages import (
    LoadModel,
    MemoryLies,
    Message,
    ModelFailed,
    ModelLoaded,
    UnloadModel,
)
from calotype.engine.loop import Engine
from calotype.engine.room import Room
from tests.rooms.engine_blocks import heavy_model, working_bytes
from tests.rooms.engine_models import CPU

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = {"a": 60_000, "b": 60_000, "c": 60_000, "large": 75_000}  # of vocabularies: 128 bytes each


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadModel]:
    """Models whose weights are large beside what their passes need."""
    home = tmp_path_factory.mktemp("models")
    return {name: heavy_model(home / name, words) for name, words in WORDS.items()}


class Bench:
    """An engine with room for three of them, whose memory is in blocks."""

    def __init__(self, models: dict[str, LoadModel], *, acts: bool) -> None:
        self.models, self.heard = models, list[Message]()
        work = working_bytes(models["large"])
        self.size = {name: load.components[0].bytes for name, load in models.items()}
        assert work < self.size["a"] / 2, "passes are to be small beside weights"
        # Three of them lie side by side, with less than one behind them.
        self.budget = 3 * self.size["a"] + self.size["a"] * 4 // 5 + work
        self.engine = Engine(self._hear, CPU, room=Room(self.budget), acts_on_arena=acts)

    def load(self, *names: str) -> ModelLoaded | ModelFailed:
        for name in names:
            self.engine.load(self.models[name])
        said = [it for it in self.heard if isinstance(it, ModelLoaded | ModelFailed)]
        return said[-1]

    def unload(self, *names: str) -> None:
        for name in names:
            self.engine.handle(UnloadModel(name))

    @property
    def lies(self) -> list[MemoryLies]:
        return [it for it in self.heard if isinstance(it, MemoryLies)]

    @property
    def here(self) -> Sequence[str]:
        return [model.name for model in self.engine._models]

    def _hear(self, message: Message, blob: bytes = b"") -> None:
        del blob
        self.heard.append(message)


def test_free_bytes_in_pieces_hold_no_model_until_what_is_between_them_is_laid_anew(
    models: dict[str, LoadModel],
) -> None:
    bench = Bench(models, acts=True)
    bench.load("a", "b", "c")
    whole = bench.lies[-1]
    assert whole.largest == whole.free < bench.size["a"]
    assert set(whole.settled) == {"a", "b", "c"}
    bench.unload("a")
    torn = bench.lies[-1]
    assert torn.largest == bench.size["a"] < bench.size["large"] < torn.free
    assert torn.settled == ()
    failed = bench.load("large")
    assert isinstance(failed, ModelFailed)
    assert failed.is_full
    assert f"{torn.largest:,}" in failed.reason
    assert bench.here == ["b", "c"]
    bench.unload("b", "c")
    assert isinstance(bench.load("large"), ModelLoaded)
    assert isinstance(bench.load("b"), ModelLoaded)
    assert isinstance(bench.load("c"), ModelLoaded)
    mended = bench.lies[-1]
    assert mended.largest == mended.free
    assert set(mended.settled) == {"large", "b", "c"}


def test_a_cpu_that_is_not_told_to_act_says_how_torn_it_would_be_and_refuses_nothing(
    models: dict[str, LoadModel],
) -> None:
    bench = Bench(models, acts=False)
    bench.load("a", "b", "c")
    bench.unload("a")
    bench.engine.tick()
    state = bench.engine.state()
    assert 0 < state.largest < state.free
    assert isinstance(bench.load("large"), ModelLoaded)
    assert bench.lies == []
    bench.engine.tick()
    state = bench.engine.state()
    assert state.largest == state.free
