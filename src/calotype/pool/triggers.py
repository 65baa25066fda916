"""The words that switch a LoRA on, as its maker wrote them into its file or beside it.

Read are, in the file's header, ``modelspec.trigger_phrase`` (Stability AI's ModelSpec 1.0.0) and
``ss_tag_frequency`` (kohya-ss/sd-scripts, and what other trainers write in its manner): of each
folder of training pictures its name without the number of repeats, and the tags that at least half
of its pictures have. Beside it NAME.json ("activation text", as AUTOMATIC1111's web UI keeps it)
and NAME.civitai.info ("trainedWords"). All of it comes from strangers: what isn't as it should be
is left out, and named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.nouns import AdapterInfo
from calotype.files.weights import read_json

PHRASE, TAGS = "modelspec.trigger_phrase", "ss_tag_frequency"
_SETS, _OTHER_SETS = "ss_dataset_dirs", "ss_reg_dataset_dirs"  # with counts; what isn't learnt
_BESIDE = ((".json", "activation text"), (".civitai.info", "trainedWords"))
_REPEATED = re.compile(r"\d+_(.+)", re.DOTALL)  # a folder's name: repeats, then what it shows
_SHOWN_CHARS = 60


@dataclass(frozen=True)
class Told:
    """What is said of a LoRA's words."""

    words: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()  # what can't be read, and why


def together(*told: Told) -> Told:
    """All of it, each word once however it is spelled, no more than there may be."""
    words: dict[str, str] = {}
    for each in told:
        for word in each.words:
            words.setdefault(word.casefold(), word)
    unread = [reason for each in told for reason in each.unread]
    if (more := len(words) - limits.LORA_TRIGGERS_MAX) > 0:
        unread.append(f"{more} words past the first {limits.LORA_TRIGGERS_MAX}")
    first = tuple(words.values())[: limits.LORA_TRIGGERS_MAX]
    return Told(first, tuple(unread[: limits.LORA_TRIGGERS_MAX]))


def with_recorded(info: AdapterInfo, recorded: Told) -> AdapterInfo:
    """A LoRA with what was said of it when it was registered before what it says itself."""
    said = together(recorded, Told(info.triggers, info.triggers_unread))
    return replace(info, triggers=said.words, triggers_unread=said.unread)


def in_header(header: Mapping[str, str]) -> Told:
    """What a file's header tells, by name."""
    return together(
        _checked(PHRASE, header.get(PHRASE, "").split(",")),
        _of_sets(*(_parsed(header, name) for name in (TAGS, _SETS, _OTHER_SETS))),
    )


def beside(file: Path) -> Told:
    """What lies beside a LoRA's file, under its name."""
    found = []
    for ending, name in _BESIDE:
        other = file.with_suffix(ending)
        try:
            if not other.is_file():
                continue
            said = read_json(other).get(name, "")
        except OSError:  # no file can have such a name
            continue
        except ModelBroken as error:
            found.append(Told(unread=(f"{ending}: {error.detail}",)))
            continue
        found.append(_checked(f"{ending}: {name}", said.split(",") if _is_text(said) else said))
    return together(*found)


def why_no_word(word: str) -> str:
    """What speaks against taking this for a word, or a few, that people type; empty: nothing."""
    most = limits.LORA_TRIGGER_CHARS_MAX
    if not word.strip():
        return "a word is empty"
    if len(word) > most:
        return f"{word[:_SHOWN_CHARS]!r}... has {len(word)} characters, and may have {most}"
    return "" if word.isprintable() else f"{word!r} has characters that nobody can type"


def _checked(where: str, words: Any) -> Told:
    """Those of a stranger's words that are fit to be shown."""
    if not isinstance(words, list) or not all(map(_is_text, words)):
        return Told(unread=(f"{where}: it is no text, and no list of texts",))
    spaced = [" ".join(word.split()) for word in words]
    reasons = {word: why_no_word(word) for word in spaced if word}
    good = tuple(word for word, why in reasons.items() if not why)
    return Told(good, tuple(f"{where}: {why}" for why in reasons.values() if why))


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str)


def _parsed(header: Mapping[str, str], name: str) -> dict[str, Any] | Told:
    """A JSON object that a header holds as text; empty if it hasn't one."""
    text = header.get(name, "{}")
    if len(text) > limits.LORA_TOLD_CHARS_MAX:
        most = limits.LORA_TOLD_CHARS_MAX
        return Told(unread=(f"{name}: it has {len(text):,} characters, and may have {most:,}",))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else Told(unread=(f"{name}: it is no JSON object",))


def _of_sets(*told: dict[str, Any] | Told) -> Told:
    """The names of folders of training pictures, and the tags that most of their pictures have."""
    unread = [each for each in told if isinstance(each, Told)]
    tags, sets, others = ({} if isinstance(each, Told) else each for each in told)
    names: list[str] = []
    frequent: list[str] = []
    for folder, counts in tags.items():
        if folder in others:  # pictures that it was held against, not taught
            continue
        if (named := _REPEATED.fullmatch(folder)) is not None:
            names.append(named[1])
        if not isinstance(counts, dict) or not all(map(_is_count, counts.values())):
            unread.append(Told(unread=(f"{TAGS}: a folder has no numbers by tag",)))
            continue
        frequent += _frequent(counts, sets.get(folder))
    return together(_checked(TAGS, names), _checked(TAGS, frequent), *unread)


def _frequent(counts: Mapping[str, int], about: Any) -> Iterable[str]:
    """The tags of at least half of a folder's pictures, the most frequent first."""
    most = max(counts.values(), default=0)
    if most == 1 and len(counts) > 1:  # captions, each of one picture
        return []
    said = about.get("img_count") if isinstance(about, dict) else None
    pictures = max(most, said if _is_count(said) else 0)
    ordered = sorted(counts.items(), key=lambda it: -it[1])
    return [tag for tag, count in ordered if count > 0 and pictures <= 2 * count]


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0
