"""What the registry reads of weights: which files count, what lies beside them, components."""

from __future__ import annotations

import json
import shutil
from math import prod
from pathlib import Path
from typing import Any

from tests.rooms.test_registry import card, scan
from tests.tensors import autoencoder, checkpoint, make_base, tensors, unet


def test_of_weights_in_two_kinds_only_those_that_are_read_count(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "both")
    before = scan(tmp_path).get("both")
    file = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    file.write_bytes(tensors(unet(), "F16"))
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    assert scan(tmp_path).get("both") == before
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    half = scan(tmp_path).get("both")
    assert half.build != before.build
    saved = before.parameter_bytes - half.parameter_bytes
    assert saved == 2 * sum(prod(it) for it in unet().values())


def test_weights_in_parts_are_counted_by_their_index(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "parts") / "unet"
    before = scan(tmp_path).get("parts")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    weights = [*unet().items()]
    for at, some in enumerate((weights[:2], weights[2:])):
        (folder / f"{at}.safetensors").write_bytes(tensors(dict(some)))
    (folder / "stray.safetensors").write_bytes(tensors(unet()))
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    names = {name: f"{int(at > 1)}.safetensors" for at, (name, _) in enumerate(weights)}
    index.write_text(json.dumps({"weight_map": names}))
    assert scan(tmp_path).get("parts").parameter_bytes == before.parameter_bytes
    (folder / "1.safetensors").unlink()
    assert "unet lacks 1.safetensors, which " in scan(tmp_path).broken()["parts"]


def test_weights_that_are_only_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "pickled") / "unet"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    reason = scan(tmp_path).broken()["pickled"]
    assert reason.startswith("unet has its weights in diffusion_pytorch_model.bin, and a pickle")


def test_damaged_weights_and_names_that_leave_the_folder_break_a_model(tmp_path: Path) -> None:
    cut = make_base(tmp_path / "cut") / "vae" / "diffusion_pytorch_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-5])
    outside = make_base(tmp_path / "outside")
    index = json.loads((outside / "model_index.json").read_text())
    index["../cut"] = ["diffusers", "AutoencoderKL"]
    (outside / "model_index.json").write_text(json.dumps(index))
    make_base(tmp_path / "at@home")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    looped = make_base(tmp_path / "looped") / "vae"
    shutil.rmtree(looped)
    looped.symlink_to(looped)
    registry = scan(tmp_path)
    assert not registry.list()
    expected = {
        "cut": "diffusion_pytorch_model.safetensors is no whole safetensors file: it is cut short",
        "outside": "component '../cut' has no folder",
        "at@home": "its folder's name has an @",
        "looped": "component 'vae' has no folder",
    }
    assert registry.broken().keys() == expected.keys()
    for name, reason in expected.items():
        assert registry.broken()[name].startswith(reason)


def test_models_that_share_parts_share_their_ids(tmp_path: Path) -> None:
    one = make_base(tmp_path / "one")
    two = make_base(tmp_path / "two")
    (two / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(tensors(unet(), fill=b"\1"))
    config = {"sample_size": 128, "_name_or_path": "elsewhere", "_diffusers_version": "0.1"}
    (two / "vae" / "config.json").write_text(json.dumps(config))
    ids = [{it.kind: it.id for it in info.components} for info in scan(tmp_path).list()]
    assert ids[0].keys() == {"denoiser", "vae"}
    assert ids[0]["vae"] == ids[1]["vae"]
    assert ids[0]["denoiser"] != ids[1]["denoiser"]
    card(one, dtype="fp16")
    again = {it.kind: it.id for it in scan(tmp_path).get("one").components}
    assert again["vae"] == ids[0]["vae"], "it is loaded in single precision, whatever the card says"
    assert again["denoiser"] != ids[0]["denoiser"]
    (two / "vae" / "config.json").write_text(json.dumps({**config, "scaling_factor": 2}))
    assert {it.id for it in scan(tmp_path).get("two").components}.isdisjoint({ids[0]["vae"]})


def test_a_component_s_bytes_are_those_of_how_it_is_loaded(tmp_path: Path) -> None:
    def counted(**said: Any) -> dict[str, int]:
        card(folder, **said)
        return {it.kind: it.bytes for it in scan(tmp_path).get("half").components}

    folder = make_base(tmp_path / "half", dtype="F16")
    numbers = sum(prod(it) for it in unet().values())
    vae = 4 * sum(prod(it) for it in autoencoder().values())
    assert counted() == {"denoiser": 4 * numbers, "vae": vae}
    assert counted(dtype="bf16") == {"denoiser": 2 * numbers, "vae": vae}
    linear = 8 * 8 + 8 * 16
    scales = 2 * (8 + 8)
    small = 2 * (numbers - linear) + linear + scales
    assert counted(dtype="bf16", quantise="int8") == {"denoiser": small, "vae": vae}


def test_a_checkpoint_s_parts_are_told_apart_by_their_makers_names(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "single")
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("text_encoder", "text_encoder_2"):
        (folder / part).mkdir()
        (folder / part / "config.json").write_text("{}")
        index[part] = ["transformers", "CLIPTextModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    (folder / "model.safetensors").write_bytes(tensors(checkpoint()))
    components = scan(tmp_path).get("single").components
    assert [it.kind for it in components] == ["denoiser", "vae", "text_encoder", "text_encoder"]
    assert [it.bytes for it in components][1:] == [4 * 8 * 4 * 9, 4 * 3 * 16, 4 * 3 * 16]
    assert len({it.id for it in components}) == 4
    other = make_base(tmp_path / "other")
    shutil.rmtree(other)
    shutil.copytree(folder, other)
    content = bytearray(tensors(checkpoint()))
    content[-1] ^= 1  # the last encoder's
    (other / "model.safetensors").write_bytes(content)
    theirs = scan(tmp_path).get("other").components
    assert [a.id == b.id for a, b in zip(components, theirs, strict=True)] == [True] * 3 + [False]
