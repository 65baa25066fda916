"""Which pictures there are to learn from, and what people said of each.

Two ways to say it: folders, ``DATA/<label>/[<source>/]*.png``, and decisions of reviewers, a file
of JSON lines: ``{"path": ..., "label": ...}``, optionally ``sha256`` (of the file, which then has
to be so), ``source`` and ``tier``. Nothing is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.safety.lists import ALWAYS

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
DECISIONS = ".jsonl"
HARMLESS_NAMES = ("harmless", "normal", "safe", "allowed")  # what is meant if nothing is said
_LABEL = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_SHOWN = 5  # files named in one error


@dataclass(frozen=True)
class Labelled:
    """One picture's file and its label."""

    name: str  # as errors and cards name it: below the folder or file that was given
    path: Path
    label: str
    source: str  # where it comes from, for a slice of the figures
    tier: str = ""  # of the job that made it, where that is known
    sha256: str = ""  # that the file has to have; empty: any


class _Decision(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    path: Annotated[str, Field(min_length=1, max_length=4_096)]
    label: str
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    source: Annotated[str, Field(max_length=100)] = ""
    tier: Annotated[str, Field(max_length=20)] = ""


def labelled(given: Sequence[Path]) -> list[Labelled]:
    """All pictures of these folders and files of decisions, by name.

    Raises InvalidInput naming what is wrong: no such folder, no label, a name that is none, a label
    that may not be learnt from, a line that says no decision, too many pictures.
    """
    found: list[Labelled] = []
    for path in given:
        found += _decisions(path) if path.suffix == DECISIONS else _folder(path)
        _check_count(len(found))
    for label in sorted({each.label for each in found}):
        _check_label(label)
    return sorted(found, key=lambda each: (each.name, str(each.path)))


def harmless_of(labels: Collection[str], said: Sequence[str]) -> tuple[str, ...]:
    """Which of the labels say nothing bad; raises InvalidInput if none does, or all do."""
    chosen = [*said] or [label for label in HARMLESS_NAMES if label in labels]
    for label in chosen:
        if label not in labels:
            raise InvalidInput(
                f"there is no label {label[:40]!r}", field="harmless", limit=sorted(labels)
            )
    if not chosen or len(set(chosen)) == len(labels):
        raise InvalidInput(
            "say which labels are harmless: thresholds are set by their pictures"
            if not chosen
            else "all labels are harmless: nothing is left to find",
            field="harmless",
            limit=sorted(labels),
        )
    return tuple(sorted(set(chosen)))


def check_labels(counts: Mapping[str, int]) -> None:
    """Refuse what nothing can be learnt from; ``counts``: of pictures that are no near copies."""
    if not 2 <= len(counts) <= limits.TRAINING_LABELS_MAX:
        raise InvalidInput(
            f"there are pictures of {len(counts)} labels ({', '.join(sorted(counts))[:200]})",
            field="data",
            limit={"min_labels": 2, "max_labels": limits.TRAINING_LABELS_MAX},
        )
    least = limits.TRAINING_LABEL_PICTURES_MIN
    for label, count in sorted(counts.items()):
        if count < least:
            raise InvalidInput(
                f"the label {label!r} has {count} pictures that aren't near copies of each other; "
                f"{least} are needed",
                field=f"data.{label}",
                limit={"min_pictures": least},
            )


def said_of(files: Sequence[tuple[str, str]]) -> str:
    """The first few files of an error, each with what is wrong with it."""
    named = "; ".join(f"{name}: {why}" for name, why in files[:_SHOWN])
    rest = len(files) - _SHOWN
    return named + (f"; and {rest} more" if rest > 0 else "")


def _folder(folder: Path) -> Iterator[Labelled]:
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder", field="data", limit="folders of labels")
    labels = sorted(it for it in folder.iterdir() if it.is_dir() and not it.name.startswith("."))
    if not labels:
        raise InvalidInput(
            f"{folder} has no folders: {folder.name}/<label>/*.png is wanted", field="data"
        )
    for label in labels:
        files = [it for it in label.rglob("*") if it.suffix.lower() in ENDINGS and it.is_file()]
        if not files:
            raise InvalidInput(
                f"{label} has no pictures", field=f"data.{label.name}", limit=list(ENDINGS)
            )
        for path in sorted(files):
            inside = path.relative_to(label).parts
            source = inside[0] if len(inside) > 1 else folder.absolute().name
            name = path.relative_to(folder).as_posix()
            yield Labelled(name, path, label.name, source)


def _decisions(file: Path) -> Iterator[Labelled]:
    try:
        if file.stat().st_size > limits.DECISIONS_BYTES_MAX:
            raise InvalidInput(
                f"{file} is too large", field="data", limit=limits.DECISIONS_BYTES_MAX
            )
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} can't be read: {error}", field="data") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = _Decision.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "line"
            raise InvalidInput(
                f"{file.name}, line {number}: {place}: {first['msg']}", field=place
            ) from error
        source = said.source or "review"
        path = file.parent / said.path
        yield Labelled(said.path, path, said.label, source, said.tier, said.sha256)


def _check_count(count: int) -> None:
    if count > limits.TRAINING_PICTURES_MAX:
        raise InvalidInput(
            f"there are {count:,} pictures", field="data", limit=limits.TRAINING_PICTURES_MAX
        )


def _check_label(label: str) -> None:
    if label == ALWAYS:
        raise InvalidInput(
            f"{label} is never learnt from: such pictures are sealed and reported, not kept",
            field=f"data.{label}",
        )
    if not _LABEL.fullmatch(label):
        raise InvalidInput(
            f"a label can't be named {label[:60]!r}",
            field="data",
            limit="a-z, 0-9, and _ - inside; 40 at most",
        )
