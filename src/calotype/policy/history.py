"""A line's history as text: the same bytes for the same history.

One JSON object a line, as a recording server writes them:

- ``{"line": "began", "at_s", "rules", "standing"}``: a server's start; what follows is its line's.
- ``{"line": "told", "at_s", "now", "event", "decided"}``: one ``Lines.on``, with its answer.
- Anything else is a job that was asked for, as a trace has it: ``calotype simulate`` reads it.

``at_s`` is seconds since the recording began, ``now`` what the policy was given. Words of people
(prompts) are in none of them; names of tenants and users are.

A recording of a release that didn't have a field yet is read with the field's default, which means
what was done then; written again for comparison it is left out, too. Other recordings that lack a
field, or have one that is unknown here, are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from typing import Any

from calotype import __version__
from calotype.core.decisions import Decision
from calotype.core.errors import InvalidInput
from calotype.core.events import PolicyEvent
from calotype.core.nouns import Component, Job, Reserve, Tier
from calotype.policy.pools import Lines
from calotype.policy.rules import Rules

READ_SINCE = "0.1.0"  # the first release whose recordings have all that has no default
OURS = '{"line": '  # how lines begin that are no jobs of a trace
_EVENTS: dict[str, type[Any]] = {kind.__name__: kind for kind in PolicyEvent.__args__}
# Fields of events that hold nouns: JSON brings them as lists of objects.
_PARTS: dict[str, type[Any]] = {"components": Component, "reserves": Reserve, "adapters": Reserve}


@dataclass(frozen=True)
class Difference:
    """The first line of a recording that the policy wouldn't write again."""

    line: int  # from 1
    recorded: str
    replayed: str


def began(at_s: float, rules: Rules, standing: Mapping[str, Any] | None) -> str:
    """The line of a server's start: what its ``Lines`` were made with."""
    return _text({"line": "began", "at_s": at_s, "rules": asdict(rules), "standing": standing})


def told(at_s: float, now: float, event: PolicyEvent, decisions: Sequence[Decision]) -> str:
    """The line of one event, and what was decided."""
    body = {"line": "told", "at_s": at_s, "now": now, "event": _typed(event)}
    return _text({**body, "decided": [_typed(decision) for decision in decisions]})


def asked(at_s: float, job: Job) -> str:
    """The line of a job that was let in, as ``calotype simulate --trace`` reads it."""
    spec = job.spec
    body = {
        "at_s": at_s,
        "tenant": job.tenant,
        "tier": job.tier.value,
        "model": spec.model,
        "n": spec.n,
        "steps": spec.steps,
        "width": spec.width,
        "height": spec.height,
        "guidance": spec.guidance,
        "loras": [use.name for use in spec.loras],
        "job": job.id,
    }
    return _text({**body, "user": job.user} if job.user else body)


class Replay:
    """Takes a recording line by line, and tells the policy again what it was told then."""

    def __init__(self) -> None:
        self.starts = self.events = self.decisions = self.jobs = 0
        self._line: Lines | None = None

    def take(self, number: int, text: str) -> Difference | None:
        """Line ``number`` of the recording, without its end; how it would be written now, if not
        the same.

        Raises InvalidInput, which names line and field, for what is no line of a recording.
        """
        if not text.startswith(OURS):
            self.jobs += 1
            return None
        body = _object(number, text)
        kind = body["line"]
        if kind == "began":
            self.starts += 1
            self._line = _made(number, body)
            return None
        if kind != "told":
            raise _wrong(number, "line", f"{kind!r} is none of began, told")
        if self._line is None:
            raise _wrong(number, "line", "told before any beginning")
        event = _event(number, body)
        at_s, now = _number(number, body, "at_s"), _number(number, body, "now")
        decisions = self._line.on(event, now)
        self.events += 1
        self.decisions += len(decisions)
        again = _told_like(body, at_s, now, event=event, decisions=decisions)
        return None if again == text else Difference(number, text, again)


def _made(number: int, body: Mapping[str, Any]) -> Lines:
    try:
        rules: dict[str, Any] = {
            name: {Tier(tier): share for tier, share in value.items()}
            if isinstance(value, dict)
            else value
            for name, value in body["rules"].items()
        }
        return Lines(body["standing"], Rules(**rules))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _wrong(number, "rules, standing", f"of no line: {error!r}") from None


def _event(number: int, body: Mapping[str, Any]) -> PolicyEvent:
    told_ = body.get("event")
    if not isinstance(told_, dict) or told_.get("type") not in _EVENTS:
        raise _wrong(number, "event", f"its type is none of {', '.join(_EVENTS)}")
    kind = _EVENTS[told_["type"]]
    values = {name: value for name, value in told_.items() if name != "type"}
    known = {one.name: _has_default(one) for one in fields(kind)}
    if unknown := values.keys() - known.keys():
        why = f"unknown in {kind.__name__}: a later release than {__version__} has recorded it"
        raise _wrong(number, f"event.{min(unknown)}", why)
    needed = {name for name, has_default in known.items() if not has_default}
    if missing := needed - values.keys():
        why = f"missing in {kind.__name__}: recordings are read from release {READ_SINCE} on"
        raise _wrong(number, f"event.{min(missing)}", why)
    try:
        if "tier" in values:
            values["tier"] = Tier(values["tier"])
        for name, value in values.items():
            if isinstance(value, list):
                part = _PARTS.get(name)
                values[name] = tuple(part(**it) if part else it for it in value)
    except (TypeError, ValueError) as error:
        raise _wrong(number, "event", str(error)) from None
    event: PolicyEvent = kind(**values)
    return event


def _number(number: int, body: Mapping[str, Any], field: str) -> float:
    value = body.get(field)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(number, field, f"{value!r} is no number")
    return value


def _object(number: int, text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"line {number}: no JSON: {error}") from None
    assert isinstance(body, dict), "it begins as an object"
    return body


def _wrong(number: int, field: str, what: str) -> InvalidInput:
    return InvalidInput(f"line {number}, field {field}: {what}", field=field)


def _told_like(
    body: Mapping[str, Any],
    at_s: float,
    now: float,
    *,
    event: PolicyEvent,
    decisions: Sequence[Decision],
) -> str:
    """The line as ``told`` writes it, without what it lacked in ``body`` and is at its default."""
    said = body.get("decided")
    before = (
        said if isinstance(said, list) and len(said) == len(decisions) else [{}] * len(decisions)
    )
    again = {"line": "told", "at_s": at_s, "now": now, "event": _like(body["event"], event)}
    return _text(
        {**again, "decided": [_like(*pair) for pair in zip(before, decisions, strict=True)]}
    )


def _like(before: Any, fact: PolicyEvent | Decision) -> dict[str, Any]:
    typed = _typed(fact)
    if not isinstance(before, dict) or before.get("type") != typed["type"]:
        return typed
    for one in fields(fact):
        if one.name not in before and _has_default(one) and typed[one.name] == one.default:
            del typed[one.name]
    return typed


def _has_default(one: Field[Any]) -> bool:
    return one.default is not MISSING


def _typed(fact: PolicyEvent | Decision) -> dict[str, Any]:
    # Not asdict: it copies deeply, and this runs in every turn of a recording server.
    return {"type": type(fact).__name__} | {
        one.name: getattr(fact, one.name) for one in fields(fact)
    }


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, default=vars)  # of the nouns in an event
