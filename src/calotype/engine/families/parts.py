"""A model's modules: built without memory for weights, then given the weights that were read.

diffusers' and transformers' own ``from_pretrained`` isn't used: it reads on one thread, part after
part, makes up what a file lacks, and changes torch's default dtype for all threads meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch.overrides import TorchFunctionMode

from calotype.core.errors import ModelBroken

_INITS = ("torch.nn.init", "transformers.initialization")
_DRAWS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.zero_, torch.Tensor.fill_)
_CLIP = "text_model."  # transformers 5.6 took this level out of CLIPTextModel; files have either


class WithoutWeights(TorchFunctionMode):  # type: ignore[misc]  # torch is not followed
    """Weights, which layers make by ``torch.empty``, get no memory; tables are computed as ever.

    ``torch.device("meta")`` would take the tables' memory, too (positions, rotary angles), and
    what no file has would have to be made again for each kind of layer. First values aren't drawn:
    for a tensor without memory PyTorch does that in Python, half of the time that SDXL's took.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is torch.empty:
            return func(*args, **{**named, "device": "meta"})
        if func in _DRAWS or getattr(func, "__module__", "") in _INITS:
            tensor = args[0] if args else named["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **named)


def without_weights(kind: Any, folder: Path) -> Any:
    """The module that a component's folder describes."""
    if issubclass(kind, diffusers.ModelMixin):
        config = kind.load_config(folder, local_files_only=True)
        with WithoutWeights():
            return kind.from_config(config)
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
    with WithoutWeights():
        return kind(config)


def wanted(kind: Any, dtype: torch.dtype) -> Callable[[str, torch.dtype], torch.dtype | None]:
    """As which dtype a tensor of a file is wanted, by its name and dtype there; None: not at all.

    Whole numbers stay. T5's last projections are float32 among float16: they overflow.
    """
    ignored = [re.compile(it) for it in kind._keys_to_ignore_on_load_unexpected or ()]
    wide = set(kind._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()

    def choose(name: str, stored: torch.dtype) -> torch.dtype | None:
        if any(pattern.search(name) for pattern in ignored):
            return None
        if not stored.is_floating_point:
            return stored
        return dtype if wide.isdisjoint(name.split(".")) else torch.float32

    return choose


def fill(module: Any, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Give a module its weights, as they are: nothing is copied.

    Those it has no place for are left out. Raises ModelBroken for one that is missing or of
    another shape.
    """
    named = dict(tensors)
    if isinstance(module, diffusers.ModelMixin):
        module._fix_state_dict_keys_on_load(named)  # attention layers by their old names
    expected = module.state_dict()
    named = {_own_name(key, expected): tensor for key, tensor in named.items()}
    try:
        missing = module.load_state_dict(named, strict=False, assign=True).missing_keys
    except RuntimeError as error:
        said = str(error).replace("\n\t", " ")[:500]
        raise ModelBroken(f"{name} isn't what its configuration describes: {said}") from error
    if isinstance(module, transformers.PreTrainedModel):
        module.tie_weights()  # what is one tensor in the model lies in a file once
    state = module.state_dict(keep_vars=True)
    given = {id(tensor) for key, tensor in state.items() if key not in missing}
    lacking = [key for key in missing if id(state[key]) not in given]
    if lacking:
        raise ModelBroken(f"{len(lacking)} tensors of {name} are missing: {lacking[0]} ...")
    module.eval().requires_grad_(False)


def replace_decoder(vae: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give an autoencoder other weights of its decoder, by its own names; nothing is copied.

    The tensors that it had stay as they are for other models. Raises ModelBroken for a decoder of
    another autoencoder.
    """
    if not tensors:
        return
    if set(tensors) != {name for name in vae.state_dict() if name.startswith("decoder.")}:
        raise ModelBroken("its decoder with a mark is one of another autoencoder", field="decoder")
    try:
        vae.load_state_dict(dict(tensors), strict=False, assign=True)
    except RuntimeError as error:
        said = f"its decoder with a mark doesn't fit: {error}"[:500]
        raise ModelBroken(said, field="decoder") from error
    vae.requires_grad_(False)


def _own_name(key: str, expected: Mapping[str, Any]) -> str:
    if key not in expected:
        for other in (key.removeprefix(_CLIP), _CLIP + key):
            if other in expected:
                return other
    return key
