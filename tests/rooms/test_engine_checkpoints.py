"""Where a model's weights may lie: one file by its maker's names, parts, half precision."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors.torch import load_file, save_file

from calotype.core.errors import ModelBroken
from calotype.core.messages import LoadModel
from calotype.engine.families.loading import load_model
from tests.rooms.engine_checkpoint import as_single_file
from tests.rooms.engine_models import CPU, Drawer, apart, make_model, plain_pipeline

pytestmark = pytest.mark.usefixtures("one_thread", "_no_network")


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", None)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    base = tmp_path_factory.mktemp("models")

    def folder(family: str) -> Path:
        path = base / family
        if not path.exists():
            make_model(family, path)
            if family.startswith("sd3"):  # its files have no projection of the first CLIP: none is
                encoder = plain_pipeline(path).text_encoder
                torch.nn.init.eye_(encoder.text_projection.weight)
                encoder.save_pretrained(path / "text_encoder")
        return path

    return folder


@pytest.fixture
def _narrow_flux(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' conversion of FLUX, but for the width that is a number in it: 3,072."""
    known = SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    wide = known["checkpoint_mapping_fn"]
    numbers = tuple(32 if it == 3072 else it for it in wide.__code__.co_consts)
    narrow = types.FunctionType(wide.__code__.replace(co_consts=numbers), wide.__globals__)
    monkeypatch.setitem(known, "checkpoint_mapping_fn", narrow)


def load(folder: Path, **options: Any) -> Any:
    return load_model(LoadModel(folder.name, str(folder), "build", **options), CPU)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    parts = {"denoiser": model.denoiser, "vae": model.vae}
    parts |= {f"encoder {at}": encoder for at, encoder in enumerate(model.encoders)}
    return {
        f"{name}: {key}": tensor
        for name, part in parts.items()
        for key, tensor in part.state_dict().items()
    }


ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.mark.usefixtures("_narrow_flux")
@pytest.mark.parametrize(
    ("family", "prefix", "own"),
    [
        ("sd15", "model.diffusion_model.", ()),
        ("sd15", "model.diffusion_model.", ("text_encoder", "vae")),
        ("sdxl-uneven", "model.diffusion_model.", ()),
        ("sdxl-uneven", "model.diffusion_model.", ("vae",)),
        ("sd3", "model.diffusion_model.", ()),
        ("sd3", "model.diffusion_model.", ENCODERS),
        ("sd3-no-t5", "model.diffusion_model.", ()),
        ("flux", "model.diffusion_model.", ()),
        ("flux", "", (*ENCODERS, "vae")),
        ("flux-schnell", "", (*ENCODERS, "vae")),
    ],
)
def test_a_checkpoint_in_one_file_draws_what_the_folder_draws(
    folder_of: Callable[[str], Path],
    tmp_path: Path,
    family: str,
    prefix: str,
    own: tuple[str, ...],
) -> None:
    whole = Drawer(folder_of(family))
    single = Drawer(as_single_file(folder_of(family), tmp_path / family, own=own, prefix=prefix))
    expected = weights_of(whole.model)
    found = weights_of(single.model)
    assert found.keys() == expected.keys()
    assert [key for key, it in expected.items() if not it.equal(found[key])] == []
    assert single.model.parameter_bytes == whole.model.parameter_bytes
    pictures = [drawer.ours(drawer.row(steps=2)) for drawer in (whole, single)]
    assert apart(*pictures) <= 1  # a tensor that lies elsewhere in memory may round otherwise


@pytest.mark.parametrize("parts", ["1GB", "60KB"], ids=["one file", "several"])
@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_half_precision_is_read_where_there_is_nothing_else(
    folder_of: Callable[[str], Path], tmp_path: Path, family: str, parts: str
) -> None:
    plain = plain_pipeline(folder_of(family), torch_dtype=torch.float16)
    plain.save_pretrained(tmp_path / "half", variant="fp16", max_shard_size=parts)
    files = [file.name for file in (tmp_path / "half").rglob("*.safetensors")]
    assert len(files) > (5 if parts == "60KB" else 3)
    assert all("fp16" in name for name in files)
    expected, found = weights_of(load(folder_of(family))), weights_of(load(tmp_path / "half"))
    assert found.keys() == expected.keys()
    assert all(it.dtype == torch.float32 for it in found.values() if it.is_floating_point())
    assert all(it.half().equal(found[key].half()) for key, it in expected.items())


def test_plain_weights_come_before_those_of_half_precision(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Component by component: as repositories are when somebody has tidied up."""
    plain = plain_pipeline(folder_of("sdxl"))
    plain.save_pretrained(tmp_path / "both")
    for part in ("unet", "text_encoder"):
        one = getattr(plain, part)
        half = type(one).from_pretrained(tmp_path / "both" / part, torch_dtype=torch.float16)
        half.save_pretrained(tmp_path / "both" / part, variant="fp16")
    (tmp_path / "both" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    expected, found = weights_of(load(folder_of("sdxl"))), weights_of(load(tmp_path / "both"))
    rounded = {key.split(":")[0] for key, it in expected.items() if not it.equal(found[key])}
    assert rounded == {"denoiser"}


def test_weights_in_parts_are_the_same_weights(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    plain_pipeline(folder_of("flux")).save_pretrained(tmp_path / "parts", max_shard_size="60KB")
    assert (tmp_path / "parts/transformer/diffusion_pytorch_model.safetensors.index.json").exists()
    expected, found = weights_of(load(folder_of("flux"))), weights_of(load(tmp_path / "parts"))
    assert all(it.equal(found[key]) for key, it in expected.items())
    (missing,) = (tmp_path / "parts" / "transformer").glob("*-00002-of-*")
    missing.unlink()
    with pytest.raises(ModelBroken, match=missing.name):
        load(tmp_path / "parts")


def test_weights_that_are_nowhere_are_told(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = as_single_file(folder_of("sd15"), tmp_path / "single", own=("vae",))
    for file in (folder / "vae").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelBroken, match=r"single: model.safetensors: no weights of vae"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelBroken, match="single: no safetensors with weights in ") as caught:
        load(folder)
    assert caught.value.field in ("text_encoder", "unet", "vae")


def without(name: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        save_file({key: it for key, it in load_file(file).items() if key != name}, file)

    return change


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("first_stage_model.decoder.conv_out.bias"), "1 tensors of vae are missing"),
        (without("model.diffusion_model.out.2.bias"), "1 tensors of unet are missing: conv_out.b"),
        (without("model.diffusion_model.label_emb.0.0.bias"), r"label_emb\.0\.0\.bias"),
        (without("conditioner.embedders.1.model.ln_final.bias"), "1 tensors of text_encoder_2"),
        (
            without("conditioner.embedders.1.model.positional_embedding"),
            "no weights of text_encoder_2",
        ),
        (cut_short, "it is cut short"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_told(
    folder_of: Callable[[str], Path],
    tmp_path: Path,
    change: Callable[[Path], None],
    reason: str,
) -> None:
    folder = as_single_file(folder_of("sdxl-uneven"), tmp_path / "single")
    change(folder / "model.safetensors")
    with pytest.raises(ModelBroken, match=reason) as caught:
        load(folder)
    assert caught.value.detail.startswith("single: ")


@pytest.mark.parametrize(("family", "other"), [("sdxl-uneven", "sd15"), ("sd3", "sdxl-uneven")])
def test_a_checkpoint_of_another_model_than_the_folder_describes_is_told(
    folder_of: Callable[[str], Path], tmp_path: Path, family: str, other: str
) -> None:
    folder = as_single_file(folder_of(family), tmp_path / "single")
    strange = as_single_file(folder_of(other), tmp_path / "other") / "model.safetensors"
    (folder / "model.safetensors").write_bytes(strange.read_bytes())
    with pytest.raises(ModelBroken, match=r"single: model\.safetensors"):
        load(folder)


def test_a_component_of_a_kind_we_do_not_know_is_told(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = as_single_file(folder_of("sd15"), tmp_path / "single")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("AutoencoderKL", "AutoencoderOfTheirs"))
    with pytest.raises(ModelBroken, match=r"vae is a diffusers\.AutoencoderOfTheirs") as caught:
        load(folder)
    assert caught.value.field == "vae"
