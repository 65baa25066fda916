"""One picture in the making: its latents, its sampler's history, its own random generator.

A row brings its forwards to a pass and absorbs its part of the output; nothing of it is shared, so
rows at different steps, with different samplers and guidance can share a pass, and one that isn't
chosen just waits. It knows nothing of who shares its pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calotype.core.errors import InternalError
from calotype.core.messages import RunRow
from calotype.engine.encodings import Encodings
from calotype.engine.forwards import Forwards
from calotype.engine.models import Encoding, Model
from calotype.engine.samplers import RowSampler


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
    time_ids: torch.Tensor  # (1, 6)
    steps_done: int = 0
    device_s: float = 0.0

    @property
    def is_done(self) -> bool:
        """True when no step is left."""
        return self.steps_done >= self.command.steps

    @property
    def tokens_cut(self) -> int:
        """Tokens of prompt and negative prompt that the model has no room for."""
        return sum(text.tokens_cut for text in self.conditions)

    def forwards(self) -> Forwards:
        """What the next step needs from the model: one forward, or two with guidance."""
        step, count = self.steps_done, len(self.conditions)
        scaled = self.sampler.model_input(self.latents, step)
        timestep = self.sampler.timestep(step).to(scaled.device, torch.float32)
        return Forwards(
            latents=scaled.repeat(count, 1, 1, 1),
            timesteps=timestep.repeat(count),
            embeds=torch.cat([text.embeds for text in self.conditions]),
            pooled=torch.cat([text.pooled for text in self.conditions]),
            time_ids=self.time_ids.repeat(count, 1),
        )

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
        if not torch.isfinite(self.latents).all():
            raise NotFinite(f"the latents aren't finite after step {self.steps_done}")
        return expected


def start_row(command: RunRow, model: Model, encodings: Encodings) -> Row:
    """Encode the text and draw the first noise, as StableDiffusionXLPipeline does.

    Raises InvalidInput for a size or a sampler that can't be.
    """
    shape = model.latent_shape(command.width, command.height)
    sampler = RowSampler(command.sampler, model.scheduler_config, command.steps)
    generator = torch.Generator("cpu").manual_seed(command.seed)
    noise = torch.randn(shape, generator=generator).to(model.device)
    return Row(
        command=command,
        model=model,
        key=row_key(model, command.width, command.height),
        sampler=sampler,
        generator=generator,
        latents=noise * sampler.noise_scale,
        conditions=encodings.conditions(
            model, command.prompt, command.negative_prompt, guided=command.guidance > 1.0
        ),
        time_ids=model.time_ids(command.width, command.height),
    )


def row_key(model: Model, width: int, height: int) -> str:
    """Names what must be equal to share a pass: the weights and the shapes."""
    return f"{model.name}@{model.build}:{width}x{height}"
