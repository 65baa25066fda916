"""LoRAs and ControlNets: found, told apart, and the broken ones named with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core.errors import InvalidInput
from calotype.core.nouns import AdapterKind, Sampler
from calotype.pool.adapters import AdapterRegistry
from tests.adapters import make_control, make_lora, weights
from tests.flow.test_admit import MODEL

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
    assert info.bytes == Path(info.path).stat().st_size


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
        ("lora.safetensors", b"not this", "lora.safetensors is no safetensors file"),
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
    assert "can't be read" in scan(tmp_path).broken()["controlnets/edges"]
