"""The whole course, from pictures that were looked at to the folder of a check and its figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from calotype.core.errors import InvalidInput
from calotype.core.picture_checks import ENCODER_FILE, HEAD_FILE, INDEX_FILE
from calotype.safety.training.labelled import check_labels, harmless_of
from calotype.safety.training.measuring import doubted, few, measured
from calotype.safety.training.parts import (
    CALIBRATION,
    LEARNT,
    MEASURED,
    SHARES,
    Example,
    across_labels,
    digest,
    groups,
    split,
    without_copies,
)
from calotype.safety.training.probe import Probe, Rows, alone, calibration_error, fit

ARCHITECTURE = "CalotypeProbeForImageClassification"  # as the registry knows a classifier by
EVALUATION = "evaluation.json"  # the card: its page is made of it
_ACROSS_SHOWN = 5  # pairs of near copies under two labels that a card names
_DIGITS = 6  # of figures in a card


@dataclass(frozen=True)
class Wish:
    """What is to be trained."""

    name: str
    seed: int = 0
    false_positives: float = 0.01  # share of harmless pictures, 0..1
    harmless: tuple[str, ...] = ()  # labels; none: those that are named so
    licence: str = "unknown"


@dataclass(frozen=True)
class Encoder:
    """What made the pictures' rows; its weights lie in the folder that the check is written to."""

    said: Mapping[str, Any]  # by itself, to be loaded again; and "name" and "build"
    tensors: tuple[str, ...]  # names of its weights


def check_wish(wish: Wish) -> None:
    """Refuse shares that are none."""
    if not 0.0 < wish.false_positives < 1.0:
        raise InvalidInput(
            f"false positives are {wish.false_positives:g}",
            field="false_positives",
            limit={"above": 0.0, "below": 1.0},
        )


def run(examples: Sequence[Example], wish: Wish, encoder: Encoder, folder: Path) -> dict[str, Any]:
    """Split, learn, calibrate, measure, and write the check's files into a folder; its card.

    Raises InvalidInput for pictures that nothing can be learnt from.
    """
    kept = without_copies(examples)
    labels = tuple(sorted({each.of.label for each in kept}))
    of_group = groups(kept)
    distinct = {(each.of.label, group) for each, group in zip(kept, of_group, strict=True)}
    check_labels(Counter(label for label, _ in distinct))
    harmless = harmless_of(labels, wish.harmless)
    parts = split(kept, of_group, wish.seed)
    mine = {
        part: [each for each, it in zip(kept, parts, strict=True) if it == part] for part in SHARES
    }
    _check_parts(mine, labels)
    with alone():
        probe = fit(
            _rows(mine[LEARNT], labels),
            _rows(mine[CALIBRATION], labels),
            labels,
            harmless,
            false_positives=wish.false_positives,
            seed=wish.seed,
        )
        rows = _rows(mine[MEASURED], labels)
        chances = probe.chances(rows.rows)
    figures = measured(mine[MEASURED], chances, probe, harmless)
    torn = across_labels(kept, of_group)
    card = {
        "name": wish.name,
        "labels": list(labels),
        "harmless": list(harmless),
        "seed": wish.seed,
        "false_positives": wish.false_positives,
        "encoder": {key: encoder.said[key] for key in ("name", "kind", "build", "width")},
        "data": {
            "pictures": len(kept),
            "copies": len(examples) - len(kept),
            "groups": len(set(of_group)),
            "sha256": digest(kept),
            "parts": {part: digest(some) for part, some in mine.items()},
            "labels": {label: _counts(mine, label) for label in labels},
        },
        "method": {"strength": probe.strength, "temperature": probe.temperature},
        "thresholds": dict(probe.thresholds),
        "calibration_error": {
            "before": probe.error_before,
            "measured": calibration_error(chances, rows.wanted),
        },
        "figures": figures,
        "warnings": [*doubted(figures, wish.false_positives), *_of_torn(torn), *few(figures)],
    }
    rounded: dict[str, Any] = _rounded(card)
    _write(folder, probe, rounded, encoder, wish)
    return rounded


def _counts(parts: Mapping[str, Sequence[Example]], label: str) -> dict[str, int]:
    return {part: sum(each.of.label == label for each in some) for part, some in parts.items()}


def _check_parts(parts: Mapping[str, Sequence[Example]], labels: Sequence[str]) -> None:
    """Refuse a label that a part has no picture of: its near copies lie under other labels."""
    for label in labels:
        for part, count in _counts(parts, label).items():
            if not count:
                raise InvalidInput(
                    f"most pictures of {label!r} are near copies of pictures of other labels, so "
                    f"that none is left for the part {part!r}",
                    field=f"data.{label}",
                    limit="pictures that look different from those of other labels",
                )


def _rows(examples: Sequence[Example], labels: Sequence[str]) -> Rows:
    return Rows(
        np.stack([each.features for each in examples]),
        np.array([labels.index(each.of.label) for each in examples], np.int64),
    )


def _of_torn(pairs: Sequence[tuple[str, str]]) -> list[str]:
    if not pairs:
        return []
    named = "; ".join(f"{one} and {other}" for one, other in pairs[:_ACROSS_SHOWN])
    return [f"near copies lie under different labels ({len(pairs)}): {named}"]


def _write(
    folder: Path, probe: Probe, card: Mapping[str, Any], encoder: Encoder, wish: Wish
) -> None:
    head = {"head.weight": probe.weight, "head.bias": probe.bias}
    save_file(head, folder / HEAD_FILE)
    places = dict.fromkeys(encoder.tensors, ENCODER_FILE) | dict.fromkeys(head, HEAD_FILE)
    config = {
        "architectures": [ARCHITECTURE],
        "id2label": {str(at): label for at, label in enumerate(probe.labels)},
        "harmless": card["harmless"],
        "thresholds": dict(probe.thresholds),
        "encoder": {key: it for key, it in encoder.said.items() if key not in ("name", "build")},
    }
    said = {
        "config.json": config,
        INDEX_FILE: {"metadata": {}, "weight_map": places},
        EVALUATION: card,
        "calotype.json": {"title": wish.name, "licence": wish.licence},
    }
    for name, body in said.items():
        text = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value
