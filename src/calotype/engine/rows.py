"""One picture in the making: its latents, its sampler's history, its own random generator.

A row brings its forwards to a pass and absorbs its part of the output; nothing of it is shared, so
rows at different steps, with different samplers and guidance can share a pass, and one that isn't
chosen just waits. It knows nothing of who shares its pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from calotype.core.errors import InternalError, InvalidInput
from calotype.core.messages import RowControl, RowParked, RunRow
from calotype.engine.buckets import Work
from calotype.engine.checks.running import Seen
from calotype.engine.colours import coarse, recoloured
from calotype.engine.controls import Control
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Encoding, Model
from calotype.engine.forwards import Adapters, Forwards, Steering
from calotype.engine.lora.bank import lora_key
from calotype.engine.parked import handed_back, take_up
from calotype.engine.pictures import edges, signal
from calotype.engine.samplers import RowSampler
from calotype.engine.sources import Repaint, begin


class NotFinite(InternalError):
    """The picture's numbers ran away (NaN or infinite): the same row will do it again."""

    kind = "not-finite"


@dataclass
class Row:
    """A row between its first and its last step. Tensors live on the model's device, float32."""

    command: RunRow
    model: Model
    key: str  # rows of one key can share a pass
    sampler: RowSampler
    generator: torch.Generator  # on the CPU, so a seed means the same on every device
    latents: torch.Tensor  # (1, channels, height, width)
    conditions: tuple[Encoding, ...]  # one a forward: (prompt,) or (negative, prompt)
    conditioning: dict[str, torch.Tensor]  # beside the text, the same in each forward: (1, ...)
    repaint: Repaint | None = None  # what of its source must stay
    beside: torch.Tensor | None = None  # what an inpainting denoiser sees: (1, c, height, width)
    steered: tuple[tuple[RowControl, Steering], ...] = ()
    colours: torch.Tensor | None = None  # of its source, to be kept: (3, h, w), on the CPU
    steps_done: int = 0
    previewed: int | None = None  # the step of its last preview
    device_s: float = 0.0
    read: Seen = field(default_factory=Seen)  # what was said of its prompt before the first step

    @property
    def is_done(self) -> bool:
        """True when no step is left."""
        return self.steps_done >= self.steps

    @property
    def steps(self) -> int:
        """Steps from the first to the last; a sampler that runs the model twice counts both."""
        return self.sampler.passes

    @property
    def tokens_cut(self) -> int:
        """Tokens of prompt and negative prompt that the model has no room for."""
        return sum(text.tokens_cut for text in self.conditions)

    def forwards(self) -> Forwards:
        """What the next step needs from the model: one forward, or two with guidance."""
        step, count = self.steps_done, len(self.conditions)
        scaled = self.sampler.model_input(self.latents, step)
        if self.beside is not None:
            scaled = torch.cat((scaled, self.beside), dim=1)
        timestep = self.sampler.timestep(step).to(scaled.device, torch.float32)
        text = {
            name: torch.cat([condition.tensors[name] for condition in self.conditions])
            for name in self.conditions[0].tensors
        }
        beside = {
            name: it.repeat(count, *(1,) * (it.ndim - 1)) for name, it in self.conditioning.items()
        }
        return Forwards(
            latents=scaled.repeat(count, 1, 1, 1),
            timesteps=timestep.repeat(count),
            text={**text, **beside},
        ).with_adapters(Adapters(self._loras, self._steering(step)))

    @property
    def _loras(self) -> tuple[tuple[str, float], ...]:
        return tuple((lora_key(lora), lora.weight) for lora in self.command.loras)

    def _steering(self, step: int) -> tuple[Steering, ...]:
        """The ControlNets at work in a step: those between whose start and end it lies wholly."""
        begin, end = step / self.steps, (step + 1) / self.steps
        return tuple(
            steering
            for wanted, steering in self.steered
            if steering.weight and begin >= wanted.start and end <= wanted.end
        )

    def unproven_control(self) -> tuple[str, Work[object]] | None:
        """A ControlNet of which it isn't known which batches keep its bits, and how to find out."""
        for wanted, steering in self.steered:
            if not steering.control.is_proven(forwards := self.forwards()):
                name = f"{wanted.name}@{wanted.build}"
                return name, steering.control.prove(forwards, steering.picture)
        return None

    def absorb(self, output: torch.Tensor) -> torch.Tensor:
        """Take the step; return the clean latents that the model now expects, (1, c, h, w).

        ``output`` is (forwards, channels, height, width), in the order of ``forwards()``.
        Classifier-free guidance (Ho 2022) combines two. Raises NotFinite.
        """
        prediction = output[-1:]
        if len(self.conditions) == 2:
            prediction = output[:1] + self.command.guidance * (output[1:] - output[:1])
        self.latents, expected = self.sampler.absorb(
            prediction, self.steps_done, self.latents, self.generator
        )
        self.steps_done += 1
        if self.repaint is not None:
            expected = self._repainted(self.repaint, expected)
        if not torch.isfinite(self.latents).all():
            raise NotFinite(f"the latents aren't finite after step {self.steps_done}")
        return expected

    def _repainted(self, repaint: Repaint, expected: torch.Tensor) -> torch.Tensor:
        """Put the source back where it must stay; the same of the clean latents expected."""
        source = repaint.source
        if not self.is_done:
            source = self.sampler.noised(source, repaint.noise, self.steps_done)
        self.latents = repaint.kept(self.latents, source)
        return repaint.kept(expected, repaint.source)

    def picture(self) -> torch.Tensor:
        """What has become of it: (3, height, width), float32, about -1..1, on the CPU."""
        picture = self.model.decode(self.latents)
        return picture if self.colours is None else recoloured(picture, self.colours)


def start_row(
    command: RunRow,
    model: Model,
    encodings: Encodings,
    pictures: Sequence[torch.Tensor] = (),
    controls: Sequence[Control] = (),
) -> Row:
    """Encode the text and draw the first noise, as diffusers' pipelines do.

    ``pictures`` are those that came with the row, uint8 (height, width, channels), and what another
    engine had done of it; ``controls`` its ControlNets, in the command's order.

    Raises InvalidInput for a size, a sampler or a strength that can't be; InternalError for what
    was done of another row.
    """
    model.latent_shape(command.width, command.height)
    if command.sampler not in model.samplers:
        raise InvalidInput(
            f"{model.name} can't be sampled with {command.sampler!r}",
            field="sampler",
            limit=[*model.samplers],
        )
    sampler = _sampler(command, model)
    generator = torch.Generator("cpu").manual_seed(command.seed)
    steered = _steered(command, pictures, controls, generator)
    beginning = begin(command, model, sampler, generator, pictures)
    row = Row(
        command=command,
        model=model,
        key=row_key(model, command.width, command.height),
        sampler=sampler,
        generator=generator,
        latents=beginning.latents,
        repaint=beginning.repaint,
        beside=beginning.beside,
        steered=steered,
        colours=_colours(command, pictures),
        conditions=encodings.conditions(
            model,
            command.prompt,
            command.negative_prompt,
            guided=model.is_guided(command.guidance),
        ),
        conditioning=model.conditioning(command.width, command.height, command.guidance),
    )
    if command.parked_bytes:
        take_up(row, pictures[-1])
    return row


def park(row: Row) -> tuple[RowParked, bytes]:
    """Hand a row back between two steps, for another engine to go on with."""
    return handed_back(row, _sampler(row.command, row.model))


def _sampler(command: RunRow, model: Model) -> RowSampler:
    return RowSampler(
        command.sampler,
        model.scheduler_config,
        lambda one: model.set_steps(one, command.steps, command.width, command.height),
        1.0 if command.source is None else command.strength,
    )


def _steered(
    command: RunRow,
    pictures: Sequence[torch.Tensor],
    controls: Sequence[Control],
    generator: torch.Generator,
) -> tuple[tuple[RowControl, Steering], ...]:
    """Show each ControlNet its picture, or the picture's edges."""
    steered = []
    for wanted, control in zip(command.controls, controls, strict=True):
        picture = pictures[wanted.picture]
        hint = control.hint(edges(picture) if wanted.canny else picture, generator)
        steered.append((wanted, Steering(control, hint, wanted.weight)))
    return tuple(steered)


def _colours(command: RunRow, pictures: Sequence[torch.Tensor]) -> torch.Tensor | None:
    if command.source is None or not command.keeps_colours:
        return None
    return coarse(signal(pictures[command.source])[0])


def row_key(model: Model, width: int, height: int) -> str:
    """Names what must be equal to share a pass: the weights and the shapes."""
    return f"{model.name}@{model.build}:{width}x{height}"
