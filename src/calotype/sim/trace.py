"""Traces: JSON lines of jobs, and the import of a public one. What is wrong names line and field.

A trace is a text file with one JSON object a line, in order of time. Required: ``at_s`` (seconds
since its begin), ``tenant``, ``tier``, ``model``. Optional: ``n``, ``steps``, ``width``,
``height``, ``guidance``, ``loras`` (names), ``user``, ``device_s`` (measured device-seconds of the
whole job; without it the cost model tells).

A file that a server recorded (``calotype serve --record``) is a trace too: its jobs also have
``job`` (their id), and what its other lines say a job took, or was predicted to, is its
``device_s``. Those lines are for ``replay``.

``gentd26`` is ``lora_request_trace.csv`` of the "GenAI Serving Top-Down Dataset 2026" (Lin et al.,
"Understanding Diffusion Model Serving in Production", SoCC '25): its groups become tenants, its
checkpoints models, ``exec_time_seconds`` the measured cost. It has no tiers and no LoRA names:
each group's tier and each job's LoRAs are drawn with the seed.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.nouns import Tier
from calotype.policy.history import OURS
from calotype.sim.jobs import Asked

LINE_CHARS_MAX = 10_000
TEXT_CHARS_MAX = 200
_IMAGES_MAX = 64  # of a job: other services allow more than this one
_STEPS_MAX = 1_000
_LORAS_DRAWN = 500  # names that an import draws from, by Zipf's law
TIER_MIX = {Tier.TURBO: 0.1, Tier.FAST: 0.3, Tier.RELAX: 0.6}  # of groups, where a trace has none


def read(path: Path, rate: float = 1.0) -> Iterator[Asked]:
    """The jobs of a trace, ``rate`` times as fast; raise InvalidInput that names line and field."""
    last_s, job = 0.0, None
    taken_s = _taken(path)
    with _opened(path) as lines:
        for number, line in enumerate(_utf8(lines, path.name), start=1):
            if not line.strip() or line.startswith(OURS):
                continue
            job = _job(line, f"{path.name}, line {number}", taken_s)
            if job.at_s < last_s:
                raise _wrong(
                    f"{path.name}, line {number}", "at_s", f"{job.at_s} is before {last_s}"
                )
            last_s = job.at_s
            yield job if rate == 1.0 else _at(job, job.at_s / rate)
    if job is None:
        raise InvalidInput(f"{path.name} has no job", field="trace")


def write(path: Path, jobs: Iterable[Asked]) -> int:
    """Write a trace; return how many jobs it has."""
    count = 0
    try:
        with path.open("w", encoding="utf-8") as out:
            for job in jobs:
                out.write(json.dumps(line_of(job), ensure_ascii=False) + "\n")
                count += 1
    except OSError as error:
        raise InvalidInput(f"{path} can't be written: {error.strerror}", field="out") from None
    return count


def line_of(job: Asked) -> dict[str, Any]:
    """A job as one line of a trace has it."""
    body: dict[str, Any] = {name: getattr(job, name) for name in Asked.__slots__}
    body["tier"] = job.tier.value
    body["loras"] = list(job.loras)
    defaults: dict[str, Any] = {"loras": [], "user": "", "device_s": None}
    return {name: value for name, value in body.items() if defaults.get(name, _NONE) != value}


def import_gentd26(path: Path, seed: int) -> list[Asked]:
    """The jobs of GenTD26's request trace, in order of time; those that failed are left out."""
    jobs: list[Asked] = []
    with _opened(path) as text:
        rows = csv.DictReader(_utf8(text, path.name))
        missing = set(_GENTD26) - set(rows.fieldnames or ())
        if missing:
            raise _wrong(f"{path.name}, line 1", min(missing), "the column is missing")
        jobs += [
            _gentd26(row, f"{path.name}, line {rows.line_num}", seed)
            for row in rows
            if row["predict_status"] == "SUCCEED"
        ]
    jobs.sort(key=lambda job: job.at_s)
    first_s = jobs[0].at_s if jobs else 0.0
    return [_at(job, job.at_s - first_s) for job in jobs]


_NONE = object()
_GENTD26 = (
    "gmt_create",
    "predict_status",
    "exec_time_seconds",
    "groupId",
    "num_images_per_prompt",
    "num_inference_steps",
    "checkpoint_model_version_id",
    "num_lora",
)


def _gentd26(row: Mapping[str, str], where: str, seed: int) -> Asked:
    def number(field: str, default: float) -> float:
        text = (row[field] or "").strip()
        try:
            value = float(text) if text else default
        except ValueError:
            raise _wrong(where, field, f"{text!r} is no number") from None
        if not math.isfinite(value) or value < 0:
            raise _wrong(where, field, f"{text!r} is no amount")
        return value

    try:
        created = datetime.fromisoformat(row["gmt_create"]).replace(tzinfo=UTC).timestamp()
    except (TypeError, ValueError):
        raise _wrong(where, "gmt_create", f"{row['gmt_create']!r} is no time") from None
    group = row["groupId"] or "unknown"
    noise = random.Random(f"{seed}:{where}")
    took_s = number("exec_time_seconds", 0.0)
    return Asked(
        at_s=created,
        tenant=group,
        tier=_tier(group, seed),
        model=row["checkpoint_model_version_id"] or "unknown",
        n=max(1, int(number("num_images_per_prompt", 1))),
        steps=max(1, int(number("num_inference_steps", 30))),
        loras=tuple(_lora(noise) for _ in range(int(number("num_lora", 0)))),
        device_s=took_s or None,
    )


def _tier(group: str, seed: int) -> Tier:
    at = random.Random(f"{seed}:{group}").random() * sum(TIER_MIX.values())
    for tier, share in TIER_MIX.items():
        at -= share
        if at < 0:
            return tier
    return Tier.RELAX


def _lora(noise: random.Random) -> str:
    """A name by Zipf's law with exponent 1: the rank's logarithm is even."""
    return f"lora-{int(_LORAS_DRAWN ** noise.random())}"


def _taken(path: Path) -> dict[str, float]:
    """Device-seconds that a recording says its jobs took, or were predicted to, by their id."""
    taken_s: dict[str, float] = {}
    with _opened(path) as lines:
        told = enumerate(_utf8(lines, path.name), start=1)
        if not next(told, (0, ""))[1].startswith(OURS):
            return taken_s
        for number, line in told:
            if line.startswith(OURS) and (fact := _told(line, f"{path.name}, line {number}")):
                taken_s[fact[0]] = fact[1]
    return taken_s


def _told(line: str, where: str) -> tuple[str, float] | None:
    try:
        event = json.loads(line).get("event", {})
        device_s = event.get("device_s", event.get("cost_s"))
        return (event["job_id"], float(device_s)) if device_s else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _wrong(where, "event", f"no event of a recording: {error!r}") from None


def _job(line: str, where: str, taken_s: Mapping[str, float]) -> Asked:
    if len(line) > LINE_CHARS_MAX:
        raise _wrong(where, "", f"longer than {LINE_CHARS_MAX} characters")
    try:
        body = json.loads(line)
    except ValueError as error:
        raise _wrong(where, "", f"no JSON: {error}") from None
    if not isinstance(body, dict):
        raise _wrong(where, "", "no JSON object")
    for field in body:
        if field not in _CHECKS:
            raise _wrong(where, field, "unknown field")
    for field in ("at_s", "tenant", "tier", "model"):
        if field not in body:
            raise _wrong(where, field, "missing")
    checked = {field: _CHECKS[field](value, where, field) for field, value in body.items()}
    if (job_id := checked.pop("job", None)) in taken_s:
        checked.setdefault("device_s", taken_s[job_id])
    return Asked(**checked)


def _number(least: float, most: float) -> Callable[[Any, str, str], float]:
    def check(value: Any, where: str, field: str) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            raise _wrong(where, field, f"{value!r} is no number from {least:g} to {most:g}")
        return float(value)

    return check


def _whole(least: int, most: int) -> Callable[[Any, str, str], int]:
    def check(value: Any, where: str, field: str) -> int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not least <= value <= most:
            raise _wrong(where, field, f"{value!r} is no whole number from {least} to {most}")
        return int(value)

    return check


def _text(value: Any, where: str, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_CHARS_MAX:
        raise _wrong(where, field, f"{value!r} is no text of 1 to {TEXT_CHARS_MAX} characters")
    return value


def _known_tier(value: Any, where: str, field: str) -> Tier:
    if value not in list(Tier):
        raise _wrong(where, field, f"{value!r} is none of {', '.join(Tier)}")
    return Tier(value)


def _names(value: Any, where: str, field: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _IMAGES_MAX:
        raise _wrong(where, field, f"{value!r} is no list of at most {_IMAGES_MAX} names")
    return tuple(_text(name, where, field) for name in value)


_SIZE = _whole(1, 4 * limits.SIZE_PX_MAX)
_CHECKS: dict[str, Callable[[Any, str, str], Any]] = {
    "at_s": _number(0.0, 1e9),
    "tenant": _text,
    "tier": _known_tier,
    "model": _text,
    "n": _whole(1, _IMAGES_MAX),
    "steps": _whole(1, _STEPS_MAX),
    "width": _SIZE,
    "height": _SIZE,
    "guidance": _number(0.0, 100.0),
    "loras": _names,
    "user": _text,
    "device_s": _number(1e-6, 1e6),
    "job": _text,
}


def _wrong(where: str, field: str, what: str) -> InvalidInput:
    said = f"{where}, field {field}: {what}" if field else f"{where}: {what}"
    return InvalidInput(said, field=field or None)


def _at(job: Asked, at_s: float) -> Asked:
    return replace(job, at_s=at_s)


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}", field="trace") from None


def _utf8(lines: Iterable[str], name: str) -> Iterator[str]:
    """The lines of a file that was opened by ``_opened``; the first that isn't UTF-8 is named."""
    for number, line in enumerate(lines, start=1):
        if not line.isascii() and any("\udc80" <= char <= "\udcff" for char in line):
            raise _wrong(f"{name}, line {number}", "", "it isn't UTF-8")
        yield line
