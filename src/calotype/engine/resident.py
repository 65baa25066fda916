"""The models that an engine holds: read, warmed up, and with what is merged into them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from calotype.core.errors import Conflict
from calotype.core.messages import LoadModel, MemoryLies, ModelLoaded
from calotype.engine.buckets import Work
from calotype.engine.components import Components
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Model
from calotype.engine.families.loading import load_model
from calotype.engine.fragmentation import Blocks, Parts
from calotype.engine.previews import Previewer
from calotype.engine.room import Room
from calotype.engine.sizes import Sizes
from calotype.engine.staging import Staging
from calotype.engine.tensors import by_line, bytes_of

Progress = Callable[[int, int], None]  # bytes read, and of how many


class Models:
    """Models by name, as each was asked for. All but ``read`` is for the loop's thread."""

    def __init__(
        self,
        device: torch.device,
        sizes: Sizes,
        encodings: Encodings,
        room: Room,
        *,
        staging: Staging | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        """``staging`` keeps copies in host memory, None: there are none; ``blocks`` says how the
        free memory lies."""
        self._device, self._sizes, self._encodings, self._room = device, sizes, encodings, room
        self.staging, self.blocks = staging or Staging(device), blocks or Blocks(device, None)
        self._components = Components(self.staging.find)  # for the reading thread
        self._held: dict[str, tuple[Model, Previewer]] = {}
        self._asked: dict[str, LoadModel] = {}
        self.left: Callable[[Model], None] = lambda model: None  # told of each that leaves

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[Model]:
        return (model for model, _ in self._held.values())

    def weights(self) -> Iterator[torch.Tensor]:
        """Of all of them, with what is merged into them and what previews are made with."""
        for model, previewer in self._held.values():
            yield from model.tensors()
            yield from previewer.tensors()

    def loras(self) -> Iterator[torch.Tensor]:
        """Of all LoRAs beside them."""
        for model in self:
            yield from model.loras.tensors()

    def get(self, name: str) -> Model:
        """A model that is held; raises Conflict: it may be loaded again."""
        if name not in self._held:
            raise Conflict(f"model {name!r} is not loaded here", field="model")
        return self._held[name][0]

    def previewer(self, name: str) -> Previewer:
        """What makes its previews."""
        return self._held[name][1]

    def release(self, row: str) -> None:
        """A row needs its LoRAs no longer."""
        for model in self:
            model.loras.release(row)

    def needs_bytes(self, command: LoadModel) -> int:
        """What its weights take, beside what is shared with those that are here; 0 if unknown."""
        here = {part.id for asked in self._asked.values() for part in asked.components}
        return sum({it.id: it.bytes for it in command.components if it.id not in here}.values())

    def lay(self, coming: LoadModel | None = None) -> bool:
        """Have the blocks of what is held, and of what comes; False if that finds none."""
        parts = {content: count for name in self._held for content, count in self._parts(name)}
        if coming is not None:
            parts |= {it.id: it.bytes for it in coming.components}
        return self.blocks.hold(parts, self._sizes.work_bytes([*self]))

    def lies(self) -> MemoryLies | None:
        """How the device's free memory lies, where that matters."""
        if not self.blocks.matter or (seen := self.blocks.seen()) is None:
            return None
        models: list[tuple[str, Parts]] = [(name, dict(self._parts(name))) for name in self._held]
        return MemoryLies(seen.free, seen.largest, self.blocks.settled(models))

    def _parts(self, name: str) -> list[tuple[str, int]]:
        return [(it.id, it.bytes) for it in self._asked[name].components]

    def new_bytes(self, model: Model) -> int:
        """What a model that was read takes beside those that are here."""
        return by_line([("here", self.weights()), ("new", model.tensors())])["new"]

    def is_only_merged(self, command: LoadModel) -> bool:
        """Whether the resident one is used again, since only what is merged is another set."""
        known = self._asked.get(command.name)
        if known is None or known == command:
            return False
        return replace(known, merged=command.merged) == command

    def read(self, command: LoadModel, progress: Progress) -> Model:
        """Read the model's files, in any thread; raises what goes wrong.

        ``staging.found`` has how many bytes came from copies in host memory.
        """
        self.staging.found = 0
        with torch.inference_mode():
            return load_model(command, self._device, progress, self._components)

    def stage(self, name: str) -> str:
        """Keep a copy of a model that is to leave, in any thread; why not, or empty."""
        if name not in self._held:
            return "it isn't here"
        model, previewer = self._held[name]
        parts = {content: self._components.live(content) for content in model.contents}
        whole = {content: part for content, part in parts.items() if part is not None}
        if not parts or len(whole) < len(parts):
            return "its weights aren't as they were read, or nobody knows its parts"
        return self.staging.keep(self._asked[name], whole, previewer)

    def take_in(self, command: LoadModel, read: Model | None) -> Work[ModelLoaded]:
        """Hold what was read, or (None) the resident one with another set merged.

        Finds out what its own size costs, with pauses; ``seconds`` is the caller's to fill in.
        """
        model = read or self.get(command.name)
        if read is None:
            self._asked[command.name] = replace(command, merged=())  # until it is done
        try:
            model.loras.merge(command.merged)
        finally:
            model.build = model.loras.build_of(command.build)
        size = model.default_size
        measured = self._sizes.known(model, size, size)
        if measured is None:
            measured = yield from self._sizes.work(model, size, size)
        previewer = self.staging.previewer(command)
        if previewer is None:
            previewer = yield from Previewer.work(model)
        self.drop(command.name)
        self._held[command.name] = model, previewer
        self._asked[command.name] = command
        model.loras.shelf.room = self._room
        self._room.join(model.loras.shelf)
        return ModelLoaded(
            command.name,
            seconds=0.0,
            bytes=bytes_of(model.tensors()),
            buckets=measured.buckets,
            pass_s=measured.pass_s,
            size_px=size,
            image_s=measured.image_s,
            room_bytes=measured.room_bytes,
            staged=self.staging.found if read else 0,
        )

    def drop(self, name: str) -> None:
        """Free the model's memory, but for what others share; one that isn't held is ignored."""
        if name not in self._held:
            return
        model, _ = self._held.pop(name)
        del self._asked[name]
        self._room.leave(model.loras.shelf)
        self._encodings.forget(model)
        self.left(model)
        self._sizes.has_room_again()
        self.lay()
        del model
        tidy(self._device)


def tidy(device: torch.device) -> None:
    """Give back what nothing refers to any more: models are full of cycles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
