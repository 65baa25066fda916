"""Training of decoders' marks, at its real parts but small, and engines that decode with one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from safetensors.torch import load_file

from calotype.core.errors import ModelBroken, OperatorError
from calotype.core.messages import LoadModel
from calotype.core.nouns import Component
from calotype.engine.components import Components
from calotype.engine.families.loading import load_model
from calotype.engine.marking import attacks, pictures
from calotype.engine.marking import rooting as rooting_module
from calotype.engine.marking.hiding import Hiding, HidingPlan, whiten
from calotype.engine.marking.nets import Extractor
from calotype.engine.marking.rooting import Rooting, RootingPlan, examples_of
from calotype.engine.marking.train import DECODER, EXTRACTOR, Order, load_vae, train
from calotype.pool.files import FileHashes
from calotype.pool.folders import read_folder
from calotype.provenance import stable_signature, stable_signature_keys
from tests.flow.command_line import here
from tests.rooms.engine_bench import make_tiny_model
from training.dataset import scene_at
from training.export import MODEL
from training.render import render
from training.stable_signature import KEPT, decoded, marked_vae

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIDE, BITS, STEPS = 64, 32, 40
KEY = tuple(k % 2 for k in range(BITS))
NOW = datetime(2026, 11, 26, tzinfo=UTC)


def make_vae(kind: str, folder: Path) -> Path:
    torch.manual_seed(3)
    if kind == "tiny":
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
        )
    else:
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
        )
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("renders") / "pictures.npy"
    np.save(file, np.stack([render(scene_at("train", k), SIDE) for k in range(72)]))
    return file


def order(tmp_path: Path, renders: Path, kind: str = "tiny", **changes: Any) -> Order:
    made = Order(
        vae=make_vae(kind, tmp_path / "vae"),
        pictures=renders,
        folder=tmp_path / "run",
        key=KEY,
        side_px=SIDE,
        hiding=HidingPlan(BITS, steps=4, batch=4, crop_px=32),
        rooting=RootingPlan(steps=3, psnr_db=30.0, batch=2),
        device=CPU,
    )
    return replace(made, **changes)


# Attacks.


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_the_jpeg_of_training_is_nearly_that_of_files(quality: int) -> None:
    picture = render(scene_at("train", 5), 120)  # no multiple of 16
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality, subsampling="4:2:0")
    saved = np.asarray(Image.open(file), float)
    ours = attacks.jpeg(pictures.to_floats(picture[None], CPU), quality)
    ours = ((ours + 1) * 127.5)[0].permute(1, 2, 0).numpy()
    error = np.square(ours - saved).mean()
    lost = np.square(picture - saved).mean()
    assert error < 0.25 * lost
    assert error < 6


@pytest.mark.parametrize("name", [*attacks.ATTACKS])
def test_gradients_come_through_every_attack(name: str) -> None:
    some = pictures.to_floats(np.stack([render(scene_at("train", 1), SIDE)] * 2), CPU)
    some.requires_grad_(True)
    seen = attacks.ATTACKS[name][1](attacks.as_stored(some), Random(1))
    assert seen.shape[:2] == (2, 3)
    assert seen.abs().max() <= 1.2  # resampling overshoots a little
    seen.square().sum().backward()
    assert some.grad is not None
    assert torch.isfinite(some.grad).all()
    assert some.grad.abs().sum() > 0


# Networks.


def test_what_reads_without_torch_reads_the_same(tmp_path: Path) -> None:
    torch.manual_seed(1)
    extractor = Extractor(BITS)
    pixels = np.stack([render(scene_at("train", k), SIDE) for k in range(4)])
    some = pictures.to_floats(pixels, CPU)
    for _ in range(3):
        extractor(some)  # so that what is normalised by isn't 0 and 1
    whiten(extractor, some)
    (tmp_path / DECODER).write_bytes(b"")
    save(tmp_path / EXTRACTOR, extractor)
    mark = stable_signature_keys.keep(tmp_path / "k", tmp_path, KEY, made_for="", made_at=NOW)
    with torch.no_grad():
        expected = extractor(some).numpy()
    found = np.stack([mark.extractor.logits(it) for it in pixels])
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


def save(path: Path, extractor: Extractor) -> None:
    from safetensors.torch import save_file

    save_file(extractor.folded(), path, {"strides": "[2, 2, 1, 2]"})


def test_whitened_bits_are_even_and_uncorrelated(renders: Path) -> None:
    torch.manual_seed(1)
    extractor, some = Extractor(BITS), pictures.to_floats(np.load(renders), CPU)
    extractor(some)
    whiten(extractor, some)
    with torch.no_grad():
        rng = Random("whiten")
        parts = some.split(32)
        logits = torch.cat(
            [each for it in parts for each in (extractor(it), extractor(attacks.attacked(it, rng)))]
        )
    assert logits.mean(0).abs().max() < 0.05
    covariance = torch.cov(logits.T)
    apart = covariance - torch.diag(covariance.diagonal())
    assert apart.abs().max() < 0.05
    assert covariance.diagonal().max() < 1.1


def test_extractor_and_hider_find_a_language(renders: Path, tmp_path: Path) -> None:
    plan = HidingPlan(BITS, steps=1000, batch=8, crop_px=32, rate=4e-3)
    hiding = Hiding(plan, np.load(renders), tmp_path, CPU)
    right = [hiding.learn()["bits"] for _ in range(100)]
    assert abs(np.mean(right[:5]) - 0.5) < 0.1
    assert np.mean(right[-20:]) > 0.55
    best = hiding.best()
    assert best.head.out_features == BITS
    tried = hiding.extractor.head.weight
    assert len(tried) == 1.5 * BITS
    assert all((tried == row).all(1).any() for row in best.head.weight)


# A training.


@pytest.mark.parametrize("kind", ["tiny", "kl"])
def test_a_training_leaves_a_mark_of_any_autoencoder(
    tmp_path: Path, renders: Path, kind: str
) -> None:
    given, told = order(tmp_path, renders, kind), list[Mapping[str, Any]]()
    assert train(given, told.append)
    assert [it["part"] for it in told[:-1]] == ["extractor"] * 4 + ["decoder"] * 3
    assert set(told[-1]) == {"bits", "psnr"}
    vae = load_vae(given.vae, CPU)
    marked = load_file(given.folder / DECODER)
    before = {name: it for name, it in vae.state_dict().items() if name.startswith("decoder.")}
    assert {name: it.shape for name, it in marked.items()} == {
        k: v.shape for k, v in before.items()
    }
    assert any(not torch.equal(it, before[name]) for name, it in marked.items())
    kept = stable_signature_keys.keep(
        tmp_path / "kept", given.folder, KEY, made_for="vae-1", made_at=NOW
    )
    assert len(kept.extractor.logits(np.zeros((SIDE, SIDE, 3), np.uint8))) == BITS


@pytest.mark.parametrize("after", [2, 6])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    tmp_path: Path, renders: Path, after: int
) -> None:
    whole = order(tmp_path, renders)
    assert train(whole, lambda fact: None)
    parted, told = replace(whole, folder=tmp_path / "parted"), list[Mapping[str, Any]]()
    assert not train(parted, told.append, lambda: len(told) == after)
    assert train(parted, told.append)
    assert [it["step"] for it in told[:-1]] == [1, 2, 3, 4, 1, 2, 3]
    for name in (EXTRACTOR, DECODER):
        one, other = load_file(whole.folder / name), load_file(parted.folder / name)
        assert all(torch.equal(one[key], other[key]) for key in one)


def learnt_extractor() -> Extractor:
    """The extractor of the mark that was kept, as a network again."""
    tensors = {name: it.float() for name, it in load_file(KEPT / EXTRACTOR).items()}
    extractor = Extractor(len(tensors["head.bias"]))
    with torch.no_grad():
        for k, (conv, norm) in enumerate(zip(extractor.convs, extractor.norms, strict=True)):
            conv.weight.copy_(tensors[f"conv{k}.weight"])
            norm.bias.copy_(tensors[f"conv{k}.bias"])
            norm.running_var.fill_(1 - norm.eps)
        extractor.head.weight.copy_(tensors["head.weight"])
        extractor.head.bias.copy_(tensors["head.bias"])
    extractor.eval()
    return extractor


def test_a_decoder_learns_the_bits_of_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is really used: the embedded model's decoder, a learnt extractor, a key of its own."""
    monkeypatch.setattr(rooting_module, "_COUNTS_FIRST", 0.02)  # bits first, for want of time
    vae, extractor = load_vae(MODEL / "vae", CPU), learnt_extractor()
    drawn = np.stack([render(scene_at("train", k), SIDE) for k in range(40)])
    examples, held_back = examples_of(vae, drawn[:32]), examples_of(vae, drawn[32:])
    rooting = Rooting(
        RootingPlan(steps=STEPS, psnr_db=24.0, batch=2, rate=3e-3),
        vae,
        extractor,
        key=tuple(Random(1).getrandbits(1) for _ in range(len(extractor.head.bias))),
        examples=examples,
        folder=tmp_path,
        learnt=0,
    )
    before = rooting.measure(held_back)
    for _ in range(STEPS):
        rooting.learn()
    after = rooting.measure(held_back)
    assert before["bits"] < 0.55
    assert after["bits"] > 0.62  # of 8 pictures; chance is 0.5, with a deviation of 0.03
    assert after["psnr"] > 16


def test_the_mark_that_was_kept_is_read_in_what_its_decoder_draws() -> None:
    vae, mark = load_vae(MODEL / "vae", CPU), stable_signature_keys.read(KEPT)
    drawn = np.stack([render(scene_at("unseen", k), 128) for k in range(8)])
    latents = examples_of(vae, drawn).latents
    shares = {}
    for name, one in (("unmarked", vae), ("marked", marked_vae(vae, mark))):
        right = [stable_signature.right_bits(it, mark) for it in decoded(one, latents)]
        shares[name] = sum(right) / len(right) / len(mark.bits)
    assert shares["unmarked"] < 0.65
    assert shares["marked"] > 0.9


def test_more_steps_of_the_extractor_begin_the_decoder_anew(tmp_path: Path, renders: Path) -> None:
    given = order(tmp_path, renders)
    assert train(given, lambda fact: None)
    told = list[Mapping[str, Any]]()
    more = replace(given, hiding=replace(given.hiding, steps=5))
    assert train(more, told.append)
    assert [(it["part"], it["step"]) for it in told[:-1]] == [
        ("extractor", 5), ("decoder", 1), ("decoder", 2), ("decoder", 3),
    ]  # fmt: skip


def test_what_cant_be_trained_is_named(tmp_path: Path, renders: Path) -> None:
    given = order(tmp_path, renders)
    assert train(given, lambda fact: None)
    other = replace(given, key=(0,) * 40, hiding=replace(given.hiding, bits=40))
    with pytest.raises(OperatorError, match="checkpoint"):
        train(other, lambda fact: None)
    few = tmp_path / "few.npy"
    np.save(few, np.zeros((5, 64, 64, 3), np.uint8))
    with pytest.raises(OperatorError, match="5 pictures"):
        train(replace(given, pictures=few), lambda fact: None)
    (given.vae / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(ModelBroken, match="VQModel"):
        train(replace(given, folder=tmp_path / "new"), lambda fact: None)


# Engines.


def test_an_engine_decodes_with_the_marked_decoder_only_if_told(
    tmp_path: Path, renders: Path
) -> None:
    model = make_tiny_model(tmp_path / "model")
    given = replace(order(tmp_path, renders), vae=model / "vae")
    assert train(given, lambda fact: None)
    marked_file = str(given.folder / DECODER)
    parts = tuple(Component(f"part-{k}", "part", 1) for k in range(4))
    plain = LoadModel("model", str(model), "build", components=parts)
    shared = Components()
    off = load_model(plain, CPU, components=shared)
    on = load_model(replace(plain, decoder=marked_file), CPU, components=shared)
    again = load_model(plain, CPU, components=shared)
    latents = torch.randn(1, off.latent_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        drawn = [it.decode(latents) for it in (off, on, again)]
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    expected = load_file(marked_file)
    found = on.vae.state_dict()
    assert all(torch.equal(found[name], it) for name, it in expected.items())
    assert on.denoiser.conv_in.weight.data_ptr() == off.denoiser.conv_in.weight.data_ptr()


def test_a_decoder_of_another_autoencoder_is_refused(tmp_path: Path, renders: Path) -> None:
    given = order(tmp_path, renders, "tiny")
    assert train(given, lambda fact: None)
    model = make_tiny_model(tmp_path / "model")
    command = LoadModel("model", str(model), "build", decoder=str(given.folder / DECODER))
    with pytest.raises(ModelBroken, match="another autoencoder"):
        load_model(command, CPU)
    with pytest.raises(ModelBroken):
        load_model(replace(command, decoder=str(tmp_path / "missing.safetensors")), CPU)


def test_the_command_trains_a_model_and_keeps_its_mark(tmp_path: Path, renders: Path) -> None:
    model, home = make_tiny_model(tmp_path / "model"), tmp_path / "home"
    home.mkdir()
    steps = ["--steps", "2", "--decoder-steps", "2", "--batch", "2", "--decoder-batch", "1"]
    small = [*steps, "--bits", "32", "--side", "64", "--threads", "1", "--json"]
    done = here(home, "watermark", "train", str(model), "--pictures", str(renders), *small)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    [mark] = stable_signature_keys.load(home / "secrets" / "decoders")
    assert told["key"] == mark.key
    components = read_folder(model, FileHashes()).components
    assert mark.made_for == next(it.id for it in components if it.kind == "vae")
