"""The GPU, as an engine takes it, and left as it was found."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from calotype.engine.device import prepare_device


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    device = prepare_device()
    assert device.type == "cuda"
    torch.set_num_threads(4)
    return device


@pytest.fixture(autouse=True)
def clean(gpu: torch.device) -> Iterator[None]:
    """Nothing is left of what was before, and all of the memory may be used."""
    for _ in range(2):
        gc.collect()
        torch.cuda.synchronize(gpu)
        torch.cuda.empty_cache()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, gpu)
