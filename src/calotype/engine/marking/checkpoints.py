"""A training's state as one safetensors file: networks, their optimiser, and how far it is.

Written whole or not at all, so that a run that is killed goes on from the last one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from calotype.core.errors import OperatorError

_OPTIMISER = "optimiser"


def save(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    said: Mapping[str, Any],
) -> None:
    """Write ``modules`` by name, the optimiser, and what is said of it (JSON-ready)."""
    tensors = {
        f"{name}/{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    state = optimiser.state_dict()
    for number, values in state["state"].items():
        tensors |= {f"{_OPTIMISER}/{number}/{key}": it for key, it in values.items()}
    tensors = {name: it.detach().cpu().contiguous() for name, it in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    save_file(tensors, beside, {"about": json.dumps(dict(said))})
    beside.replace(path)


def about(path: Path) -> dict[str, Any]:
    """What was said of a checkpoint; empty where there is none. Raises OperatorError."""
    if not path.exists():
        return {}
    with _opened(path) as file:
        found: dict[str, Any] = json.loads((file.metadata() or {})["about"])
        return found


def load(
    path: Path, modules: Mapping[str, torch.nn.Module], optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Give them what a checkpoint has; what was said of it.

    Raises OperatorError if it is one of another training, or damaged.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, name))
        state = optimiser.state_dict()
        for key, tensor in _below(tensors, _OPTIMISER).items():
            number, _, kind = key.partition("/")
            state["state"].setdefault(int(number), {})[kind] = tensor
        optimiser.load_state_dict(state)
    for weight, values in optimiser.state.items():  # fused steps take both as they lie in memory
        for name, it in values.items():
            if it.shape == weight.shape:
                values[name] = torch.empty_like(weight, requires_grad=False).copy_(it)
    return about(path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise OperatorError(
            f"{path} isn't a checkpoint of this training ({error}): choose another folder, or"
            " the bits and the model that it was begun with",
            field="folder",
        ) from error


def _below(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    start = f"{name}/"
    return {key.removeprefix(start): it for key, it in tensors.items() if key.startswith(start)}
