"""What ``calotype.json`` may say beside an adapter, an autoencoder or a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.nouns import Sampler
from calotype.files.weights import read_json
from calotype.pool.files import CARD
from calotype.pool.triggers import why_no_word

_Text = Annotated[str, Field(min_length=1, max_length=200)]


class Card(BaseModel):
    """Its fields; what concerns sampling is for adapters, triggers are LoRAs'."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    title: _Text | None = None
    licence: _Text = "unknown"
    bases: Annotated[list[_Text], Field(max_length=100)] = Field(default_factory=list)
    steps: int | None = Field(default=None, ge=limits.STEPS_MIN, le=limits.STEPS_MAX)
    guidance: float | None = Field(default=None, ge=limits.GUIDANCE_MIN, le=limits.GUIDANCE_MAX)
    sampler: Annotated[Sampler, Field(strict=False)] | None = None
    control: Annotated[str, Field(max_length=40)] = ""
    triggers: Annotated[list[str], Field(max_length=limits.LORA_TRIGGERS_MAX)] = Field(
        default_factory=list
    )


def read_card(folder: Path) -> Card:
    """The card in a folder, or one that says nothing; raises ModelBroken."""
    file = folder / CARD
    if not file.exists():
        return Card()
    try:
        card = Card.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelBroken(f"{CARD}: {field}: {first['msg']}", field=field) from error
    for word in card.triggers:
        if why := why_no_word(word):
            raise ModelBroken(f"{CARD}: triggers: {why}", field="triggers")
    return card
