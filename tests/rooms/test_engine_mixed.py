"""The same job and seed, the same bits: alone, or joined and left by others that differ in all.

Two hundred cases, always the same ones, over five models. A case is a target row and up to seven
others that come at some tick; who shares the pass, and in which place, is shuffled each tick.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.core.messages import CancelRow, RowDone, RunRow
from calotype.core.nouns import Tier
from calotype.engine.curves import Measured
from calotype.engine.families.base import Model
from calotype.engine.rows import Row
from calotype.policy.batch import RunPass
from tests.rooms.engine_bench import EMBEDDED, SIZE
from tests.rooms.engine_models import PROMPT, Drawer, make_model

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = {"sd15": 40, "sdxl": 40, "sd3": 40, "flux": 40, "vignette": 40}
PROMPTS = (PROMPT, "a blue boat on the sea", "snow", "")
IDS = (f"row{number}" for number in itertools.count())


@dataclass(frozen=True)
class Case:
    """A target, the tick at which each other comes, and what shuffles them."""

    target: dict[str, Any]
    others: tuple[tuple[int, dict[str, Any]], ...]
    chance: int


def rows(samplers: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "sampler": st.sampled_from(samplers),
            "steps": st.integers(1, 5),
            "guidance": st.sampled_from((1.0, 1.5, 4.0, 7.5)),
            "prompt": st.sampled_from(PROMPTS),
            "negative_prompt": st.sampled_from(PROMPTS),
            "seed": st.integers(0, 2**32 - 1),
            "tier": st.sampled_from([tier.value for tier in Tier]),
        }
    )


def cases(samplers: tuple[str, ...]) -> st.SearchStrategy[Case]:
    some = st.tuples(st.integers(0, 4), rows(samplers))
    return st.builds(
        Case,
        target=rows(samplers),
        others=st.lists(some, min_size=1, max_size=7).map(tuple),
        chance=st.integers(0, 2**16),
    )


class Crowd:
    """One model's engine, whose passes are shuffled, and the latents that its rows end with.

    A large pass takes it as long as a small one, so that it fills them all it can.
    """

    def __init__(self, folder: Path) -> None:
        self.drawer = Drawer(folder)
        self.engine = self.drawer.engine
        self.chance = random.Random(0)
        self.ended: dict[str, torch.Tensor] = {}
        self.together = 0  # the most forwards that one pass held
        decide = self.engine._policy.decide
        absorb = self.engine._absorb

        def shuffled(*args: Any, **kwargs: Any) -> RunPass | None:
            chosen = decide(*args, **kwargs)
            if chosen is None:
                return None
            self.together = max(self.together, chosen.bucket)
            order = self.chance.sample(chosen.rows, len(chosen.rows))
            return RunPass(**{**vars(chosen), "rows": tuple(order)})

        def watched(row: Row, output: torch.Tensor, **may: Any) -> None:
            absorb(row, output, **may)
            self.ended[row.command.row] = row.latents

        known = self.engine._sizes.find

        def as_dear_as_one(model: Model, width: int, height: int) -> Measured:
            found = known(model, width, height)
            return replace(found, pass_s=(1.0,) * len(found.buckets))

        self.engine._sizes.find = as_dear_as_one  # type: ignore[method-assign]
        self.engine._policy.decide = shuffled  # type: ignore[method-assign]
        self.engine._absorb = watched  # type: ignore[method-assign]

    def row(self, changes: dict[str, Any]) -> RunRow:
        return self.drawer.row(next(IDS), **changes)

    def run(self, target: RunRow, others: dict[int, list[RunRow]] | None = None) -> torch.Tensor:
        """The target's last latents. Others still there when it is done are cancelled."""
        others = others or {}
        self.engine.handle(target)
        tick = 0
        while target.row in self.engine._rows or target.row in self.engine._admission:
            for other in others.pop(tick, []):
                self.engine.handle(other)
            assert self.engine.tick()
            tick += 1
        for left in [*self.engine._rows, *self.engine._admission._waiting]:
            self.engine.handle(CancelRow(left))
        self.engine.settle()
        return self.ended[target.row]

    def picture(self, row: RunRow) -> bytes:
        (found,) = [
            blob for m, blob in self.drawer.heard if isinstance(m, RowDone) and m.row == row.row
        ]
        return found


@pytest.fixture(scope="module")
def crowds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Crowd]:
    base = tmp_path_factory.mktemp("models")
    tiny = {name: Crowd(make_model(name, base / name)) for name in CASES if name != "vignette"}
    return tiny | {"vignette": Crowd(EMBEDDED)}


@pytest.mark.parametrize("model", CASES)
def test_a_picture_is_bitwise_the_same_alone_and_in_any_crowd(
    crowds: dict[str, Crowd], model: str
) -> None:
    crowd = crowds[model]

    @settings(
        max_examples=CASES[model],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(cases(tuple(crowd.drawer.model.samplers)))
    def holds(case: Case) -> None:
        target, again = crowd.row(case.target), crowd.row(case.target)
        alone = crowd.run(target)
        others: dict[int, list[RunRow]] = {}
        for tick, changes in case.others:
            others.setdefault(min(tick, case.target["steps"] - 1), []).append(crowd.row(changes))
        crowd.chance.seed(case.chance)
        assert torch.equal(crowd.run(again, others), alone)
        assert crowd.picture(again) == crowd.picture(target)
        crowd.drawer.heard.clear()
        crowd.ended.clear()

    holds()
    assert crowd.together >= 8, "there was no crowd"


@pytest.mark.parametrize("model", CASES)
def test_batch_sizes_beyond_the_smallest_are_proven_for_every_family(
    crowds: dict[str, Crowd], model: str
) -> None:
    assert {2, 4, 8} <= set(crowds[model].drawer.loaded.buckets)


@pytest.mark.parametrize("model", ["sd3", "flux"])
def test_other_sizes_of_a_transformer_keep_their_bits_too(
    crowds: dict[str, Crowd], model: str
) -> None:
    crowd = crowds[model]
    shape = {"width": SIZE + 32, "height": SIZE - 16, "steps": 2}
    alone = crowd.run(crowd.row({**shape, "seed": 1}))
    others = {0: [crowd.row({**shape, "seed": seed, "guidance": 1.0}) for seed in (2, 3, 4)]}
    assert torch.equal(crowd.run(crowd.row({**shape, "seed": 1}), others), alone)
