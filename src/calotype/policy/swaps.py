"""What makes room on an engine for a model that comes, or for a job's adapters, and the loads that
begin.

What leaves is worth least: it has no rows, no waiting job needs it and it isn't pinned. Of it what
is worth most is *staged*, a copy in host memory, in place of copies worth less.

Where bytes suffice, but the device's free memory is in pieces and none is large enough (``arena``),
what lies loose leaves and is loaded again behind the model that comes, those most worth keeping
first. The same is done where memory is torn and nobody waits. While turbo waits nothing is loaded
again for that: it comes back when somebody asks for it.

It knows nothing of whose turn it is; that is ``loads``.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy, deepcopy
from dataclasses import dataclass
from enum import Enum, auto

from calotype.core.decisions import LoadModel
from calotype.core.events import MemorySeen, ModelKnown
from calotype.core.limits import LAID_AGAIN_S
from calotype.core.nouns import Tier
from calotype.policy.arena import Fragmentation, is_in_pieces, lay_anew
from calotype.policy.breaker import Breakers
from calotype.policy.breaker import load as breaker_of
from calotype.policy.engines import Engine
from calotype.policy.lanes import Entry
from calotype.policy.ledger import staging
from calotype.policy.place import Fleet
from calotype.policy.predict import Keeper


@dataclass(slots=True)
class Wanted:
    """What waits for a model."""

    jobs: int = 0
    cost: int = 0  # of them, in ticks
    turbo: int = 0  # of the jobs


class Price(Enum):
    """What may leave for a model that comes, beside what nobody uses or waits for."""

    NOTHING = auto()
    EARNED = auto()  # what is in use or waited for too, if it was there as long as it loaded
    ANY = auto()  # whatever isn't pinned or has yet to begin


class Swaps:
    """Models by where they could go, and what they take the place of."""

    def __init__(self, fleet: Fleet, keeper: Keeper, torn_max: float) -> None:
        """``torn_max`` is the fragmentation past which a device's models are laid anew."""
        self.deadline: float | None = None  # when to decide again though nothing happened
        self.waiting: dict[str, Wanted] = {}  # by model
        self.made: list[LoadModel] = []  # in this turn
        self.now = 0.0
        self._tiers = dict.fromkeys(Tier, 0)  # jobs that wait
        self._fleet, self._keeper, self._torn_max = fleet, keeper, torn_max
        self._breakers = Breakers()

    def copy(self, fleet: Fleet) -> Swaps:
        """The same for a copy of the fleet, to play forward."""
        mine = copy(self)
        mine._fleet, mine.made = fleet, []
        mine.waiting = {model: copy(wanted) for model, wanted in self.waiting.items()}
        mine._tiers, mine._breakers = dict(self._tiers), deepcopy(self._breakers)
        return mine

    def begin_turn(self, now: float) -> None:
        """Nothing is decided yet at this time."""
        self.deadline, self.now, self.made = None, now, []

    def wake(self, at: float) -> None:
        """Decide again then, if not before."""
        self.deadline = at if self.deadline is None else min(self.deadline, at)

    def count(self, entry: Entry, sign: int) -> None:
        """A job waits (1), or waits no longer (-1)."""
        mine, tier = self.waiting.setdefault(entry.job.model, Wanted()), entry.job.tier
        mine.jobs += sign
        mine.cost += sign * entry.cost
        mine.turbo += sign * (tier is Tier.TURBO)
        self._tiers[tier] += sign
        if not mine.jobs:
            del self.waiting[entry.job.model]

    # How loads went.

    def failed(self, engine: str, model: str, reason: str, now: float) -> None:
        """A load came to nothing."""
        self._breakers.failed(breaker_of(engine, model), reason, now)

    def succeeded(self, name: str, model: str, now: float) -> None:
        """A model is warm. If it came for jobs that wait, it stays for them as long as it took."""
        self._breakers.succeeded(breaker_of(name, model))
        engine, known = self._fleet.find(name), self._fleet.homes.known.get(model)
        if engine and known and engine.fresh == model:
            engine.earning = model, now + known.load_s

    def trouble(self, model: str) -> str:
        """Why a model that no engine has isn't loaded, as far as a load of it failed; or empty."""
        if self._fleet.homes.counts.get(model):
            return ""
        reasons = (
            self._breakers.reason(breaker_of(engine.name, model))
            for engine in self._fleet.engines()
        )
        return next((reason for reason in reasons if reason), "")

    def may_try(self, engine: Engine, model: str) -> bool:
        """Whether it isn't resting after failures there; if it is, decide again when it is not."""
        retry_at = self._breakers.retry_at(breaker_of(engine.name, model))
        if retry_at is None or self.now >= retry_at:
            return True
        self.wake(retry_at)
        return False

    # What is worth what.

    def worth(self, model: str) -> tuple[float, float]:
        """Of the last of its homes: more is kept longer."""
        homes = self._fleet.homes
        known = homes.known.get(model) or ModelKnown(model, (), 0.0)
        return self._keeper.worth(known, homes.counts.get(model, 0), self.now)

    def most_worth(self, models: Iterable[str]) -> tuple[float, float]:
        """Of those that would leave; less than any if there are none."""
        return max(map(self.worth, models), default=(-1.0, 0.0))

    def kept_by(self, model: str) -> float:
        """Seconds of waiting that the last home of a model saves each second."""
        homes = self._fleet.homes
        if (known := homes.known.get(model)) is None:
            return 0.0
        return self._keeper.saves(known, homes.counts[model] - 1, self.now)

    # What leaves.

    def leaving(
        self, engine: Engine, known: ModelKnown, price: Price = Price.NOTHING, room: int = 0
    ) -> tuple[str, ...] | None:
        """What has to leave an engine for a model, none too many; None: that makes no room now.

        With ``room`` bytes beside it, for a job's adapters. The model may be there already.
        """
        if engine.ledger is None:
            return None
        victims = [name for name in self._victims(engine, price) if name != known.model]
        evict = engine.ledger.plan(known, victims, room)
        if evict != () or engine.memory is None or not self._lacks_block(engine, known):
            return evict
        loose = self._loose(engine)
        if not all(name in victims or self._is_at_rest(engine, name) for name in loose):
            return None
        if price is not Price.NOTHING:
            return loose
        anew = lay_anew(
            engine.memory,
            _largest(engine, known),
            loose,
            rows=engine.rows,
            waiting=self._beside(known.model),
            torn_max=self._torn_max,
        )
        return anew.models if anew else None

    def fits(self, engine: Engine, known: ModelKnown, room: int) -> bool:
        """Whether nothing has to leave an engine for a model and so much room beside it."""
        has_bytes = engine.ledger is not None and engine.ledger.fits(known, room)
        return has_bytes and not self._lacks_block(engine, known)

    def torn(self) -> None:
        """Lay the models of a device anew whose memory is torn, if that disturbs nobody."""
        homes = self._fleet.homes
        for engine in [*homes.torn.values()]:
            memory, loose = engine.memory, self._loose(engine)
            first = next((name for name in loose if name in homes.known), None)
            if memory is None or first is None or not homes.is_ready(engine):
                continue
            anew = lay_anew(
                memory, 0, loose, rows=engine.rows, waiting=self._tiers, torn_max=self._torn_max
            )
            is_time = self.now >= engine.laid_at + LAID_AGAIN_S
            if anew and is_time and self.may_try(engine, first):
                self.begin(engine, anew.models, homes.known[first])

    def bring_back(self) -> None:
        """Load again what left a device to be laid anew, one after the other."""
        homes = self._fleet.homes
        for engine in [*homes.laying.values()]:
            if self._tiers[Tier.TURBO]:
                homes.lay(engine, ())
            if not homes.is_ready(engine):
                continue
            left = [*engine.anew]
            while left:
                known = homes.known.get(left.pop(0))
                if known is None or known.model in engine.models or engine.ledger is None:
                    continue
                if engine.ledger.fits(known) and self.may_try(engine, known.model):
                    self.begin(engine, (), known, "anew")
                    break
            homes.lay(engine, tuple(left))

    def seen(self, told: MemorySeen) -> None:
        """How a device's free memory lies."""
        if engine := self._fleet.find(told.engine):
            memory = Fragmentation(told.free_bytes, told.largest_bytes)
            is_torn = memory.index > self._torn_max
            self._fleet.homes.seen(engine, memory, told.settled, is_torn=is_torn)

    def _lacks_block(self, engine: Engine, known: ModelKnown) -> bool:
        return engine.memory is not None and is_in_pieces(engine.memory, _largest(engine, known))

    def _victims(self, engine: Engine, price: Price) -> list[str]:
        """Models that could make room on an engine, those least worth keeping first."""
        found = []
        for name in engine.models:
            is_needed = name in self.waiting
            if name in engine.pinned or (is_needed and name == engine.fresh):
                continue
            if is_needed and price is Price.EARNED and self._is_earning(engine, name):
                continue
            if price is not Price.NOTHING or not (is_needed or engine.using.get(name)):
                found.append((is_needed, self.worth(name), name))
        found.sort()
        return [name for _, _, name in found]

    def _is_earning(self, engine: Engine, name: str) -> bool:
        """Whether a model came for jobs that wait, and was there less long than its load took."""
        earning, until = engine.earning
        if name != earning or self.now >= until:
            return False
        self.wake(until)
        return True

    def _loose(self, engine: Engine) -> tuple[str, ...]:
        """What has to leave if memory is to be one block, those most worth keeping first."""
        loose = [name for name in engine.models if name not in engine.settled]
        loose.sort(key=lambda name: (name in engine.pinned, self.worth(name)), reverse=True)
        return tuple(loose)

    def _is_at_rest(self, engine: Engine, name: str) -> bool:
        """Whether a pinned model may leave for a moment: nothing runs with it or waits for it."""
        return name in engine.pinned and name not in self.waiting and not engine.using.get(name)

    def _beside(self, model: str) -> dict[Tier, int]:
        """Jobs that wait, but turbo's for this model: laying anew is what they wait for."""
        mine = self.waiting.get(model)
        return {**self._tiers, Tier.TURBO: self._tiers[Tier.TURBO] - (mine.turbo if mine else 0)}

    # What begins.

    def begin(
        self,
        engine: Engine,
        evict: tuple[str, ...],
        known: ModelKnown,
        why: str = "queued",
        room: int = 0,
    ) -> None:
        """Have an engine load a model once these have left; ``room`` is as they were chosen for."""
        assert engine.ledger is not None, "an engine that loads nothing on demand"
        homes = self._fleet.homes
        self._breakers.may_try(breaker_of(engine.name, known.model), self.now)
        if known.model in engine.models and known.model not in evict:
            why = "room"
        # Bytes there were, and what leaves does so for a block.
        is_laid = bool(evict) and engine.memory is not None and engine.ledger.fits(known, room)
        gone = [homes.known[name] for name in evict if name in homes.known]
        stage, unstage = self._stage(engine, gone, known.model)
        load_s = homes.begin(engine, known, evict, self.now)
        if is_laid:
            why, engine.laid_at = "anew", self.now
            homes.lay(engine, tuple(name for name in evict if name != known.model))
        else:
            for one in gone:
                self._keeper.evicted(one, self.now)
        if known.model in self.waiting and why in ("queued", "anew"):
            engine.fresh = known.model
        self.made.append(LoadModel(engine.name, known.model, evict, why, load_s, stage, unstage))

    def _stage(
        self, engine: Engine, gone: list[ModelKnown], loading: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What of the evicted stays in host memory, and what makes room for it there.

        Not the copy that the load is made from: it is worth most until then.
        """
        if not engine.host.budget_bytes:
            return (), ()
        names = dict.fromkeys((*engine.host.models, *(known.model for known in gone)))
        order = sorted(names, key=lambda name: (name == loading, self.worth(name), name))
        stage, unstage, engine.host = staging(engine.host, gone, order)
        return stage, unstage


def _largest(engine: Engine, known: ModelKnown) -> int:
    """Bytes of the largest part that an engine lacks of a model."""
    missing = engine.ledger.missing(known) if engine.ledger else ()
    return max((part.bytes for part in missing), default=0)
