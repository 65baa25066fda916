"""Bucket sizes that keep a promise: the same bits whoever shares the pass, and in every bucket.

The promise is "same job and seed, same machine: the same pixels, alone or beside others". A lone
guided row runs in a bucket of 2 and beside others in 4 or 8, so a row's output must be the same
bits at every position of every bucket. Measured on 2 CPU cores, float32, for the embedded model
(5.8 M parameters; latents of 16, 24 and 32 a side, one and two threads):

- Any one bucket keeps the bits at all positions. Across buckets they differed, and hooks on all
  151 modules found one cause: linear layers over few rows (the timestep embeddings, one row a
  forward) go to other matrix kernels for 1, 2..3 and 4 or more rows. Padding those to a fixed 16
  rows (``steady``) made 2, 4 and 8 equal; it costs nothing that shows.
- 1 never equals 2: a batch of one takes another convolution. 16 equals 8 with two threads only.
- A pass of 1, 2, 4, 8 takes 16, 24, 37, 63 ms. Pinning 8 would cost a lone guided row 63 ms a
  step instead of 24; pinning 2 would cost four rows 97 ms instead of 63.

Transformers are the same: without ``steady`` tiny models of all four families kept only 2, with it
2, 4 and 8, as did blocks of SD3 and FLUX 1,536 wide at 256 pixels (modulation is a linear layer
over one row a forward).

So the buckets are 2, 4, 8 and 16, and the engine trusts none of this: it proves each one for each
shape on the machine it runs on, against 2, and leaves out what fails. If even 2 depends on its
neighbours, the answer is 1: every forward alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from functools import partial
from typing import TypeVar

import torch

from calotype.engine.forwards import Forwards

STEADY_ROWS = 16  # small linear layers always see this many rows
Denoise = Callable[[Forwards], torch.Tensor]
T = TypeVar("T")
Work = Generator[None, None, T]  # pauses after each pass, so that others can step meanwhile


def at_once(work: Work[T]) -> T:
    """Do it without a pause."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def steady(module: torch.nn.Module) -> None:
    """Make linear layers over (few rows, width) use the same kernel for any number of rows."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.forward = partial(_padded_linear, layer.forward)


def _padded_linear(
    linear: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor
) -> torch.Tensor:
    count = rows.shape[0]
    if rows.ndim != 2 or count >= STEADY_ROWS:
        return linear(rows)
    padding = rows.new_zeros(STEADY_ROWS - count, rows.shape[1])
    return linear(torch.cat((rows, padding)))[:count]


def prove_buckets(
    denoise: Denoise, sample: Forwards, candidates: tuple[int, ...]
) -> Work[tuple[int, ...]]:
    """Which of these sizes give forward 0 of ``sample`` the same bits everywhere in them.

    ``sample`` holds random forwards, one more than the largest size; ``candidates`` ascend.
    """
    smallest = candidates[0]
    alone = denoise(sample.take(0).padded(smallest))[0]
    yield
    proven = []
    for size in candidates:
        if (yield from _keeps(denoise, sample, size, alone)):
            proven.append(size)
        elif size == smallest:
            return (1,)
    return tuple(proven)


def _keeps(denoise: Denoise, sample: Forwards, size: int, alone: torch.Tensor) -> Work[bool]:
    """Two passes put forward 0 at every position, beside strangers at the others."""
    for parity in (0, 1):
        places = [0 if place % 2 == parity else place + 1 for place in range(size)]
        output = denoise(sample.take(*places))
        yield
        if not all(torch.equal(output[place], alone) for place in range(parity, size, 2)):
            return False
    return True


def random_forwards(count: int, like: Forwards, same: Collection[str]) -> Forwards:
    """Random forwards with the shapes of ``like``; always the same.

    What is ``same`` in all forwards of a size isn't random.
    """
    generator = torch.Generator("cpu").manual_seed(0)

    def noise(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator).to(like.latents.device)

    def shared(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:1].expand(count, *tensor.shape[1:]).contiguous()

    return Forwards(
        latents=noise(count, *like.latents.shape[1:]),
        timesteps=torch.linspace(999.0, 1.0, count).to(like.latents.device),
        text={
            name: shared(tensor) if name in same else noise(count, *tensor.shape[1:])
            for name, tensor in like.text.items()
        },
    )
