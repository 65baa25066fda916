"""What a job begins from: its kind, its parent, and the size and strength that follow from them.

Pure: pictures and parents were looked up before. What a caller leaves open is taken over from the
parent, or follows from the source's shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.kinds import BEGINS_FROM, OF_A_PARENT, STRENGTHS, UPSCALES, Kind
from calotype.core.nouns import Ask, Image, InputPicture, ModelInfo, Spec
from calotype.core.references import plain
from calotype.flow.checks import one_of, size, size_multiple, size_range


@dataclass(frozen=True)
class Parent:
    """A finished image, and the spec it was made from."""

    image: Image
    spec: Spec


def kind_of(ask: Ask) -> Kind:
    """What the job does; raises InvalidInput if it has too much or too little for it."""
    plain = Kind.INPAINT if ask.mask else Kind.IMAGE if ask.source else Kind.TEXT
    if ask.kind is None and ask.parent is not None:
        raise InvalidInput(
            "say with kind what to make of the parent", field="kind", limit=list(OF_A_PARENT)
        )
    kind = one_of("kind", ask.kind, Kind, plain)
    needs = BEGINS_FROM[kind]
    for field in ("source", "mask", "parent"):
        given = getattr(ask, field) is not None
        if given and field not in needs:
            raise InvalidInput(
                f"{kind} doesn't take a {field}", field=field, limit=f"not with {kind}"
            )
        if field in needs and not given:
            raise InvalidInput(
                f"{kind} needs a {field}", field=field, limit="the id of a picture of yours"
            )
    return kind


def taken_over(ask: Ask, kind: Kind, parent: Parent) -> Ask:
    """The ask, with what it leaves open as its parent had it.

    How it is sampled belongs to the model and its LoRAs: said otherwise, it isn't taken over.
    """
    spec = parent.spec
    values: dict[str, Any] = {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "model": spec.model,
    }
    if ask.model is None or plain(ask.model) == plain(spec.model):
        if ask.loras is None:
            steps = max(spec.steps, limits.UPSCALE_STEPS_MIN) if kind in UPSCALES else spec.steps
            values |= {"steps": steps, "guidance": spec.guidance, "sampler": spec.sampler.value}
        values["loras"] = spec.loras
    if kind in UPSCALES:
        values["seed"] = parent.image.seed
    return replace(
        ask, **{name: value for name, value in values.items() if getattr(ask, name) is None}
    )


def size_of(ask: Ask, kind: Kind, model: ModelInfo, source: InputPicture | None) -> tuple[int, int]:
    """Width and height in pixels: what was asked, else of the source's shape, else the model's."""
    if kind in UPSCALES:
        assert source is not None
        return _upscaled(ask, UPSCALES[kind], source)
    width, height = ask.width, ask.height
    if source is None:
        width, height = width or model.width, height or model.height
    elif width is None and height is None:
        width, height = fitted(source, model)
    elif width is None:
        width = _near(size("height", height or 0, model) * source.width / source.height, model)
    elif height is None:
        height = _near(size("width", width, model) * source.height / source.width, model)
    assert width is not None
    assert height is not None
    return size("width", width, model), size("height", height, model)


def fitted(source: InputPicture, model: ModelInfo) -> tuple[int, int]:
    """The source's own size if the model draws it, else the model's area in the source's shape."""
    least, most = size_range(model)
    sides = (source.width, source.height)
    if all(least <= side <= most and side % size_multiple(model) == 0 for side in sides):
        return sides
    scale = math.sqrt(model.width * model.height / (source.width * source.height))
    return _near(source.width * scale, model), _near(source.height * scale, model)


def strength_of(ask: Ask, kind: Kind, steps: int) -> float:
    """Share of the steps that the source is given, 0..1; raises InvalidInput if none is left."""
    if ask.strength is None:
        strength, field = STRENGTHS[kind], "steps"
    elif kind is Kind.TEXT:
        raise InvalidInput(
            "strength says how far to go from a source, and there is none",
            field="strength",
            limit="only with a source or a parent",
        )
    else:
        strength, field = ask.strength, "strength"
    if not 0.0 < strength <= limits.STRENGTH_MAX:
        raise InvalidInput(
            f"strength must be more than 0 and at most {limits.STRENGTH_MAX:g}, not {strength:g}",
            field="strength",
            limit={"above": 0.0, "max": limits.STRENGTH_MAX},
        )
    if int(steps * strength) < 1:
        least: dict[str, Any] = {"min": math.ceil(1000 / steps) / 1000, "max": limits.STRENGTH_MAX}
        if field == "steps":
            least = {"min": math.ceil(1 / strength), "max": limits.STEPS_MAX}
        raise InvalidInput(
            f"a strength of {strength:g} leaves none of {steps} steps", field=field, limit=least
        )
    return strength


def check_mask(mask: InputPicture, source: InputPicture) -> None:
    """Refuse a mask that isn't as large as its source."""
    if (mask.width, mask.height) != (source.width, source.height):
        raise InvalidInput(
            f"the mask is {mask.width} x {mask.height} pixels, its source "
            f"{source.width} x {source.height}",
            field="mask",
            limit={"width": source.width, "height": source.height},
        )


def check_bytes(spec: Spec) -> None:
    """Refuse what no message to an engine could carry: all its pictures, raw, in the job's size."""
    of_three = {spec.source, *(control.picture for control in spec.controls)} - {None}
    channels = 3 * len(of_three) + (spec.mask is not None)
    total, most = channels * spec.width * spec.height, limits.ENGINE_MESSAGE_BYTES_MAX
    if total > most:
        raise InvalidInput(
            f"its pictures make {total:,} bytes at {spec.width} x {spec.height} pixels; "
            f"{most:,} are allowed: use fewer controls or a smaller size",
            field="controls" if spec.controls else "source",
            limit={"max_bytes": most},
        )


def pictures_named(ask: Ask) -> Mapping[str, str]:
    """The ids of the input pictures that are asked for, by the field that names each."""
    named = {"source": ask.source, "mask": ask.mask}
    named |= {f"controls[{at}].picture": use.picture for at, use in enumerate(ask.controls)}
    return {field: picture_id for field, picture_id in named.items() if picture_id is not None}


def _upscaled(ask: Ask, factor: int, source: InputPicture) -> tuple[int, int]:
    for field in ("width", "height"):
        if getattr(ask, field) is not None:
            raise InvalidInput(
                f"an upscale's {field} is {factor} times its parent's",
                field=field,
                limit="left out of an upscale",
            )
    width, height = factor * source.width, factor * source.height
    most = limits.UPSCALE_PX_MAX
    if max(width, height) > most:
        raise InvalidInput(
            f"{factor} times {source.width} x {source.height} pixels is over {most:,} a side",
            field="kind",
            limit={"max_px": most},
        )
    return width, height


def _near(pixels: float, model: ModelInfo) -> int:
    least, most = size_range(model)
    multiple = size_multiple(model)
    return min(max(round(pixels / multiple) * multiple, least), most)
