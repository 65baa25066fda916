"""Trains a picture check of an operator's own and registers it, for a command; no server is needed.

Reads the pictures as those that people send are read, has the encoder's process make rows of them,
and leaves what is learnt to ``safety.training``. The result is a version of a classifier in the
registry, named by what it holds: nothing uses it until safety.toml names it, or an alias moves.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.picture_checks import ENCODER_FILE
from calotype.core.references import check_name
from calotype.delivery import inputs
from calotype.files.headers import read_header
from calotype.pool import intake
from calotype.pool.catalogue import Catalogue
from calotype.pool.embedder import Embedder
from calotype.pool.kinds import ModelKind
from calotype.safety.training import course
from calotype.safety.training.labelled import (
    Labelled,
    check_labels,
    harmless_of,
    labelled,
    said_of,
)
from calotype.safety.training.parts import Example, example

_TOLD_EVERY = 100  # pictures
_BUILD_DIGITS = 16
_WRONG_MAX = 100  # unreadable pictures, before it is given up


@dataclass(frozen=True)
class Trained:
    """What became of it."""

    added: intake.Added
    card: dict[str, Any]


def embedded_encoder() -> Path:
    """The folder of the encoder that ships with Calotype: the domain check's."""
    return Path(str(files("calotype"))) / "models" / "checks" / "vignette-domain"


def train(
    catalogue: Catalogue,
    data: Sequence[Path],
    wish: course.Wish,
    *,
    encoder: Path | None = None,
    tell: Callable[[str], None] = lambda said: None,
) -> Trained:
    """Train on these folders and files of decisions, and register the check.

    Raises InvalidInput for pictures, labels or an encoder that are of no use, naming which, and
    OperatorError if the encoder's process ends, scikit-learn is missing or the disk is full.
    """
    check_name(wish.name)
    course.check_wish(wish)
    given = labelled(data)
    counts = Counter(each.label for each in given)
    check_labels(counts)  # again, without near copies, once they are known
    harmless_of(counts, wish.harmless)
    encoder = encoder or embedded_encoder()
    with tempfile.TemporaryDirectory(prefix="calotype-training-") as place:
        folder = Path(place) / wish.name
        folder.mkdir()
        with Embedder(encoder, folder) as embedder:
            examples = _looked_at(given, embedder, tell)
        weights = folder / ENCODER_FILE
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        named = {"name": encoder.absolute().name, "build": digest[:_BUILD_DIGITS]}
        tensors = tuple(sorted(read_header(weights).tensors))
        made = course.Encoder({**embedder.said, **named}, tensors)
        card = course.run(examples, wish, made, folder)
        asked = intake.Wish(
            name=wish.name,
            kind=ModelKind.CLASSIFIER,
            licence=wish.licence,
            source=f"calotype safety train, seed {wish.seed}",
        )
        added = intake.take_in(catalogue.versions, folder, asked, taken=catalogue.taken())
    return Trained(added, card)


def _looked_at(
    given: Sequence[Labelled], embedder: Embedder, tell: Callable[[str], None]
) -> list[Example]:
    found: list[Example] = []
    wrong: list[tuple[str, str]] = []
    for at, each in enumerate(given, 1):
        try:
            found.append(_example(each, embedder))
        except InvalidInput as error:
            wrong.append((each.name, error.detail))
            if len(wrong) > _WRONG_MAX:
                break
        if at % _TOLD_EVERY == 0:
            tell(f"{at:,} of {len(given):,} pictures")
    if wrong:
        raise InvalidInput(
            f"pictures can't be used: {said_of(wrong)}",
            field="data",
            limit=list(inputs.FORMATS),
        )
    return found


def _example(each: Labelled, embedder: Embedder) -> Example:
    try:
        if (size := each.path.stat().st_size) > limits.PICTURE_BYTES_MAX:
            raise InvalidInput(f"it has {size:,} bytes; {limits.PICTURE_BYTES_MAX:,} are allowed")
        data = each.path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"it can't be read: {error.strerror}", field=each.name) from error
    if each.sha256 and hashlib.sha256(data).hexdigest() != each.sha256:
        raise InvalidInput("it isn't the picture that was decided on", field="sha256")
    pixels = inputs.read(data)
    return example(each, data, pixels, embedder.features(pixels))
