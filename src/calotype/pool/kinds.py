"""The kinds of models that the registry keeps, each with its own names."""

from __future__ import annotations

from enum import StrEnum

from calotype.core.nouns import AdapterKind


class ModelKind(StrEnum):
    """What a registered model is for. The words are those of the command line and of folders."""

    BASE = "base"
    LORA = "lora"
    CONTROL = "control"
    VAE = "vae"
    CLASSIFIER = "classifier"


WORDS = {
    ModelKind.BASE: "model",
    ModelKind.LORA: "LoRA",
    ModelKind.CONTROL: "ControlNet",
    ModelKind.VAE: "VAE",
    ModelKind.CLASSIFIER: "classifier",
}
ADAPTERS = {AdapterKind.LORA: ModelKind.LORA, AdapterKind.CONTROL: ModelKind.CONTROL}
