"""What is loaded is what ``from_pretrained`` would have loaded, bit for bit; and what is shared."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from calotype.core.messages import LoadModel
from calotype.core.nouns import Component
from calotype.engine.components import Components
from calotype.engine.families import parts as family_parts
from calotype.engine.families.blueprints import Blueprints
from calotype.engine.families.loading import load_model
from calotype.engine.families.parts import without_weights
from calotype.engine.tensors import bytes_of, storages, tensors_of
from calotype.pool.files import FileHashes
from calotype.pool.folders import read_folder
from tests.rooms.engine_loras import lora, peft_name, random_tensors, save
from tests.rooms.engine_models import CPU, make_model, plain_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")
PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    base = tmp_path_factory.mktemp("models")

    def folder(family: str) -> Path:
        if not (base / family).exists():
            make_model(family, base / family)
        return base / family

    return folder


def load(folder: Path, **options: Any) -> Any:
    return load_model(LoadModel(folder.name, str(folder), "build", **options), CPU)


def parts_of(model: Any) -> dict[str, Any]:
    """Its modules by their names in a folder."""
    encoders = [name for name in PARTS if name.startswith("text_encoder")]
    denoiser = "unet" if "UNet" in type(model.denoiser).__name__ else "transformer"
    found = {denoiser: model.denoiser, "vae": model.vae}
    return found | dict(zip(encoders, model.encoders, strict=False))


def everything_in(module: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers, those that no file has among them."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def theirs(folder: Path, name: str, dtype: torch.dtype, **options: Any) -> Any:
    library, kind = json.loads((folder / "model_index.json").read_text())[name]
    known = {"diffusers": diffusers, "transformers": transformers}[library]
    return getattr(known, kind).from_pretrained(folder / name, torch_dtype=dtype, **options)


def assert_same(ours: Any, others: Any) -> None:
    found, expected = everything_in(ours), everything_in(others)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    assert [it for it in ours.modules() if it.training] == []
    assert ours.dtype == others.dtype


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "sd3-no-t5", "flux", "flux-schnell"])
def test_a_folder_is_what_from_pretrained_makes_of_it(
    folder_of: Callable[[str], Path], family: str, dtype: str
) -> None:
    wide = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    model = load(folder_of(family), dtype=dtype)
    parts = parts_of(model)
    assert len(parts) == 2 + len(model.encoders)
    for name, part in parts.items():
        own = torch.float32 if name == "vae" else wide
        assert_same(part, theirs(folder_of(family), name, own))


@pytest.mark.parametrize("parts", ["1GB", "60KB"], ids=["one file", "several"])
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_half_precision_in_one_file_or_several_is_too(
    folder_of: Callable[[str], Path], tmp_path: Path, family: str, parts: str
) -> None:
    plain = plain_pipeline(folder_of(family), torch_dtype=torch.float16)
    plain.save_pretrained(tmp_path / "half", variant="fp16", max_shard_size=parts)
    for name, part in parts_of(load(tmp_path / "half", dtype="fp16")).items():
        own = torch.float32 if name == "vae" else torch.float16
        assert_same(part, theirs(tmp_path / "half", name, own, variant="fp16"))


def test_a_clip_of_older_files_is_read_by_its_older_names(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """As all that were published before transformers 5.6, which took a level out."""
    old = tmp_path / "old"
    shutil.copytree(folder_of("sdxl"), old)
    file = old / "text_encoder" / "model.safetensors"
    bare = {key.removeprefix("text_model."): it for key, it in load_file(file).items()}
    ids = {"embeddings.position_ids": torch.arange(77)[None]}  # such files have them, too
    save_file({f"text_model.{key}": it for key, it in (bare | ids).items()}, file)
    ours, others = load(old), load(folder_of("sdxl"))
    for one, other in zip(ours.encoders, others.encoders, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_a_module_is_built_without_memory_for_weights_but_with_its_tables(
    folder_of: Callable[[str], Path], family: str
) -> None:
    index = json.loads((folder_of(family) / "model_index.json").read_text())
    for name in [it for it in PARTS if it in index]:
        known = {"diffusers": diffusers, "transformers": transformers}[index[name][0]]
        module = without_weights(getattr(known, index[name][1]), folder_of(family) / name)
        weights = [it for it in module.parameters() if it.ndim > 1]
        assert weights
        assert all(it.is_meta for it in weights)
        assert not any(it.is_meta for it in module.buffers())


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_a_configuration_is_built_once_and_its_copies_are_the_same_and_have_nothing_in_common(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(family_parts, "_BLUEPRINTS", Blueprints())
    built = load(folder_of(family))
    monkeypatch.setattr(family_parts, "_built", None)  # nothing is, from now on
    copies = [load(folder_of(family)) for _ in range(2)]
    for copy in copies:
        for one, other in zip(parts_of(built).values(), parts_of(copy).values(), strict=True):
            assert_same(one, other)
            assert repr(one) == repr(other)
            assert str(one.config) == str(other.config)
    modules = [it for model in (built, *copies) for it in modules_of(model)]
    inner = [id(it) for module in modules for it in module.modules()]
    assert len(inner) == len({*inner})
    assert bytes_in(built, *copies) == 3 * bytes_in(built)


def test_the_oldest_configuration_is_forgotten_and_what_cannot_be_copied_is_built() -> None:
    blueprints, built = Blueprints(kept_max=2), []

    def build(width: int, what: Any = None) -> Any:
        built.append(width)
        module = torch.nn.Linear(width, width, device="meta")
        module.what = what
        return module

    for width in (1, 2, 1, 3, 1, 2):
        module = blueprints.get(width, partial(build, width))
        assert module.weight.shape == (width, width)
        assert module.weight.is_meta
    assert built == [1, 2, 3, 2]
    for _ in range(2):
        blueprints.get(4, partial(build, 4, what=lambda: None))
    assert built == [1, 2, 3, 2, 4, 4]


# What models have in common.


@pytest.fixture
def twins(folder_of: Callable[[str], Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two models that differ in one tensor of the denoiser."""
    other = tmp_path / "other"
    shutil.copytree(folder_of("sdxl"), other)
    file = other / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"] += 1.0
    save_file(tensors, file)
    return folder_of("sdxl"), other


def contents(*ids: str) -> tuple[Component, ...]:
    kinds = ("denoiser", "vae", "text_encoder", "text_encoder")
    return tuple(Component(id_, kind, 1) for id_, kind in zip(ids, kinds, strict=True))


def command(folder: Path, *ids: str, **options: Any) -> LoadModel:
    return LoadModel(folder.name, str(folder), "build", components=contents(*ids), **options)


def modules_of(model: Any) -> list[Any]:
    return [model.denoiser, model.vae, *model.encoders]


def bytes_in(*models: Any) -> int:
    return bytes_of(it for model in models for part in modules_of(model) for it in tensors_of(part))


def shared(one: Any, other: Any) -> list[bool]:
    """For each part, whether all of its weights lie in the same memory."""
    found = []
    for mine, its in zip(modules_of(one), modules_of(other), strict=True):
        weights = (storages(it.parameters()).keys() for it in (mine, its))
        found.append(len(set.union(*map(set, weights))) == len(storages(mine.parameters())))
    return found


def test_models_share_the_parts_they_have_in_common_and_nothing_else(
    twins: tuple[Path, Path],
) -> None:
    components, told = Components(), list[int]()
    one = load_model(command(twins[0], "u1", "v", "t", "t2"), CPU, None, components)
    other = load_model(
        command(twins[1], "u2", "v", "t", "t2"),
        CPU,
        lambda _, total: told.append(total),
        components,
    )
    assert shared(one, other) == [False, True, True, True]
    alone = load(twins[1])
    for mine, its in zip(modules_of(other), modules_of(alone), strict=True):
        assert_same(mine, its)
        assert mine is not its
    weights = bytes_of(alone.denoiser.parameters())
    assert bytes_in(one, other) < bytes_in(one) + 1.1 * weights
    file = twins[1] / "unet" / "diffusion_pytorch_model.safetensors"
    assert told[-1] < file.stat().st_size, "what is there isn't read again"


def test_models_share_a_tokenizer_if_its_files_are_the_same(twins: tuple[Path, Path]) -> None:
    one, other = (load(folder) for folder in twins)
    assert [id(it) for it in one.tokenizers] == [id(it) for it in other.tokenizers]
    file = twins[1] / "tokenizer_2" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 7}))
    changed = load(twins[1])
    assert changed.tokenizers[0] is one.tokenizers[0]
    assert changed.tokenizers[1].model_max_length == 7
    assert one.tokenizers[1].model_max_length != 7


def test_what_the_registry_tells_of_a_model_is_enough_to_share_its_parts(
    twins: tuple[Path, Path],
) -> None:
    components, hashes, models = Components(), FileHashes(), list[Any]()
    for folder in twins:
        info = read_folder(folder, hashes)
        told = LoadModel(info.name, info.path, info.build, components=info.components)
        models.append(load_model(told, CPU, None, components))
    assert shared(*models) == [False, True, True, True]


@pytest.mark.parametrize("quantise", ["", "int8"])
def test_a_whole_model_is_shared_by_another_of_its_name(
    folder_of: Callable[[str], Path], quantise: str
) -> None:
    components = Components()
    ids = command(folder_of("sdxl"), "u", "v", "t", "t2", quantise=quantise)
    one = load_model(ids, CPU, None, components)
    other = load_model(ids, CPU, None, components)
    alone = load(folder_of("sdxl"), quantise=quantise)
    assert bytes_in(one, other) < 1.01 * bytes_in(one)
    assert bytes_in(other) == bytes_in(alone)
    for mine, its in zip(modules_of(other), modules_of(alone), strict=True):
        ours, expected = ([*tensors_of(it)] for it in (mine, its))  # of a quantised one, its parts
        assert all(torch.equal(*both) for both in zip(ours, expected, strict=True))


def test_what_the_last_model_needed_goes_with_it(twins: tuple[Path, Path]) -> None:
    components = Components()
    one = load_model(command(twins[0], "u1", "v", "t", "t2"), CPU, None, components)
    other = load_model(command(twins[1], "u2", "v", "t", "t2"), CPU, None, components)
    of_vae = weakref.ref(next(other.vae.parameters()).untyped_storage())
    of_one = weakref.ref(next(one.denoiser.parameters()).untyped_storage())
    expected = {name: it.clone() for name, it in everything_in(other.vae).items()}
    del one
    gc.collect()
    assert of_one() is None
    assert all(torch.equal(it, expected[name]) for name, it in everything_in(other.vae).items())
    third = load_model(command(twins[0], "u1", "v", "t", "t2"), CPU, None, components)
    assert shared(third, other) == [False, True, True, True]
    del other, third
    gc.collect()
    assert of_vae() is None
    assert all(components.find(content) is None for content in ("u1", "u2", "v", "t", "t2"))


def test_a_merge_in_one_model_does_not_show_in_another(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    components = Components()
    ids = command(folder_of("sdxl"), "u", "v", "t", "t2")
    one = load_model(ids, CPU, None, components)
    other = load_model(ids, CPU, None, components)
    expected = {name: it.clone() for name, it in everything_in(one.denoiser).items()}
    file = save(random_tensors(one.denoiser, peft_name()), tmp_path / "lora.safetensors")
    with torch.inference_mode():
        other.loras.merge([lora(file)])
    merged = everything_in(other.denoiser)
    assert not all(torch.equal(it, merged[name]) for name, it in expected.items())
    assert all(torch.equal(it, expected[name]) for name, it in everything_in(one.denoiser).items())
    third = load_model(ids, CPU, None, components)
    assert_same(third.denoiser, one.denoiser)
    assert shared(third, one) == [True, True, True, True]
    with torch.inference_mode():
        other.loras.merge([])
    assert shared(other, one) == [True, True, True, True], "and all is as before"


def test_a_lora_beside_one_model_is_not_beside_another(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    components = Components()
    ids = command(folder_of("sdxl"), "u", "v", "t", "t2")
    one, other = (load_model(ids, CPU, None, components) for _ in range(2))
    file = save(random_tensors(one.denoiser, peft_name()), tmp_path / "lora.safetensors")
    with torch.inference_mode():
        one.loras.install(one.loras.read(lora(file)))
    assert any(type(it).__name__.startswith("Wrapped") for it in one.denoiser.modules())
    assert not any(type(it).__name__.startswith("Wrapped") for it in other.denoiser.modules())
