"""The families of base models: what is known of each before any of its weights is read.

The registry tells a folder's family by it, admission what can be asked of a model, and the engine
which samplers suit it.
"""

from __future__ import annotations

from dataclasses import dataclass

from calotype.core.nouns import Sampler

# A checkpoint in its maker's own layout, beside model_index.json and the components' folders.
SINGLE_FILE = "model.safetensors"
# Components that some pipelines name and no picture depends on: our own safety room judges.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
DTYPES = ("auto", "fp32", "bf16", "fp16")  # of the weights; auto: what suits the device
QUANTISED = ("", "int8", "fp8")  # weights of the denoiser's blocks; empty: as they are
COMPILED = ("denoiser", "vae")  # components that may go through torch.compile

_NOISE_SAMPLERS = tuple(name for name in Sampler if not name.startswith("flow_"))
# Those that solve along a flow, too; the others' noise schedules mean nothing to such a model.
_FLOW_SAMPLERS = (Sampler.FLOW_EULER, Sampler.FLOW_HEUN, Sampler.DPMPP_2M, Sampler.UNIPC)


@dataclass(frozen=True)
class Family:
    """One family. The defaults are for a model whose ``calotype.json`` says nothing of them."""

    name: str
    pipeline: str  # the class that its model_index.json names
    denoiser: str  # the component that makes the steps: "unet", "transformer"
    samplers: tuple[Sampler, ...]  # that suit what such a model has learnt
    has_negative_prompt: bool  # False: there is nothing a negative prompt could do
    size_px_multiple: int  # of width and height
    steps: int  # default
    guidance: float  # default
    sampler: Sampler  # default


FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="sd15",
            pipeline="StableDiffusionPipeline",
            denoiser="unet",
            samplers=_NOISE_SAMPLERS,
            has_negative_prompt=True,
            size_px_multiple=8,
            steps=30,
            guidance=7.5,
            sampler=Sampler.DPMPP_2M,
        ),
        Family(
            name="sdxl",
            pipeline="StableDiffusionXLPipeline",
            denoiser="unet",
            samplers=_NOISE_SAMPLERS,
            has_negative_prompt=True,
            size_px_multiple=8,
            steps=30,
            guidance=5.0,
            sampler=Sampler.DPMPP_2M,
        ),
        Family(
            name="sd3",
            pipeline="StableDiffusion3Pipeline",
            denoiser="transformer",
            samplers=_FLOW_SAMPLERS,
            has_negative_prompt=True,
            size_px_multiple=16,
            steps=28,
            guidance=7.0,
            sampler=Sampler.FLOW_EULER,
        ),
        Family(
            name="flux",
            pipeline="FluxPipeline",
            denoiser="transformer",
            samplers=_FLOW_SAMPLERS,
            has_negative_prompt=False,  # its guidance is an input of the denoiser
            size_px_multiple=16,
            steps=28,
            guidance=3.5,
            sampler=Sampler.FLOW_EULER,
        ),
    )
}
PIPELINES = {  # by their class; the last two are of models that see what may change
    **{family.pipeline: family for family in FAMILIES.values()},
    "StableDiffusionInpaintPipeline": FAMILIES["sd15"],
    "StableDiffusionXLInpaintPipeline": FAMILIES["sdxl"],
}
