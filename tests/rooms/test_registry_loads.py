"""What the registry tells from headers, held against the model in the engine's memory.

Tiny random models of the real classes, as folders and as checkpoints in one file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from calotype.core.nouns import AdapterKind, ModelInfo
from calotype.engine.components import Components
from calotype.engine.families.loading import load_model
from calotype.engine.lora.layers import layers_of
from calotype.engine.lora.reading import read_lora
from calotype.engine.tensors import bytes_of, tensors_of
from calotype.pool.catalogue import Catalogue
from calotype.pool.intake import Wish, take_in
from calotype.pool.models import load_command
from tests.rooms.engine_checkpoint import as_single_file
from tests.rooms.engine_models import CPU, make_model

FAMILIES = ("sd15", "sdxl", "sd3", "flux")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with each family's model registered, as a folder and as one file."""
    base = tmp_path_factory.mktemp("registry")
    catalogue = Catalogue(base / "models", base, is_quick=True)
    catalogue.scan()
    for family in FAMILIES:
        folder = make_model(family, base / "made" / family)
        take_in(catalogue.versions, folder, Wish(), taken={})
        single = as_single_file(folder, base / "made" / f"{family}-single") / "model.safetensors"
        wish = Wish(name=f"{family}-single", config=folder)
        take_in(catalogue.versions, single, wish, taken={})
    return base


@pytest.fixture(scope="module")
def catalogue(home: Path) -> Catalogue:
    found = Catalogue(home / "models", home)
    found.scan()
    return found


def loaded(info: ModelInfo, components: Components | None = None) -> Any:
    return load_model(load_command(info), CPU, None, components)


def weights_bytes(part: torch.nn.Module) -> int:
    """Of all numbers that a file of it holds, each once."""
    return bytes_of(it for it in part.state_dict().values() if it.is_floating_point())


def parts_of(model: Any) -> list[torch.nn.Module]:
    return [model.denoiser, model.vae, *model.encoders]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_component_takes_the_bytes_that_its_header_says(
    catalogue: Catalogue, family: str
) -> None:
    info, single = (catalogue.models.get(name) for name in (family, f"{family}-single"))
    told = [it.bytes for it in info.components]
    assert told == [weights_bytes(part) for part in parts_of(loaded(info))]
    assert single.family == family
    assert [it.kind for it in single.components] == [it.kind for it in info.components]
    for theirs, ours in zip((it.bytes for it in single.components), told, strict=True):
        assert abs(theirs - ours) < 0.01 * ours, "a maker's file has a table more, or less"


@pytest.mark.parametrize("family", ["sd15", "sd3"])
def test_a_checkpoint_that_was_registered_is_loaded(catalogue: Catalogue, family: str) -> None:
    model, plain = (loaded(catalogue.models.get(it)) for it in (f"{family}-single", family))
    assert model.parameter_bytes == plain.parameter_bytes


def test_models_that_share_ids_share_memory(catalogue: Catalogue, home: Path) -> None:
    folder = home / "made" / "sdxl"
    weights = next((folder / "unet").glob("*.safetensors"))
    changed = bytearray(weights.read_bytes())
    changed[-4:] = bytes(4)
    weights.write_bytes(changed)
    added = take_in(catalogue.versions, folder, Wish(name="tuned"), taken={}).record
    assert catalogue.refresh()
    infos = [catalogue.models.get(name) for name in ("sdxl", f"tuned@{added.version}")]
    shared = set(infos[0].components) & set(infos[1].components)
    assert {it.kind for it in shared} == {"vae", "text_encoder"}
    components = Components()
    models = [loaded(info, components) for info in infos]
    alone = sum(bytes_of(tensors_of(part)) for part in parts_of(models[0]))
    both = bytes_of(it for model in models for part in parts_of(model) for it in tensors_of(part))
    denoiser = bytes_of(tensors_of(models[1].denoiser))
    assert alone + denoiser <= both < alone + 1.01 * denoiser


def test_of_a_checkpoint_only_what_no_model_has_is_read(catalogue: Catalogue, home: Path) -> None:
    folder, single = home / "made" / "tuned", home / "made" / "tuned-single"
    make_model("sd3", folder)
    weights = next((folder / "transformer").glob("*.safetensors"))
    save_file({name: it * 0.5 for name, it in load_file(weights).items()}, weights)
    file = as_single_file(folder, single) / "model.safetensors"
    wish = Wish(name="tuned-single", config=folder)
    added = take_in(catalogue.versions, file, wish, taken={}).record
    assert catalogue.refresh()
    infos = [catalogue.models.get(it) for it in ("sd3-single", f"tuned-single@{added.version}")]
    components, totals, reads = Components(), list[int](), list[int]()

    def progress(done: int, total: int) -> None:
        reads.append(total)

    for info in infos:
        reads.clear()
        model = load_model(load_command(info), CPU, progress, components)
        totals.append(max(reads))
    denoiser = infos[1].components[0].bytes
    assert totals[0] > 1.2 * denoiser
    assert totals[1] == pytest.approx(denoiser, rel=0.01)
    alone = load_model(load_command(infos[1]), CPU)
    for ours, theirs in zip(parts_of(model), parts_of(alone), strict=True):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_that_the_engine_takes_is_for_that_base_by_its_shapes(
    catalogue: Catalogue, home: Path, family: str
) -> None:
    model = loaded(catalogue.models.get(family))
    layers = layers_of(model.denoiser)
    accepted = [it for it in layers.accepted.values() if len(it.shape) == 2][::3]
    tensors = {}
    for layer in accepted:
        tensors[f"transformer.{layer.name}.lora_A.weight"] = torch.zeros(2, layer.shape[1])
        tensors[f"transformer.{layer.name}.lora_B.weight"] = torch.zeros(layer.shape[0], 2)
    file = home / "loras" / f"for-{family}.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(tensors, file)
    read_lora(file, "key", layers, torch.float32)
    catalogue.scan()
    bases = catalogue.adapters.get(AdapterKind.LORA, f"for-{family}", field="").bases
    assert {family, f"{family}-single"} <= set(bases)
    unets = {"sd15", "sdxl"}  # whose tiny ones have the same layers
    others = {*FAMILIES} - (unets if family in unets else {family})
    assert not set(bases) & others
