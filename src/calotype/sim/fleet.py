"""A fleet, from TOML: regions, kinds of GPUs with prices, what is lost and what fails.

    delay_s = 0.005              # of a message, one way
    [objectives]                 # seconds from asking to the picture
    turbo = 15
    [waits]                      # seconds in the line that an autoscaled fleet is sized for
    turbo = 5
    [loading]
    model_s = 12.0
    [kinds.A100]                 # A100, A10G and H100 are known; others need all of it
    price_per_hour = 2.5
    models_gb = 56               # of its memory, for base models
    [models.sdxl]                # sdxl, sd3 and flux are known; others are as [loading] says
    gb = 6.9
    [[engines]]
    region = "us-west"
    kind = "A100"
    count = 700
    min = 200                    # with `max` the group is autoscaled, and begins with `count`
    max = 900
    spot_hours = 8               # mean time until a spot machine is taken away
    [[outages]]
    region = "us-west"
    at_s = 36000
    for_s = 1800

What is wrong is refused with the line and the field.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from calotype.core.errors import InvalidInput, OperatorError
from calotype.core.events import ModelKnown
from calotype.core.nouns import Component, Reserve, Tier
from calotype.policy.rules import Rules
from calotype.policy.scale import ScaleRules

ENGINES_MAX = 100_000
OBJECTIVES_S = {Tier.TURBO: 15.0, Tier.FAST: 15.0, Tier.RELAX: 600.0}  # paid users: under 15 s


@dataclass(frozen=True)
class Kind:
    """A kind of GPU. Prices are assumptions, near what clouds asked on demand in 2026."""

    speed: float  # against an A100
    price_per_hour: float
    spot_price_per_hour: float
    rows: int = 1  # images it works on at one time
    batch_gain: float = 1.0  # images a second at full rows, against one row
    models_gb: float = 16.0  # of its memory, for base models: the rest is for all else
    loras_gb: float = 0.0  # kept free beside them, for the LoRAs of jobs that run
    staging_gb: float = 0.0  # of host memory, for copies of models between disk and device
    loras: int = 16  # kept loaded


KINDS = {
    "A100": Kind(speed=1.0, price_per_hour=2.5, spot_price_per_hour=1.0, models_gb=56.0),
    "A10G": Kind(speed=0.3, price_per_hour=1.0, spot_price_per_hour=0.4, models_gb=16.0),
    "H100": Kind(speed=1.9, price_per_hour=4.5, spot_price_per_hour=1.9, models_gb=56.0),
}


@dataclass(frozen=True)
class Engines:
    """Some engines alike, in one region."""

    kind: str
    count: int
    region: str = "local"
    warm: tuple[str, ...] = ()  # models loaded at the beginning
    pinned: tuple[str, ...] = ()  # models that each of them loads first and keeps
    min: int = 0  # with `max`: engines that there are always
    max: int | None = None  # engines that there may be; None: `count` of them, whatever happens
    boot_s: float = 120.0  # of one more, until models are loaded; paid for
    spot_hours: float | None = None  # mean time until it is taken away; None: on demand
    fail_hours: float | None = None  # mean time between failures
    notice_s: float = 120.0  # before a spot machine is taken away: then it is told
    repair_s: float = 300.0  # until one that failed or was taken away is back

    @property
    def is_scaled(self) -> bool:
        """Whether there are as many as are needed, within bounds."""
        return self.max is not None


@dataclass(frozen=True)
class Outage:
    """A region is lost for a while."""

    region: str
    at_s: float
    for_s: float


@dataclass(frozen=True)
class Loading:
    """What loading takes: means, in seconds, spread evenly by ``spread`` of them either way."""

    model_s: float = 12.0
    lora_s: float = 1.0
    lora_gb: float = 0.0  # of a LoRA; what a job's take past `loras_gb` is free memory for models
    spread: float = 0.3
    model_gb: float = 6.9  # of a model of which nothing else is known
    # A part of a model needs one block of free memory; where there is none its load fails, and the
    # line has models laid anew. Devices allocate smaller pieces: this shows the worst.
    in_one_block: bool = False
    staged: float = 0.2  # of the time from disk, that a load from host memory takes


@dataclass(frozen=True)
class ModelSize:
    """What a base model brings onto a device."""

    gb: float  # of its weights, those that it shares left out
    load_s: float | None = None  # from disk; None: as `[loading]` says
    shares: tuple[str, ...] = ()  # parts that others have too, of SHARED_GB


# Parts that several base models have, in 16 bits.
SHARED_GB = {"clip-l": 0.25, "clip-g": 1.39, "t5-xxl": 9.52}
MODELS = {
    "sdxl": ModelSize(gb=5.3, shares=("clip-l", "clip-g")),
    "sd3": ModelSize(gb=4.4, shares=("clip-l", "clip-g", "t5-xxl")),
    "flux": ModelSize(gb=24.0, shares=("clip-l", "t5-xxl")),
}
GB = 10**9
LORAS = "loras"  # the ledger's line of them


@dataclass(frozen=True)
class FleetPlan:
    """Everything the simulator has to know of the machines."""

    engines: tuple[Engines, ...]
    kinds: Mapping[str, Kind] = field(default_factory=lambda: dict(KINDS))
    outages: tuple[Outage, ...] = ()
    loading: Loading = field(default_factory=Loading)
    models: Mapping[str, ModelSize] = field(default_factory=lambda: dict(MODELS))
    objectives: Mapping[Tier, float] = field(  # seconds from asking to the picture
        default_factory=lambda: dict(OBJECTIVES_S)
    )
    # Seconds in the line, of 95 % of a tier's jobs, that an autoscaled fleet is sized for.
    waits: Mapping[Tier, float] = field(default_factory=lambda: dict(ScaleRules().waits))
    reserved: Mapping[Tier, float] = field(default_factory=dict)  # share of devices
    delay_s: float = 0.005  # of a message between the server and an engine, one way

    @property
    def size(self) -> int:
        """Engines in all."""
        return sum(group.count for group in self.engines)

    @property
    def is_scaled(self) -> bool:
        """Whether any of its groups is autoscaled."""
        return any(group.is_scaled for group in self.engines)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the groups, as people read them; each its own."""
        made: list[str] = []
        for group in self.engines:
            spot = "spot " if group.spot_hours else ""
            name = f"{spot}{group.kind} in {group.region}"
            again = sum(one == name or one.startswith(f"{name} (") for one in made)
            made.append(f"{name} ({again + 1})" if again else name)
        return tuple(made)

    def fixed(self) -> FleetPlan:
        """The same with ``count`` engines of each group, whatever happens."""
        engines = tuple(replace(group, min=0, max=None) for group in self.engines)
        return replace(self, engines=engines)

    def needs(self, model: str) -> ModelKnown:
        """What a model needs of a device, and how long it takes to load."""
        of, loading = self.models.get(model) or ModelSize(self.loading.model_gb), self.loading
        shared = (Component(name, name, round(SHARED_GB[name] * GB)) for name in of.shares)
        own = Component(model, "base", round(of.gb * GB))
        load_s = loading.model_s if of.load_s is None else of.load_s
        return ModelKnown(model, (own, *shared), load_s, load_s * loading.staged)

    def adapters(self, loras: tuple[str, ...]) -> tuple[Reserve, ...]:
        """What a job's LoRAs take on a device."""
        taken = round(len(loras) * self.loading.lora_gb * GB)
        return (Reserve(LORAS, taken),) if taken else ()

    def device(self, group: Engines) -> tuple[int, tuple[Reserve, ...]]:
        """Of an engine of this group: bytes of its ledger's budget, and of that kept for LoRAs."""
        kind = self.kinds[group.kind]
        kept = round(kind.loras_gb * GB)
        return round(kind.models_gb * GB) + kept, (Reserve(LORAS, kept),) if kept else ()


def of_gpus(count: int) -> FleetPlan:
    """So many A100s in one place, nothing loaded, nothing failing."""
    if not 0 < count <= ENGINES_MAX:
        raise InvalidInput(f"from 1 to {ENGINES_MAX} GPUs, not {count}", field="gpus")
    return FleetPlan((Engines("A100", count),))


def read(path: Path) -> FleetPlan:
    """The fleet of a TOML file; raise InvalidInput that names line and field."""
    try:
        text = path.read_text(encoding="utf-8")
        body = tomllib.loads(text)
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}", field="fleet") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name}: {error}", field="fleet") from None
    return _Reader(path.name, text).fleet(body)


class _Reader:
    """Checks each table against the dataclass it becomes."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._lines = text.splitlines()

    def fleet(self, body: dict[str, Any]) -> FleetPlan:
        known = {one.name for one in fields(FleetPlan)}
        for key in body:
            if key not in known:
                raise self._wrong(key, "", key, "unknown field")
        kinds = {
            name: self._kind(name, table) for name, table in self._table(body, "kinds").items()
        }
        engines = self._many(body, "engines", Engines)
        if not engines:
            raise self._wrong("engines", "", "engines", "a fleet needs [[engines]]")
        plan = FleetPlan(
            engines=engines,
            kinds={**KINDS, **kinds},
            outages=self._many(body, "outages", Outage),
            loading=self._made(Loading, self._table(body, "loading"), "[loading]", "loading"),
            models={**MODELS, **self._models(body)},
            objectives={**OBJECTIVES_S, **self._tiers(body, "objectives", 1e9)},
            waits={**ScaleRules().waits, **self._tiers(body, "waits", 1e9)},
            reserved=self._tiers(body, "reserved", 1.0),
            delay_s=self._value(body.get("delay_s", 0.005), "float", "delay_s", "", "delay_s"),
        )
        self._check(plan)
        return plan

    def _check(self, plan: FleetPlan) -> None:
        for at, group in enumerate(plan.engines):
            where = f"engines[{at}]"
            if group.kind not in plan.kinds:
                known = ", ".join(sorted(plan.kinds))
                said = f"{group.kind!r} is none of {known}"
                raise self._wrong(f"{where}.kind", _header("engines", at), "kind", said)
            if group.count < 1 or plan.size > ENGINES_MAX:
                said = f"from 1 to {ENGINES_MAX} engines in all"
                raise self._wrong(f"{where}.count", _header("engines", at), "count", said)
            most = group.count if group.max is None else group.max
            if not group.min <= group.count <= most <= ENGINES_MAX:
                said = (
                    f"min <= count <= max <= {ENGINES_MAX}, not {group.min}, {group.count}, {most}"
                )
                raise self._wrong(f"{where}.max", _header("engines", at), "max", said)
            if group.min and group.max is None:
                raise self._wrong(f"{where}.min", _header("engines", at), "min", "needs max")
        try:
            Rules(reserved=plan.reserved)
        except OperatorError as error:
            raise self._wrong("reserved", "", "reserved", error.detail) from None
        regions = {group.region for group in plan.engines}
        for at, outage in enumerate(plan.outages):
            if outage.region not in regions:
                said = f"{outage.region!r} is no region of the engines"
                raise self._wrong(f"outages[{at}].region", _header("outages", at), "region", said)

    def _kind(self, name: str, table: Any) -> Kind:
        header = f"[kinds.{name}]"
        made: Kind
        if name in KINDS and isinstance(table, dict):
            made = self._made(Kind, _as_dict(KINDS[name]) | table, header, f"kinds.{name}")
        else:
            made = self._made(Kind, table, header, f"kinds.{name}")
        for key in ("speed", "rows", "models_gb", "batch_gain"):
            if getattr(made, key) <= 0:
                raise self._wrong(f"kinds.{name}.{key}", header, key, "must be above 0")
        return made

    def _models(self, body: dict[str, Any]) -> dict[str, ModelSize]:
        made = {}
        for name, table in self._table(body, "models").items():
            where, header = f"models.{name}", f"[models.{name}]"
            made[name] = self._made(ModelSize, table, header, where)
            for part in made[name].shares:
                if part not in SHARED_GB:
                    said = f"{part!r} is none of {', '.join(SHARED_GB)}"
                    raise self._wrong(f"{where}.shares", header, "shares", said)
        return made

    def _tiers(self, body: dict[str, Any], key: str, most: float) -> dict[Tier, float]:
        found = {}
        for name, value in self._table(body, key).items():
            where, header = f"{key}.{name}", f"[{key}]"
            if name not in list(Tier):
                raise self._wrong(where, header, name, f"no tier: {', '.join(Tier)}")
            found[Tier(name)] = self._value(value, "float", where, header, name)
            if found[Tier(name)] > most:
                raise self._wrong(where, header, name, f"at most {most:g}")
        return found

    def _table(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        table = body.get(key, {})
        if not isinstance(table, dict):
            raise self._wrong(key, "", key, "must be a table")
        return table

    def _many(self, body: dict[str, Any], key: str, made: type[Any]) -> tuple[Any, ...]:
        tables = body.get(key, [])
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            raise self._wrong(key, "", key, f"must be [[{key}]]")
        return tuple(
            self._made(made, table, _header(key, at), f"{key}[{at}]")
            for at, table in enumerate(tables)
        )

    def _made(self, made: type[Any], table: Any, header: str, where: str) -> Any:
        if not isinstance(table, dict):
            raise self._wrong(where, header, where, "must be a table")
        kinds = {each.name: str(each.type) for each in fields(made)}
        for key in table:
            if key not in kinds:
                raise self._wrong(f"{where}.{key}", header, key, "unknown field")
        values = {
            key: self._value(value, kinds[key], f"{where}.{key}", header, key)
            for key, value in table.items()
        }
        try:
            return made(**values)
        except TypeError as error:
            missing = re.findall(r"'(\w+)'", str(error))
            name = missing[0] if missing else where
            raise self._wrong(f"{where}.{name}", header, "", "missing") from None

    def _value(self, value: Any, kind: str, where: str, header: str, key: str) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if "tuple" in kind:
            if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
                return tuple(value)
        elif "str" in kind:
            if isinstance(value, str) and value:
                return value
        elif kind == "bool":
            if isinstance(value, bool):
                return value
        elif kind.startswith("int"):
            if is_number and int(value) == value >= 0:
                return int(value)
        elif value is None or (is_number and 0 <= value < float("inf")):
            return value if value is None else float(value)
        raise self._wrong(where, header, key, f"{value!r} can't be ({kind})")

    def _wrong(self, where: str, header: str, key: str, what: str) -> InvalidInput:
        line = self._line(header, key)
        at = f"{self._name}, line {line}" if line else self._name
        return InvalidInput(f"{at}, field {where}: {what}", field=where)

    def _line(self, header: str, key: str) -> int | None:
        """The line of a key in its table; of the table if it has no such key."""
        wanted, _, nth = header.partition("#")
        seen, is_inside, begin = -1, not wanted, None
        for number, line in enumerate(self._lines, start=1):
            text = line.split("#")[0].strip()
            if text.startswith("["):
                seen += text == wanted
                is_inside = text == wanted and seen == int(nth or 0)
                begin = number if is_inside else begin
                if text in (f"[{key}]", f"[[{key}]]"):
                    return number
            elif is_inside and re.match(rf"[\"']?{re.escape(key)}[\"']?\s*=", text) and key:
                return number
        return begin


def _header(key: str, at: int) -> str:
    return f"[[{key}]]#{at}"


def _as_dict(kind: Kind) -> dict[str, Any]:
    return {each.name: getattr(kind, each.name) for each in fields(kind)}
