"""What it takes to make a picture again: the manifest that is signed into it.

The names are those of a job's spec. It holds nothing of who asked: no tenant, no key, no job.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from calotype.core.nouns import ModelInfo, Spec

LABEL = "org.calotype.manifest"  # of the C2PA assertion
# Of the fields below. Those of version 1 are all there and mean the same; it knew of no kinds,
# sources or adapters, so a manifest without them is of a picture made of its text alone.
VERSION = 2


@dataclass(frozen=True)
class MadeLora:
    """A LoRA that was at work."""

    name: str
    build: str  # content hash of its file
    weight: float


@dataclass(frozen=True)
class MadeControl:
    """A ControlNet that was at work, and what guided it."""

    name: str
    build: str  # content hash of its files
    picture_sha256: str  # of the guiding picture's raw RGB bytes, before it was resized
    weight: float
    start: float  # share of the steps, 0..1
    end: float
    canny: bool  # its edges were taken first


@dataclass(frozen=True)
class MadeWith:
    """What a picture was made from beside its text and its model."""

    source_sha256: str | None = None  # of the raw RGB bytes, before it was resized
    mask_sha256: str | None = None  # the same
    loras: tuple[MadeLora, ...] = ()
    controls: tuple[MadeControl, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """One picture's recipe. Same recipe, same machine and same torch: same ``pixels_sha256``."""

    image: str  # the image's id
    index: int  # 0..n-1 within its job
    prompt: str
    negative_prompt: str
    model: str  # name in the registry
    build: str  # content hash of the model's files: its version, if it was registered
    width: int  # pixels
    height: int  # pixels
    steps: int
    guidance: float
    sampler: str
    seed: int  # the image's own, 0..2**32-1
    calotype: str  # version of the platform
    torch: str  # version
    device: str  # "cpu", "cuda:0"
    pixels_sha256: str  # of the raw RGB bytes before any encoding
    kind: str = "text"  # of core.kinds
    parent: str | None = None  # id of the image that was varied or upscaled
    strength: float = 1.0  # share of the steps, and of noise, that the source was given
    made_with: MadeWith = field(default_factory=MadeWith)
    model_asked: str = ""  # what was named, where a version was chosen for it: sdxl@stable
    is_canary: bool = False  # that version was on trial
    decoder_key: str = ""  # of the mark that its decoder draws; "": it was the model's own decoder

    @classmethod
    def of(
        cls,
        spec: Spec,
        model: ModelInfo,
        *,
        image: str,
        index: int,
        calotype: str,
        torch: str,
        device: str,
        pixels_sha256: str,
        made_with: MadeWith | None = None,
    ) -> Manifest:
        """The manifest of image ``index`` (0..n-1) of a job with this spec."""
        return cls(
            image=image,
            index=index,
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            model=spec.model,
            build=model.build,
            width=spec.width,
            height=spec.height,
            steps=spec.steps,
            guidance=spec.guidance,
            sampler=str(spec.sampler),
            seed=spec.image_seed(index),
            calotype=calotype,
            torch=torch,
            device=device,
            pixels_sha256=pixels_sha256,
            kind=str(spec.kind),
            parent=spec.parent,
            strength=spec.strength,
            made_with=made_with or MadeWith(),
            model_asked=spec.model_asked,
            is_canary=spec.is_canary,
            decoder_key=model.decoder_key,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, with the version of the fields."""
        values = asdict(self)
        made_with = values.pop("made_with")
        if not self.decoder_key:
            del values["decoder_key"]
        lists = {name: list(made_with.pop(name)) for name in ("loras", "controls")}
        return {"version": VERSION, **values, **made_with, **lists}
