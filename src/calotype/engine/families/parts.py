"""A model's modules: built without memory for weights, then given the weights that were read.

diffusers' and transformers' own ``from_pretrained`` isn't used: it reads on one thread, part after
part, makes up what a file lacks, and changes torch's default dtype for all threads meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch.overrides import TorchFunctionMode

from calotype.core.errors import ModelBroken
from calotype.engine.families.blueprints import Blueprints

_Place = tuple[dict[str, Any], str]  # a module's parameters or buffers, and the name there
_INITS = ("torch.nn.init", "transformers.initialization")
_DRAWS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.zero_, torch.Tensor.fill_)
_BLUEPRINTS = Blueprints()
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
    """The module that a component's folder describes, ready to be run once it has its weights."""
    config = (folder / "config.json").read_bytes()
    return _BLUEPRINTS.get((kind, config), lambda: _built(kind, folder))


def _built(kind: Any, folder: Path) -> Any:
    if issubclass(kind, diffusers.ModelMixin):
        config = kind.load_config(folder, local_files_only=True)
        with WithoutWeights():
            module = kind.from_config(config)
        module.set_attention_backend("native")
    else:
        config = kind.config_class.from_pretrained(folder, local_files_only=True)
        with WithoutWeights():
            module = kind(config)
    return module.eval()


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
    places = _places(module)
    given = {_own_name(key, places): tensor for key, tensor in named.items()}
    _put(places, {key: it for key, it in given.items() if key in places}, name)
    if isinstance(module, transformers.PreTrainedModel):
        module.tie_weights()  # what is one tensor in the model lies in a file once
    _check_whole(places, given, name)


def _places(module: torch.nn.Module) -> dict[str, _Place]:
    """Where a module keeps what a file may have, by the names of its ``state_dict``."""
    found: dict[str, _Place] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for key, parameter in owner._parameters.items():
            if parameter is not None:
                found[prefix + key] = owner._parameters, key
        for key, buffer in owner._buffers.items():
            if buffer is not None and key not in owner._non_persistent_buffers_set:
                found[prefix + key] = owner._buffers, key
    return found


def _put(places: Mapping[str, _Place], tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """What ``load_state_dict(assign=True)`` does, which takes eight times as long."""
    for key, tensor in tensors.items():
        owner, own_key = places[key]
        had = owner[own_key]
        if tensor.shape != had.shape:
            raise ModelBroken(
                f"{name} isn't what its configuration describes: {key} is {[*tensor.shape]} in the"
                f" file, not {[*had.shape]}",
                field=name,
            )
        is_parameter = isinstance(had, torch.nn.Parameter)
        owner[own_key] = torch.nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor


def _check_whole(places: Mapping[str, _Place], given: Collection[str], name: str) -> None:
    """Raise ModelBroken if a tensor was neither given nor is the same as one that was."""
    missing = [key for key in places if key not in given]
    there = {id(owner[own_key]) for key, (owner, own_key) in places.items() if key in given}
    lacking = [key for key in missing if id(places[key][0][places[key][1]]) not in there]
    if lacking:
        raise ModelBroken(f"{len(lacking)} tensors of {name} are missing: {lacking[0]} ...")


def move_tables(module: torch.nn.Module, device: torch.device) -> None:
    """Put what no file has on the device; weights are there."""
    for owner in module.modules():
        for key, buffer in owner._buffers.items():
            if buffer is not None and buffer.device != device:
                owner._buffers[key] = buffer.to(device)


def replace_decoder(vae: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give an autoencoder other weights of its decoder, by its own names; nothing is copied.

    The tensors that it had stay as they are for other models. Raises ModelBroken for a decoder of
    another autoencoder.
    """
    if not tensors:
        return
    if set(tensors) != {name for name in vae.state_dict() if name.startswith("decoder.")}:
        raise ModelBroken("its decoder with a mark is one of another autoencoder", field="decoder")
    _put(_places(vae), tensors, "decoder")


def _own_name(key: str, expected: Mapping[str, Any]) -> str:
    if key not in expected:
        for other in (key.removeprefix(_CLIP), _CLIP + key):
            if other in expected:
                return other
    return key
