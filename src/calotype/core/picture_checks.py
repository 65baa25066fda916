"""What a picture check is: which kinds an engine can run, and what a model's pictures go through.

Some kinds read the prompt instead of looking, before the first step: what they refuse isn't made,
and of what may begin their scores come with the picture.

A check is data: a name, a kind, a folder of weights and the labels that it has to score. The engine
runs it and judges nothing; safety judges the scores and loads nothing. Between them a score is
named "check:label", 0..1, and what isn't there can't be allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum


class CheckKind(StrEnum):
    """What an engine can run."""

    DOMAIN = "domain"  # ours: whether a picture is of the closed domain that a model has learnt
    CLASSIFIER = "classifier"  # transformers' AutoModelForImageClassification
    CONCEPTS = "concepts"  # diffusers' StableDiffusionSafetyChecker (CompVis)
    SHIELDGEMMA2 = "shieldgemma2"  # transformers' ShieldGemma2ForImageClassification
    LLAVAGUARD = "llavaguard"  # a Llava model that answers "Safe" or "Unsafe" of a policy in words
    TEXT = "text"  # transformers' AutoModelForSequenceClassification: it reads the prompt
    PROBE = "probe"  # ours: a linear layer over a frozen encoder, from ``calotype safety train``
    RECOGNISER = "recogniser"  # ours: one over a text encoder's embedding of the prompt's end


# Kinds that read what was asked, and see no picture.
READING = frozenset({CheckKind.TEXT, CheckKind.RECOGNISER})

# The labels of those kinds whose labels aren't in their folder.
OUTSIDE, CONCEPT, SPECIAL, UNSAFE = "outside", "concept", "special", "unsafe"
LABELS = {
    CheckKind.DOMAIN: (OUTSIDE,),
    CheckKind.CONCEPTS: (CONCEPT, SPECIAL),
    CheckKind.LLAVAGUARD: (UNSAFE,),
}

# The files of a probe's weights, beside its configuration; a recogniser has the second.
ENCODER_FILE, HEAD_FILE = "encoder.safetensors", "head.safetensors"
INDEX_FILE = "model.safetensors.index.json"  # which names them, for the registry


@dataclass(frozen=True)
class CheckUse:
    """A check that every picture of a model goes through."""

    name: str  # as verdicts name it
    kind: str  # of CheckKind
    path: str  # its folder
    build: str  # content hash of its files
    labels: tuple[str, ...]  # that it has to score: no more, no fewer
    # A second folder, asked where the first gives no answer, and the hash of its files.
    standby: str = field(default="", kw_only=True)
    standby_build: str = field(default="", kw_only=True)

    @property
    def reads(self) -> bool:
        """Whether it reads the prompt, before the first step, and sees no picture."""
        return self.kind in READING

    @property
    def places(self) -> tuple[CheckUse, ...]:
        """The check at each of its places, as if it had no other."""
        first = replace(self, standby="", standby_build="")
        second = replace(first, path=self.standby, build=self.standby_build)
        return (first, second) if self.standby else (first,)

    def score_name(self, label: str) -> str:
        """What the score of a label is called."""
        return f"{self.name}:{label}"


@dataclass(frozen=True)
class Trial(CheckUse):
    """A check that is tried in the place of the one of its name: recorded, and nothing follows."""

    share: float  # of the pictures that it looks at, 0..1
