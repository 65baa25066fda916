"""From what a caller wrote to a job's spec: every limit is checked here, whoever asks.

Nothing is corrected in silence: a value is taken as it is, or refused with its field and its limit.
What the caller left open is filled from the parent, the LoRAs' or the model's defaults (and the
seed by chance), so that a spec is whole and a job can be made again from it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.families import FAMILIES
from calotype.core.kinds import IMAGES, Kind
from calotype.core.nouns import (
    AdapterInfo,
    Ask,
    ControlUse,
    InputPicture,
    LoraUse,
    ModelInfo,
    Sampler,
    Spec,
    Tier,
)
from calotype.flow import begin
from calotype.flow.checks import check_count, check_range, check_text, one_of, whole


@dataclass(frozen=True)
class Found:
    """What an ask names, looked up: adapters in its order, the tenant's pictures by id."""

    kind: Kind = Kind.TEXT
    loras: tuple[AdapterInfo, ...] = ()
    controls: tuple[AdapterInfo, ...] = ()
    pictures: Mapping[str, InputPicture] = field(default_factory=dict)
    parent: InputPicture | None = None


def spec_of(ask: Ask, model: ModelInfo, found: Found | None = None) -> Spec:
    """The spec of what was asked of this model; raises InvalidInput."""
    found = found or Found()
    prompt, negative = _texts(ask, model)
    guidance = _open(ask.guidance, found.loras, "guidance", model.guidance)
    check_range("guidance", guidance, limits.GUIDANCE_MIN, limits.GUIDANCE_MAX)
    steps = _open(ask.steps, found.loras, "steps", model.steps)
    steps = whole("steps", steps, limits.STEPS_MIN, limits.STEPS_MAX)
    seed = secrets.randbelow(limits.SEED_MAX + 1) if ask.seed is None else ask.seed
    source = found.pictures[ask.source] if ask.source else found.parent
    if ask.mask and source is not None:
        begin.check_mask(found.pictures[ask.mask], source)
    width, height = begin.size_of(ask, found.kind, model, source)
    count = IMAGES.get(found.kind, 1) if ask.n is None else ask.n
    spec = Spec(
        prompt=prompt,
        negative_prompt=negative,
        model=model.name,
        width=width,
        height=height,
        steps=steps,
        guidance=float(guidance),
        sampler=_sampler(ask, model, found.loras),
        seed=whole("seed", seed, 0, limits.SEED_MAX),
        n=whole("n", count, 1, limits.IMAGES_PER_JOB_MAX),
        kind=found.kind,
        parent=ask.parent,
        source=source.id if source else None,
        mask=ask.mask,
        strength=begin.strength_of(ask, found.kind, steps),
        loras=_loras(ask.loras or (), found.loras, model),
        controls=_controls(ask.controls, found.controls, model),
    )
    begin.check_bytes(spec)
    return spec


def tier_of(ask: Ask) -> Tier:
    """The tier that was asked for; raises InvalidInput."""
    return one_of("tier", ask.tier, Tier, Tier.FAST)


def model_name(ask: Ask, default: str) -> str:
    """The model that was asked for."""
    return default if ask.model is None else ask.model


def _texts(ask: Ask, model: ModelInfo) -> tuple[str, str]:
    if ask.prompt is None:
        raise InvalidInput(
            "prompt is missing", field="prompt", limit="a value of its own: there is no default"
        )
    check_text("prompt", ask.prompt)
    if not ask.prompt.strip():
        raise InvalidInput("the prompt is empty", field="prompt", limit={"min_chars": 1})
    negative = ask.negative_prompt or ""
    check_text("negative_prompt", negative)
    if negative and not FAMILIES[model.family].has_negative_prompt:
        raise InvalidInput(
            f"{model.name} takes no negative prompt: models of {model.family} can't use one",
            field="negative_prompt",
            limit={"max_chars": 0},
        )
    return ask.prompt, negative


def _open(value: Any, loras: Sequence[AdapterInfo], name: str, default: Any) -> Any:
    """What was asked, else what the first LoRA wants that has a wish, else the model's own."""
    if value is not None:
        return value
    wishes = (getattr(lora, name) for lora in loras)
    return next((wish for wish in wishes if wish is not None), default)


def _sampler(ask: Ask, model: ModelInfo, loras: Sequence[AdapterInfo]) -> Sampler:
    own: Sampler = _open(None, loras, "sampler", model.sampler)
    sampler = one_of("sampler", ask.sampler, Sampler, own)
    suited = FAMILIES[model.family].samplers
    if sampler not in suited:
        raise InvalidInput(
            f"{model.name} can't be sampled with {sampler}: it is a model of {model.family}",
            field="sampler",
            limit=[each.value for each in suited],
        )
    return sampler


def _loras(
    uses: Sequence[LoraUse], infos: Sequence[AdapterInfo], model: ModelInfo
) -> tuple[LoraUse, ...]:
    check_count("loras", len(uses), limits.LORAS_PER_JOB_MAX)
    names = [info.name for info in infos]  # each of just one version
    for at, (use, info) in enumerate(zip(uses, infos, strict=True)):
        place = f"loras[{at}]"
        if info.name in names[:at]:
            raise InvalidInput(
                f"{use.name} is there twice: give it one weight",
                field=f"{place}.name",
                limit="once",
            )
        _check_suits(place, info, model)
        least, most = limits.LORA_WEIGHT_MIN, limits.LORA_WEIGHT_MAX
        check_range(f"{place}.weight", use.weight, least, most)
    return tuple(
        replace(use, name=name, weight=float(use.weight))
        for use, name in zip(uses, names, strict=True)
    )


def _controls(
    uses: Sequence[ControlUse], infos: Sequence[AdapterInfo], model: ModelInfo
) -> tuple[ControlUse, ...]:
    check_count("controls", len(uses), limits.CONTROLS_PER_JOB_MAX)
    whole_uses = []
    for at, (use, info) in enumerate(zip(uses, infos, strict=True)):
        place = f"controls[{at}]"
        _check_suits(place, info, model)
        least, most = limits.CONTROL_WEIGHT_MIN, limits.CONTROL_WEIGHT_MAX
        check_range(f"{place}.weight", use.weight, least, most)
        check_range(f"{place}.start", use.start, 0.0, 1.0)
        check_range(f"{place}.end", use.end, 0.0, 1.0)
        if use.start >= use.end:
            raise InvalidInput(
                f"it would end at {use.end:g}, before it starts at {use.start:g}",
                field=f"{place}.end",
                limit={"above": use.start, "max": 1.0},
            )
        canny = info.control == "canny" if use.canny is None else use.canny
        whole_uses.append(replace(use, name=info.name, canny=canny))
    return tuple(whole_uses)


def _check_suits(place: str, info: AdapterInfo, model: ModelInfo) -> None:
    if not info.suits(model):
        raise InvalidInput(
            f"{info.name} was made for {', '.join(info.bases)}, not for {model.name}",
            field=f"{place}.name",
            limit=list(info.bases),
        )
