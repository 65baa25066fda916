"""Which models decode with a decoder that draws a mark, and what such marks are looked for by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from calotype.core.nouns import ModelInfo
from calotype.provenance import stable_signature_keys
from calotype.provenance.stable_signature import DecoderMark
from calotype.settings import Settings

log = structlog.get_logger("calotype.marked_decoders")


def folder_of(settings: Settings) -> Path:
    """Where the home's own decoders' marks lie."""
    return settings.secrets_folder / "decoders"


def marks_of(settings: Settings) -> tuple[DecoderMark, ...]:
    """All that are looked for, whether any are drawn or not. Raises OperatorError."""
    return stable_signature_keys.load(folder_of(settings))


def equipping(
    settings: Settings, equip: Callable[[ModelInfo], ModelInfo]
) -> Callable[[ModelInfo], ModelInfo]:
    """``equip``, and the marked decoder of each model that has one, if the settings ask for it.

    Raises OperatorError for marks that can't be read.
    """
    if not settings.marked_decoders:
        return equip
    marks = marks_of(settings)
    return lambda model: equipped(equip(model), marks)


def equipped(model: ModelInfo, marks: Sequence[DecoderMark]) -> ModelInfo:
    """The model with the newest decoder that was made for its autoencoder; else as it is."""
    components = [component.id for component in model.components]
    mark = stable_signature_keys.made_for(marks, components)
    if mark is None:
        log.info("decoder_unmarked", model=model.name)
        return model
    return replace(model, decoder=mark.decoder, decoder_key=mark.key)
