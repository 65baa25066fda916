"""The nouns: frozen, with a comment and a unit per field."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from calotype.core.kinds import Kind
from calotype.core.picture_checks import CheckUse, Trial
from calotype.core.references import plain
from calotype.core.states import JobState


class Tier(StrEnum):
    """The three service classes."""

    TURBO = "turbo"
    FAST = "fast"
    RELAX = "relax"


TIER_WEIGHTS = {Tier.TURBO: 10, Tier.FAST: 5, Tier.RELAX: 1}  # shares of device-seconds


class Sampler(StrEnum):
    """The samplers, by the names the field uses."""

    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_KARRAS = "dpmpp_2m_karras"
    DPMPP_SDE = "dpmpp_sde"
    EULER = "euler"
    EULER_A = "euler_a"
    HEUN = "heun"
    UNIPC = "unipc"
    LCM = "lcm"  # few steps, with an LCM-LoRA or a distilled model
    TCD = "tcd"  # few steps, with a TCD or Turbo-style model
    FLOW_EULER = "flow_euler"  # of models that learnt a flow: SD3, FLUX
    FLOW_HEUN = "flow_heun"


@dataclass(frozen=True)
class LoraUse:
    """A LoRA in a job."""

    name: str  # of the registry of adapters
    weight: float = 1.0  # 0 does nothing


@dataclass(frozen=True)
class ControlUse:
    """A ControlNet in a job, and the picture that guides it."""

    name: str  # of the registry of adapters
    picture: str  # id of an input picture or of a finished image
    weight: float = 1.0
    start: float = 0.0  # share of the steps, 0..1, from which it works ...
    end: float = 1.0  # ... and up to which
    canny: bool | None = None  # take the picture's edges first; None in an Ask: as it was trained


@dataclass(frozen=True)
class IdempotencyKey:
    """What tells a request that is sent again from a new one; of one tenant."""

    key: str  # the caller's own, 1 to IDEMPOTENCY_KEY_CHARS_MAX visible ASCII characters
    body_sha256: str  # of what is asked, hexadecimal: under one key it has to be the same
    good_after: datetime  # what was asked under it up to then is forgotten


@dataclass(frozen=True)
class Ask:
    """What a caller wrote; None where the choice is left to defaults, the parent or chance."""

    prompt: str | None = None  # needed, unless there is a parent that has one
    negative_prompt: str | None = None
    model: str | None = None
    width: int | None = None  # pixels
    height: int | None = None  # pixels
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    seed: int | None = None
    n: int | None = None  # images
    tier: str = Tier.FAST
    kind: str | None = None  # else what source and mask make it
    parent: str | None = None  # id of the image to vary or upscale
    source: str | None = None  # id of the picture to begin from
    mask: str | None = None  # id of a picture as large: white where the source may change
    strength: float | None = None
    loras: tuple[LoraUse, ...] | None = None
    controls: tuple[ControlUse, ...] = ()


@dataclass(frozen=True)
class Spec:
    """What a job asks for, whole: nothing is left to a default after admission."""

    prompt: str
    negative_prompt: str  # empty when there is none
    model: str  # a name of the model registry, of just one version where there are several
    width: int  # pixels
    height: int  # pixels
    steps: int
    guidance: float  # classifier-free guidance scale; at most 1 turns it off
    sampler: Sampler
    seed: int  # of the first image; image i has (seed + i) modulo 2**32
    n: int  # images
    kind: Kind = Kind.TEXT
    parent: str | None = None  # id of the image that is varied or upscaled
    source: str | None = None  # id of the picture it begins from; a parent is one
    mask: str | None = None
    strength: float = 1.0  # share of the steps, and of noise, that the source is given
    loras: tuple[LoraUse, ...] = ()
    controls: tuple[ControlUse, ...] = ()
    model_asked: str = ""  # what the caller wrote, where a version was chosen for it: sdxl@stable
    is_canary: bool = False  # that version is tried out on it
    pool: str = ""  # engines and store that its policy has to itself; "": everybody's

    @property
    def picture_ids(self) -> tuple[str, ...]:
        """Every picture it is made from, each once: source, mask, those of its controls."""
        named = (self.source, self.mask, *(control.picture for control in self.controls))
        return tuple(dict.fromkeys(each for each in named if each is not None))

    def image_seed(self, index: int) -> int:
        """The seed of image ``index`` (0..n-1)."""
        return (self.seed + index) % 2**32


@dataclass(frozen=True)
class ImageFile:
    """One stored file of a delivered picture."""

    form: str  # "png", "webp", "jpeg", "avif"
    side: int  # pixels of its longer side; 0: as large as it was made
    name: str  # in the store
    sha256: str  # of the file
    bytes: int  # 0: not known, of a file from before there were records of them


@dataclass(frozen=True)
class Image:
    """One delivered picture. ``sha256`` is that of the signed PNG as it is stored and served."""

    id: str
    index: int  # 0..n-1 within its job
    seed: int
    width: int  # pixels
    height: int  # pixels
    sha256: str  # of the PNG file
    pixels_sha256: str  # of the raw RGB bytes: same job, same machine, same value
    formats: tuple[str, ...]  # files that were made with it: "png", "webp"
    files: tuple[ImageFile, ...] = ()  # to be written with it; reading leaves them out
    removed_at: datetime | None = None  # when it was taken away: nobody gets it any more
    # What allows it; to be written with it, since without one it can't be. Reading leaves it out.
    verdict: Verdict | None = field(default=None, compare=False)


@dataclass(frozen=True)
class InputPicture:
    """A picture that a job can begin from: one that its tenant sent, or had made."""

    id: str  # "pic_...", or that of a finished image
    width: int  # pixels
    height: int  # pixels
    bytes: int  # of the PNG that is kept of it; 0 for a finished image, which isn't counted
    sha256: str  # of the raw RGB bytes
    used_at: datetime  # last sent, or named by a job


@dataclass(frozen=True)
class Refusal:
    """An image of a job that the safety policy keeps back."""

    index: int  # 0..n-1 within its job
    category: str | None
    detail: str  # a sentence for the person


@dataclass(frozen=True)
class Job:
    """One request for 1..n images, as the store holds it."""

    id: str
    tenant: str
    tier: Tier
    spec: Spec
    state: JobState
    created_at: datetime  # UTC, aware, like all times here
    started_at: datetime | None  # first attempt's start
    finished_at: datetime | None
    attempt: int  # attempts begun so far
    token: int  # fencing token: grows with every lease, and by cancelling
    images: tuple[Image, ...]  # empty until succeeded
    error: dict[str, Any] | None  # a problem body once failed
    refused: tuple[Refusal, ...] = ()  # images kept back; told once the job is over
    user: str = ""  # of the tenant, who asked; "" before there were users
    fell_from: Tier | None = None  # the tier that was asked for, when its budget was spent
    charged_s: float | None = None  # device-seconds taken from a budget when it was let in


@dataclass(frozen=True)
class Event:
    """One entry of a job's append-only log."""

    job_id: str
    seq: int  # 1, 2, 3 ... within the job; the SSE id
    kind: str  # of EVENT_KINDS
    at: datetime
    data: dict[str, Any]  # JSON


# What a job's log can say, in the past tense, and the keys of each event's data.
EVENT_KINDS = {
    "queued": (
        "tier; fell_from (the tier asked for) if the budget is spent; also reason and attempt when "
        "it is queued again"
    ),
    "promoted": "waited_s, why: it goes before others from now on",
    "loading": "model, engine, left_s: the model it waits for is being loaded",
    "load_failed": "model, engine, reason: that came to nothing; it is tried again",
    "started": "attempt, engine; why if it started out of turn",
    "step": (
        "image (index), step, steps; preview (data URL of a small WebP) now and then; tokens_cut "
        "with an image's first, if its prompt was too long for the model"
    ),
    "image_finished": (
        "image (index), id, verdict (allow, review, block); if not allow also category, check, "
        "version, policy and detail"
    ),
    "attempt_failed": "attempt, engine, reason",
    "handed_back": (
        "attempt, engine, reason; images: of each that isn't finished its image (index), step and "
        "steps from which it goes on, and not_kept (why) if it begins again"
    ),
    "pending_safety": "reason",
    "in_review": "reason: people have to look at its pictures first",
    "succeeded": "images (count); again when people let out another one",
    "failed": "error (problem body)",
    "cancelled": "by (caller, operator)",
}


@dataclass(frozen=True)
class Lease:
    """The right to run one attempt of a job; writes with an older token change nothing."""

    job_id: str
    attempt: int  # 1, 2 ... within the job
    token: int
    engine: str


class WhenSpent(StrEnum):
    """What becomes of a tenant's faster jobs once its budget is spent."""

    RELAX = "relax"  # they wait in relax, which costs none
    REFUSE = "refuse"


@dataclass(frozen=True)
class Budget:
    """Device-seconds of turbo and fast that a tenant may use in each period ("fast hours")."""

    fast_s: float
    when_spent: WhenSpent = WhenSpent.REFUSE


@dataclass(frozen=True)
class Key:
    """An API key, without its secret."""

    id: str
    tenant: str
    user: str  # of the tenant: shares are even between a tenant's users
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


class VerdictKind(StrEnum):
    """What a safety check can say."""

    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"


@dataclass(frozen=True)
class Verdict:
    """What one safety check said of a prompt or a picture."""

    kind: VerdictKind
    check: str  # the check's name
    version: str  # of the check: its lists or weights
    category: str | None = None  # why, if not allow
    score: float | None = None  # 0..1
    detail: str = ""  # a sentence for the person
    field: str | None = None  # the input that it is about, of a prompt
    policy: str = ""  # version of the policy that it is by; "" of a check that needs none


@dataclass(frozen=True)
class Component:
    """A separately loadable part of a model. Models that have the same one share its memory."""

    id: str  # content hash
    kind: str  # "denoiser", "text_encoder", "vae", ...; "model" for all of a model in one
    bytes: int  # of its weights, on the device


@dataclass(frozen=True)
class Reserve:
    """A line of a device's ledger that isn't the weights of base models."""

    name: str  # "loras", "controls", "latents", "safety", "overhead", ...
    bytes: int


@dataclass(frozen=True)
class ModelInfo:
    """A base model as the registry knows it, read from its folder without loading it."""

    name: str
    family: str  # of core/families.py
    path: str  # the diffusers folder
    build: str  # of its files, and of how it is loaded: first 16 hex digits of a hash
    title: str
    licence: str
    parameter_bytes: int  # sum of its safetensors files
    width: int  # default, pixels
    height: int  # default, pixels
    size_px_min: int
    size_px_max: int
    steps: int  # default
    guidance: float  # default
    sampler: Sampler  # default
    dtype: str = "auto"  # these three: how it is loaded, as LoadModel has them
    quantise: str = ""
    compile: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()  # empty: not known apart
    domain: str = ""  # the closed domain that is all it can draw; "": it can draw anything
    checks: tuple[CheckUse, ...] = ()  # that each of its pictures has to pass
    trials: tuple[Trial, ...] = ()  # checks that look at them beside those, and nothing follows
    decoder: str = ""  # file of weights that its decoder has in place of its own, with a mark
    decoder_key: str = ""  # id of that mark's key

    @property
    def parts(self) -> tuple[Component, ...]:
        """Its components; where they aren't known apart, one of all its bytes."""
        return self.components or (Component(self.build, "model", self.parameter_bytes),)


class AdapterKind(StrEnum):
    """What can be added to a base model."""

    LORA = "lora"
    CONTROL = "control"


@dataclass(frozen=True)
class AdapterInfo:
    """A LoRA or a ControlNet as the registry knows it, without loading it."""

    kind: AdapterKind
    name: str
    path: str  # a LoRA's safetensors file, a ControlNet's folder
    build: str  # content hash of its files: first 16 hex digits
    title: str
    licence: str
    bases: tuple[str, ...]  # models or families it was made for; empty: it doesn't say
    bytes: int  # of its weights
    steps: int | None = None  # where it wants its own, as LCM does
    guidance: float | None = None
    sampler: Sampler | None = None
    control: str = ""  # what guides a ControlNet, e.g. "canny"
    parameters: int = 0  # numbers in its weights; 0: not known
    triggers: tuple[str, ...] = ()  # words that switch a LoRA on, as its maker or operator say
    triggers_unread: tuple[str, ...] = ()  # what was said of them and can't be read, and why

    def suits(self, model: ModelInfo) -> bool:
        """Whether it says that it was made for this model; one that says nothing may be tried."""
        names = {model.name, plain(model.name), model.family}
        return not self.bases or not names.isdisjoint(self.bases)
