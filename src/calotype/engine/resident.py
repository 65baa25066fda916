"""The models that an engine holds: read, warmed up, and with what is merged into them."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from calotype.core.errors import Conflict, NotFound
from calotype.core.messages import LoadModel, ModelLoaded
from calotype.engine.families.base import Model
from calotype.engine.families.loading import load_model
from calotype.engine.previews import Previewer
from calotype.engine.sizes import Sizes


class Models:
    """Models by name, as each was asked for."""

    def __init__(self, device: torch.device, sizes: Sizes) -> None:
        self._device, self._sizes = device, sizes
        self._held: dict[str, tuple[Model, Previewer]] = {}
        self._asked: dict[str, LoadModel] = {}

    @property
    def bytes(self) -> int:
        """Of all weights."""
        return sum(model.parameter_bytes for model, _ in self._held.values())

    @property
    def lora_bytes(self) -> int:
        """Of all LoRAs beside them."""
        return sum(model.loras.bytes for model, _ in self._held.values())

    def get(self, name: str) -> Model:
        """A model that is held; raises NotFound."""
        if name not in self._held:
            raise NotFound(f"model {name!r} is not loaded here", field="model")
        return self._held[name][0]

    def previewer(self, name: str) -> Previewer:
        """What makes its previews."""
        return self._held[name][1]

    def release(self, row: str) -> None:
        """A row needs its LoRAs no longer."""
        for model, _ in self._held.values():
            model.loras.release(row)

    def load(self, command: LoadModel, *, in_use: bool) -> ModelLoaded:
        """Read the model and find out what its own size costs; raises what goes wrong.

        The resident one is used again if only what is merged is another set: a Conflict while it
        is in use.
        """
        begun_s = time.perf_counter()
        model = self._model(command, in_use=in_use)
        size = model.default_size
        measured = self._sizes.find(model, size, size)
        self._held[command.name] = model, Previewer(model)
        self._asked[command.name] = command
        return ModelLoaded(
            command.name,
            seconds=time.perf_counter() - begun_s,
            bytes=model.parameter_bytes,
            buckets=measured.buckets,
            pass_s=measured.pass_s,
            size_px=size,
            image_s=measured.image_s,
            room_bytes=measured.room_bytes,
        )

    def _model(self, command: LoadModel, *, in_use: bool) -> Model:
        known = self._asked.get(command.name)
        if known and known != command and replace(known, merged=command.merged) == command:
            if in_use:
                raise Conflict(f"{command.name} has rows: nothing can be merged into it now")
            model = self.get(command.name)
            self._asked[command.name] = replace(command, merged=())  # until it is done
        else:
            model = load_model(command, self._device)
        try:
            model.loras.merge(command.merged)
        finally:
            model.build = model.loras.build_of(command.build)
        return model
