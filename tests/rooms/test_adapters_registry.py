"""LoRAs and ControlNets: found, told apart, and the broken ones named with the reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core.errors import InvalidInput
from calotype.core.nouns import AdapterKind, Sampler
from calotype.pool.adapters import AdapterRegistry
from calotype.pool.catalogue import Catalogue
from tests.adapters import make_control, make_lora, weights
from tests.flow.test_admit import MODEL
from tests.tensors import lora, make_base, make_controlnet, tensors, unet

LORA, CONTROL = AdapterKind.LORA, AdapterKind.CONTROL


def scan(*homes: Path) -> AdapterRegistry:
    registry = AdapterRegistry(homes)
    registry.scan()
    return registry


def test_a_folder_that_is_not_there_holds_none(tmp_path: Path) -> None:
    registry = scan(tmp_path / "none")
    assert not registry.list(LORA)
    assert not registry.broken()


def test_a_lora_is_known_by_its_card(tmp_path: Path) -> None:
    said = {"title": "In ink", "licence": "Apache-2.0", "bases": ["tiny"], "steps": 4}
    make_lora(tmp_path, "ink", **said, guidance=1, sampler="lcm")
    info = scan(tmp_path).get(LORA, "ink", field="loras[0].name")
    assert (info.title, info.licence, info.bases) == ("In ink", "Apache-2.0", ("tiny",))
    assert (info.steps, info.guidance, info.sampler) == (4, 1.0, Sampler.LCM)
    assert info.path == str(tmp_path / "loras" / "ink" / "lora.safetensors")
    assert info.bytes == 8, "of its tensors"


def test_a_bare_file_is_a_lora_that_says_nothing_and_may_be_tried_on_any_model(
    tmp_path: Path,
) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "found.safetensors").write_bytes(weights("a.lora_down.weight"))
    info = scan(tmp_path).get(LORA, "found", field="")
    assert (info.title, info.licence, info.bases) == ("found", "unknown", ())
    assert info.suits(MODEL)


def test_a_controlnet_is_a_folder(tmp_path: Path) -> None:
    folder = make_control(tmp_path, "edges", bases=["sdxl"], control="canny")
    registry = scan(tmp_path)
    info = registry.get(CONTROL, "edges", field="")
    assert (info.path, info.control) == (str(folder), "canny")
    assert not registry.list(LORA)


def test_an_adapter_suits_the_models_and_the_families_it_names(tmp_path: Path) -> None:
    make_lora(tmp_path, "ink", bases=["tiny", "sd15"])
    info = scan(tmp_path).get(LORA, "ink", field="")
    assert info.suits(MODEL)
    assert info.suits(replace(MODEL, name="other", family="sd15"))
    assert not info.suits(replace(MODEL, name="other"))


def test_the_build_changes_with_the_weights_and_not_with_the_card(tmp_path: Path) -> None:
    folder = make_lora(tmp_path, "ink", title="Ink")
    before = scan(tmp_path).get(LORA, "ink", field="").build
    (folder / "calotype.json").write_text('{"title": "Pen"}')
    assert scan(tmp_path).get(LORA, "ink", field="").build == before
    (folder / "lora.safetensors").write_bytes(weights("other.lora_A.weight"))
    assert scan(tmp_path).get(LORA, "ink", field="").build != before


def test_of_two_with_one_name_the_first_home_counts(tmp_path: Path) -> None:
    make_lora(tmp_path / "one", "ink", title="First")
    second = make_lora(tmp_path / "two", "ink", title="Second")
    make_control(tmp_path / "two", "ink")  # another kind is another name
    registry = scan(tmp_path / "one", tmp_path / "two")
    assert registry.get(LORA, "ink", field="").title == "First"
    assert registry.get(CONTROL, "ink", field="").title == "ink"
    assert registry.broken() == {str(second): "there is another LoRA named 'ink'"}


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("calotype.json", b"{", "ink/calotype.json isn't JSON"),
        ("calotype.json", b'{"bases": "tiny"}', "calotype.json: bases: "),
        ("calotype.json", b'{"stepz": 4}', "calotype.json: stepz: "),
        ("calotype.json", b'{"steps": 0}', "calotype.json: steps: "),
        ("calotype.json", b'{"sampler": "plms"}', "calotype.json: sampler: "),
        ("lora.safetensors", b"not this", "lora.safetensors is no whole safetensors file"),
        ("lora.safetensors", weights("unet.weight"), "lora.safetensors holds no LoRA"),
    ],
)
def test_a_broken_one_is_named_with_the_reason(
    tmp_path: Path, file: str, content: bytes, reason: str
) -> None:
    (make_lora(tmp_path, "ink") / file).write_bytes(content)
    registry = scan(tmp_path)
    assert registry.broken()["loras/ink"].startswith(reason)
    with pytest.raises(InvalidInput, match="no LoRA named 'ink'") as refused:
        registry.get(LORA, "ink", field="loras[2].name")
    assert (refused.value.field, refused.value.limit) == ("loras[2].name", [])
    assert reason in refused.value.detail


def test_missing_weights_are_a_reason(tmp_path: Path) -> None:
    (make_control(tmp_path, "edges") / "diffusion_pytorch_model.safetensors").unlink()
    reason = scan(tmp_path).broken()["controlnets/edges"]
    assert reason == "edges has no safetensors with weights"


# What a file says of its bases where its card doesn't.


def bases(home: Path, kind: AdapterKind, name: str) -> tuple[str, ...]:
    catalogue = Catalogue(home / "models", home)
    catalogue.scan()
    return catalogue.adapters.get(kind, name, field="").bases


def named(shapes: dict[str, Sequence[int]], blocks: str) -> dict[str, Sequence[int]]:
    return {name.replace("down_blocks", blocks): it for name, it in shapes.items()}


def test_a_lora_is_for_the_models_that_have_layers_of_its_shapes(tmp_path: Path) -> None:
    make_base(tmp_path / "models" / "narrow", width=8, text=16)
    make_base(tmp_path / "models" / "wide", width=32, text=16)
    (tmp_path / "loras").mkdir()
    file = tmp_path / "loras" / "found.safetensors"
    file.write_bytes(tensors(lora(width=32)))
    assert bases(tmp_path, LORA, "found") == ("wide",)
    as_convolution = {name: (*it, 1, 1) for name, it in lora(width=8).items()}
    file.write_bytes(tensors(as_convolution))
    assert bases(tmp_path, LORA, "found") == ("narrow",)
    file.write_bytes(tensors(lora(width=9)))
    assert bases(tmp_path, LORA, "found") == ("a model that isn't here",)


@pytest.mark.parametrize(
    ("shapes", "told", "family"),
    [
        (lora(width=640, text=2048), {}, "sdxl"),
        (lora(width=320, text=768), {}, "sd15"),
        (lora(width=9), {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        (lora(width=9), {"modelspec.architecture": "flux-1-dev/lora"}, "flux"),
        (named(lora(), "joint_blocks"), {}, "sd3"),
        (named(lora(), "single_transformer_blocks"), {}, "flux"),
    ],
)
def test_a_lora_for_a_base_that_is_not_here_says_its_family(
    tmp_path: Path, shapes: dict[str, Sequence[int]], told: dict[str, str], family: str
) -> None:
    (tmp_path / "loras").mkdir()
    file = tmp_path / "loras" / "found.safetensors"
    file.write_bytes(tensors(shapes, told=told))
    assert bases(tmp_path, LORA, "found") == (f"a model of {family} that isn't here",)


def test_a_controlnet_is_for_the_models_it_is_a_copy_of(tmp_path: Path) -> None:
    make_base(tmp_path / "models" / "xl", width=8)
    make_base(tmp_path / "models" / "sd", width=8, kind="StableDiffusionPipeline")
    make_base(tmp_path / "models" / "wide", width=32)
    make_controlnet(tmp_path / "controlnets" / "edges", width=32)
    make_controlnet(tmp_path / "controlnets" / "depth", width=8)
    assert bases(tmp_path, CONTROL, "edges") == ("wide",)
    assert bases(tmp_path, CONTROL, "depth") == ("sd", "xl")


@pytest.mark.parametrize("index", ["", ".fp16"])
def test_a_controlnet_may_have_half_precision_only_or_come_in_parts(
    tmp_path: Path, index: str
) -> None:
    folder = make_controlnet(tmp_path / "controlnets" / "edges")
    whole = scan(tmp_path).get(CONTROL, "edges", field="")
    plain = folder / "diffusion_pytorch_model.safetensors"
    plain.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    half = scan(tmp_path).get(CONTROL, "edges", field="")
    assert (half.bytes, half.build != whole.build) == (whole.bytes, True)
    (folder / "diffusion_pytorch_model.fp16.safetensors").rename(folder / "1.safetensors")
    names = dict.fromkeys(unet(), "1.safetensors")
    file = folder / f"diffusion_pytorch_model.safetensors.index{index}.json"
    file.write_text(json.dumps({"weight_map": names}))
    parts = scan(tmp_path).get(CONTROL, "edges", field="")
    assert (parts.bytes, parts.bases) == (whole.bytes, whole.bases)
