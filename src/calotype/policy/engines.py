"""An engine as the policy knows it: its rows, its models, and the ledger of its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from calotype.core.events import EngineUp, ModelKnown
from calotype.policy.arena import Fragmentation
from calotype.policy.ledger import Ledger


class Size(NamedTuple):
    """What a device can hold; smaller ones sort first."""

    capacity_bytes: int  # for models; 0: they aren't loaded there on demand
    pinned: tuple[str, ...] = ()  # models that always lie there
    kept: tuple[tuple[str, int], ...] = ()  # bytes beside them, by line: for adapters and the like


class Load(NamedTuple):
    """A model that is being loaded."""

    model: str
    until: float  # when it is expected to be warm, by the line's clock


class Claim(NamedTuple):
    """Models that leave an engine once their rows are done, so that another can be loaded."""

    model: str  # that waits for them to leave
    leaving: tuple[str, ...]  # nothing more of these starts there
    room: int = 0  # bytes beside it, for a job's adapters


class Engine:
    """An engine that is up."""

    __slots__ = (
        "anew",
        "claim",
        "earning",
        "failing",
        "fresh",
        "host",
        "is_open",
        "is_paused",
        "jobs",
        "laid_at",
        "ledger",
        "lent",
        "loading",
        "memory",
        "models",
        "name",
        "order",
        "pinned",
        "rows",
        "rows_max",
        "rows_spare",
        "settled",
        "size",
        "using",
    )

    def __init__(self, up: EngineUp, order: int, known: Mapping[str, ModelKnown]) -> None:
        self.name = up.engine
        self.order = order  # in which they came up
        self.models = dict.fromkeys(up.models)  # jobs of these can start there
        self.rows_max, self.rows_spare = up.rows_max, up.rows_spare
        self.rows = 0  # held now
        self.is_open = False  # has room for a row, and is up
        self.is_paused = False  # suspect, or slow: nothing starts there
        self.jobs: dict[str, str] = {}  # that run there, in order of their starts: their models
        self.using: dict[str, int] = {}  # how many jobs run by model, if it has a ledger
        self.lent: dict[str, int] = {}  # bytes by job that runs there, for its adapters
        self.ledger: Ledger | None = None  # of the device; None: it loads nothing on demand
        self.host = Ledger(up.staging_bytes)  # copies in host memory
        self.pinned = up.pinned
        self.loading: Load | None = None
        self.claim: Claim | None = None
        self.failing: dict[str, None] = {}  # models whose last load failed there
        self.fresh = ""  # loaded for jobs that wait, none of which has started there yet
        self.earning = ("", 0.0)  # the last that came for waiting jobs, and until when it stays
        self.memory: Fragmentation | None = None  # its free memory; None: nobody told, or not since
        self.settled: tuple[str, ...] = ()  # models that needn't leave for that to be one block
        self.anew: tuple[str, ...] = ()  # models that left for that, and come back in this order
        self.laid_at = float("-inf")  # when it was last
        if up.budget_bytes:
            held = [known.get(name) or ModelKnown(name, (), 0.0) for name in up.models]
            self.ledger = Ledger(up.budget_bytes, up.reserves, held)
        kept = tuple((line.name, line.bytes) for line in up.reserves)
        self.size = Size(self.ledger.capacity_bytes if self.ledger else 0, up.pinned, kept)

    @property
    def key(self) -> tuple[bool, int, int, int]:
        """Of engines on which a job can start, the one with the smallest is chosen."""
        return self.rows > 0, self.size.capacity_bytes, self.rows - self.rows_max, self.order

    @property
    def spare_bytes(self) -> int:
        """For the adapters of one job, past what is kept free for such."""
        return self.ledger.spare_bytes if self.ledger else 0

    def lend(self, job: str, count: int) -> None:
        """A job's adapters take so much there, past what is kept free for such; 0: no more."""
        if self.ledger is None or count == self.lent.get(job, 0):
            return
        if count:
            self.lent[job] = count
        else:
            del self.lent[job]
        self.ledger = self.ledger.lending(max(self.lent.values(), default=0))

    def is_home_of(self, model: str) -> bool:
        """Whether it has a model warm, or is loading it."""
        return model in self.models or (self.loading is not None and self.loading.model == model)

    def fits(self, rows: int) -> bool:
        """Room for that many more. An empty engine takes any job: it would never fit otherwise."""
        return self.rows == 0 or self.rows + rows <= self.rows_max

    def copy(self) -> Engine:
        """Another one like it, to play forward with; ledgers, which never change, are shared."""
        mine = Engine.__new__(Engine)
        for name in _PLAIN:
            setattr(mine, name, getattr(self, name))
        for name in _OWN:
            setattr(mine, name, dict(getattr(self, name)))
        return mine

    def __lt__(self, other: Engine) -> bool:
        return self.order < other.order


_OWN = ("failing", "jobs", "lent", "models", "using")  # that each copy has for itself
_PLAIN = tuple(name for name in Engine.__slots__ if name not in _OWN)


@dataclass(frozen=True)
class Device:
    """What lies on the device of an engine that loads on demand, for people to look at."""

    engine: str
    budget_bytes: int
    free_bytes: int
    lines: Mapping[str, int]  # the ledger's, bytes by name
    models: tuple[str, ...]  # warm, and not about to leave
    leaving: tuple[str, ...]  # once their rows are done
    loading: str  # a model; empty: none
    warm_at: float  # when that is expected to be warm, by the line's clock
    staged: tuple[str, ...]  # models with a copy in host memory


def seen(engine: Engine) -> Device:
    """An engine's device as it is now."""
    ledger = engine.ledger or Ledger(0)
    load = engine.loading or Load("", 0.0)
    return Device(
        engine=engine.name,
        budget_bytes=ledger.budget_bytes,
        free_bytes=ledger.free_bytes,
        lines=ledger.lines(),
        models=tuple(engine.models),
        leaving=engine.claim.leaving if engine.claim else (),
        loading=load.model,
        warm_at=load.until,
        staged=engine.host.models,
    )
