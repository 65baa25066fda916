"""What it takes to make a picture again: the manifest that is signed into it.

The names are those of a job's spec. It holds nothing of who asked: no tenant, no key, no job.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from calotype.core.nouns import ModelInfo, Spec

LABEL = "org.calotype.manifest"  # of the C2PA assertion
VERSION = 1  # of the fields below; a reader refuses what it doesn't know


@dataclass(frozen=True)
class Manifest:
    """One picture's recipe. Same recipe, same machine and same torch: same ``pixels_sha256``."""

    image: str  # the image's id
    index: int  # 0..n-1 within its job
    prompt: str
    negative_prompt: str
    model: str  # name in the registry
    build: str  # content hash of the model's files
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
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values, with the version of the fields."""
        return {"version": VERSION, **asdict(self)}
