"""The registry: what is read from a model's folder, and what is wrong with a broken one."""

from __future__ import annotations

import hashlib
import json
import shutil
from math import prod
from pathlib import Path
from typing import IO, Any

import pytest

from calotype.core.errors import InvalidInput
from calotype.core.nouns import ModelInfo, Sampler
from calotype.files.headers import read_header
from calotype.pool.files import FileHashes
from calotype.pool.models import load_command
from calotype.pool.registry import ModelRegistry, embedded_folder
from tests.tensors import autoencoder, checkpoint, make_base, tensors, unet


def card(folder: Path, **said: Any) -> None:
    (folder / "calotype.json").write_text(json.dumps(said))


def scan(home: Path, *folders: Path) -> ModelRegistry:
    registry = ModelRegistry(folders, home)
    registry.scan()
    return registry


def test_embedded_model_is_known(tmp_path: Path) -> None:
    registry = scan(tmp_path / "none", embedded_folder())
    info = registry.get("vignette")
    assert registry.list() == [info]
    assert registry.broken() == {}
    assert (info.family, info.width, info.height) == ("sdxl", 128, 128)
    assert (info.size_px_min, info.size_px_max) == (64, 256)
    weights = embedded_folder().rglob("*.safetensors")
    assert info.parameter_bytes == sum(read_header(file).bytes for file in weights)


def test_defaults_come_from_the_denoiser(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "big", sample_size=128)
    found = scan(tmp_path).get("big")
    assert found == ModelInfo(
        name="big",
        family="sdxl",
        path=str(folder),
        build=found.build,
        components=found.components,
        title="big",
        licence="unknown",
        parameter_bytes=4 * (8 * 4 * 9 + 8 * 8 + 8 * 16 + 8 * 8 * 9 + 8 * 4 * 9 + 4 * 4),
        width=1024,
        height=1024,
        size_px_min=512,
        size_px_max=2048,
        steps=30,
        guidance=5.0,
        sampler=Sampler.DPMPP_2M,
    )


def test_card_overrides_the_defaults(tmp_path: Path) -> None:
    said = {
        "title": "Big",
        "licence": "Apache-2.0",
        "width": 768,
        "height": 640,
        "size_px_min": 256,
        "size_px_max": 1024,
        "steps": 4,
        "guidance": 1,
        "sampler": "euler_a",
    }
    card(make_base(tmp_path / "big"), **said)
    info = scan(tmp_path).get("big")
    assert {name: getattr(info, name) for name in said} == said
    assert info.sampler is Sampler.EULER_A


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("licence", 3),
        ("width", 100),
        ("width", True),
        ("height", 4096),
        ("size_px_min", 32),
        ("size_px_max", "1024"),
        ("steps", 0),
        ("guidance", 21.0),
        ("sampler", "plms"),
        ("stepz", 4),
        ("sampler", "flow_euler"),
        ("dtype", "fp64"),
        ("quantise", "int4"),
        ("compile", ["unet"]),
    ],
)
def test_wrong_card_makes_the_model_broken_and_names_the_field(
    tmp_path: Path, field: str, value: Any
) -> None:
    card(make_base(tmp_path / "big"), **{field: value})
    reason = scan(tmp_path).broken()["big"]
    assert reason.startswith(f"calotype.json: {field}")


def test_default_size_must_be_an_allowed_one(tmp_path: Path) -> None:
    card(make_base(tmp_path / "big"), size_px_max=768)
    assert "width isn't within size_px_min and size_px_max" in scan(tmp_path).broken()["big"]


def test_broken_folders_are_named_with_the_reason_and_the_rest_still_works(tmp_path: Path) -> None:
    make_base(tmp_path / "good")
    make_base(tmp_path / "kolors", kind="KolorsPipeline")
    make_base(tmp_path / "flux", kind="FluxPipeline")
    make_base(tmp_path / "odd", sample_size="large")
    make_base(tmp_path / "tiny", sample_size=4)
    shutil.rmtree(make_base(tmp_path / "no-vae") / "vae")
    (tmp_path / "empty").mkdir()
    (make_base(tmp_path / "garbled") / "model_index.json").write_text("{")
    for file in make_base(tmp_path / "weightless").rglob("*.safetensors"):
        file.unlink()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "a-file").touch()
    registry = scan(tmp_path)
    assert [info.name for info in registry.list()] == ["good"]
    expected = {
        "kolors": "'KolorsPipeline' isn't supported (StableDiffusionPipeline, ",
        "flux": "it names no transformer",
        "odd": "sample_size is 'large'",
        "tiny": "sample_size 4 means 32 pixels",
        "no-vae": "component 'vae' has no folder",
        "empty": "model_index.json can't be read",
        "garbled": "model_index.json isn't JSON",
        "weightless": "no weights",
    }
    assert registry.broken().keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in registry.broken()[name]


FLOW: dict[str, Any] = {"denoiser": "transformer"}


@pytest.mark.parametrize(
    ("made", "known"),
    [
        (
            {"kind": "StableDiffusionPipeline", "sample_size": 64},
            ("sd15", 512, 256, 30, 7.5, "dpmpp_2m"),
        ),
        (
            {"kind": "StableDiffusion3Pipeline", "sample_size": 128, **FLOW},
            ("sd3", 1024, 512, 28, 7.0, "flow_euler"),
        ),
        (  # its denoiser embeds no guidance: it was made for few steps
            {"kind": "FluxPipeline", "sample_size": 1024, **FLOW},
            ("flux", 1024, 512, 4, 1.0, "flow_euler"),
        ),
    ],
)
def test_each_family_has_its_own_ways(
    tmp_path: Path, made: dict[str, Any], known: tuple[Any, ...]
) -> None:
    make_base(tmp_path / "m", **made)
    info = scan(tmp_path).get("m")
    ways = (info.family, info.width, info.size_px_min, info.steps, info.guidance, info.sampler)
    assert ways == known


def test_flux_that_embeds_guidance_takes_more_steps_and_its_size_is_a_multiple_of_16(
    tmp_path: Path,
) -> None:
    folder = make_base(tmp_path / "dev", kind="FluxPipeline", **FLOW)
    (folder / "transformer" / "config.json").write_text('{"guidance_embeds": true}')
    (folder / "vae" / "config.json").write_text("{}")
    info = scan(tmp_path).get("dev")
    assert (info.width, info.steps, info.guidance) == (1024, 28, 3.5)
    card(folder, width=1032)
    assert "width: Value error, flux needs a multiple of 16" in scan(tmp_path).broken()["dev"]
    card(folder, sampler="euler")
    assert "sampler: Value error, flux can be sampled with" in scan(tmp_path).broken()["dev"]


def test_how_a_model_is_loaded_is_a_part_of_its_build(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "big")
    builds = {scan(tmp_path).get("big").build}
    for said in ({"dtype": "bf16"}, {"quantise": "int8"}, {"compile": ["denoiser", "vae"]}):
        card(folder, **said)
        info = scan(tmp_path).get("big")
        builds.add(info.build)
        assert {name: getattr(info, name) for name in said} == {
            name: tuple(it) if isinstance(it, list) else it for name, it in said.items()
        }
        load = load_command(info)
        assert (load.build, load.dtype, load.quantise, load.compile) == (
            info.build,
            info.dtype,
            info.quantise,
            info.compile,
        )
    assert len(builds) == 4
    card(folder, dtype="auto", quantise="", compile=[])
    assert scan(tmp_path).get("big").build in builds


def test_one_file_may_hold_the_weights_and_what_nobody_needs_may_be_missing(
    tmp_path: Path,
) -> None:
    folder = make_base(tmp_path / "single")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    assert "no weights" in scan(tmp_path).broken()["single"]
    (folder / "model.safetensors").write_bytes(tensors(checkpoint()))
    info = scan(tmp_path).get("single")
    read = {name: it for name, it in checkpoint().items() if "conditioner" not in name}
    assert info.parameter_bytes == 4 * sum(prod(it) for it in read.values())
    (folder / "model.safetensors").write_bytes(tensors(checkpoint(), fill=b"\1"))
    assert scan(tmp_path).get("single").build != info.build


def test_unknown_model_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    make_base(tmp_path / "one")
    make_base(tmp_path / "two")
    with pytest.raises(InvalidInput) as caught:
        scan(tmp_path).get("three")
    assert (caught.value.field, caught.value.limit) == ("model", ["one", "two"])


def test_of_two_models_with_one_name_the_first_counts(tmp_path: Path) -> None:
    given = make_base(tmp_path / "given" / "m")
    second = make_base(tmp_path / "home" / "m")
    registry = scan(tmp_path / "home", given)
    assert registry.get("m").path == str(given)
    assert registry.broken() == {str(second): "there is another model named 'm'"}


def test_build_is_of_the_content(tmp_path: Path) -> None:
    def build(name: str) -> str:
        return scan(tmp_path).get(name).build

    make_base(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert build("one") == build("two")
    card(tmp_path / "two", title="says nothing of the pictures")
    (tmp_path / "two" / "README.md").write_text("nor does this")
    assert build("one") == build("two")
    file = tmp_path / "two" / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(tensors(autoencoder(), fill=b"\1"))
    assert build("one") != build("two")
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    weights = tmp_path / "three" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("model.safetensors"))
    assert build("one") != build("three")


def test_scan_sees_what_changed_and_hashes_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_base(tmp_path / "one")
    registry = scan(tmp_path)
    before = registry.get("one").build
    hashed: list[str] = []
    real = hashlib.file_digest

    def watched(stream: IO[bytes], digest: str) -> Any:
        hashed.append("/".join(Path(stream.name).parts[-3:]))
        return real(stream, digest)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", watched)
    registry.scan()
    assert registry.get("one").build == before
    assert hashed == []
    file = tmp_path / "one" / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(tensors(unet(), fill=b"\1"))
    registry.scan()
    assert registry.get("one").build != before
    assert hashed == ["one/unet/diffusion_pytorch_model.safetensors"]
    make_base(tmp_path / "two")
    registry.scan()
    assert [info.name for info in registry.list()] == ["one", "two"]


def test_hash_is_sha256(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")  # the standard's own example, FIPS 180-4
    assert FileHashes().of(file).hex().startswith("ba7816bf8f01cfea414140de5dae2223")
