"""torch.compile for the parts of a model that ask for it.

Shapes are static: the engine's buckets keep their number small, and proving a size runs each bucket
once, so every kernel is made before a picture waits for it. PyTorch gives up on a function after a
few shapes and runs it as it is, which would change the bits: the limit is raised to all there are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.families import COMPILED
from calotype.engine.families.base import Model

BACKEND = "inductor"  # needs a C++ compiler on a CPU; without one, loading fails and says so
_SHAPES_MAX = 8 * limits.SIZES_PROVEN_MAX  # buckets of a size, with and without residuals


def compile_parts(model: Model, parts: Collection[str]) -> None:
    """Have these parts compiled at their first run; what fails then fails with its reason.

    Raises ModelBroken on the name of another part.
    """
    if unknown := set(parts) - set(COMPILED):
        raise ModelBroken(
            f"{model.name}: can't compile {', '.join(sorted(unknown))}",
            field="compile",
            limit=[*COMPILED],
        )
    if not parts:
        return
    dynamo: Any = torch._dynamo
    dynamo.config.recompile_limit = _SHAPES_MAX
    dynamo.config.accumulated_recompile_limit = _SHAPES_MAX
    if "denoiser" in parts:
        _compile(model.denoiser)
        model.loras.is_merged_only = True
    if "vae" in parts:
        _compile(model.vae.encoder)
        _compile(model.vae.decoder)


def _compile(module: Any) -> None:
    """Replace its forward; while operations are watched one by one, the plain one runs.

    PyTorch compiles nothing under such a watch (``memory.LiveBytes``), and never again what it met
    there first.
    """
    plain = module.forward
    fast = torch.compile(plain, dynamic=False, backend=BACKEND)

    def forward(*args: Any, **kwargs: Any) -> Any:
        is_watched = _get_current_dispatch_mode() is not None
        return (plain if is_watched else fast)(*args, **kwargs)

    module.forward = forward
