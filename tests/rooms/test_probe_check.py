"""The trained check in the engine: encoders packed and loaded again, scores, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from calotype.core import limits
from calotype.core.picture_checks import (
    ENCODER_FILE,
    HEAD_FILE,
    CheckKind,
    CheckUse,
)
from calotype.engine.checks.base import CheckBroken
from calotype.engine.checks.encoders import open_encoder, pack
from calotype.engine.checks.probe import ProbeCheck
from calotype.engine.checks.running import load_check
from calotype.flow.training import embedded_encoder
from calotype.pool.embedder import Embedder
from calotype.safety.training import course, parts
from calotype.safety.training.labelled import Labelled
from tests.rooms.tiny_checks import SEEN, SIDE, TINY, classifier, processor

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
LABELS = ("bad", "harmless")


def picture(label: str, seed: int) -> NDArray[np.uint8]:
    """Coarse noise; bad ones are red, harmless ones blue."""
    rng = np.random.default_rng([seed, len(label)])
    found = np.kron(rng.integers(0, 120, (6, 8, 3)), np.ones((8, 8, 1)))
    found[..., 0 if label == "bad" else 2] += 120
    return found.astype(np.uint8)


# Encoders.


def clip(folder: Path) -> Path:
    """Both halves, as CLIP is published; only the one that sees is wanted."""
    torch.manual_seed(1)
    text = CLIPTextConfig(**TINY, vocab_size=50, max_position_embeddings=8)
    vision = CLIPVisionConfig(**SEEN)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    CLIPModel(config).save_pretrained(folder)
    return _seeing(folder, "CLIPImageProcessor", crop_size={"height": SIDE, "width": SIDE})


def siglip(folder: Path) -> Path:
    torch.manual_seed(1)
    SiglipVisionModel(SiglipVisionConfig(**SEEN)).save_pretrained(folder)
    return _seeing(folder, "SiglipImageProcessor")


def dinov2(folder: Path) -> Path:
    torch.manual_seed(1)
    seen = {name: it for name, it in SEEN.items() if name != "intermediate_size"}
    Dinov2Model(Dinov2Config(**seen)).save_pretrained(folder)
    return _seeing(folder, "ViTImageProcessor")


def vit(folder: Path) -> Path:
    """A classifier's, whose weights have no pooler: the patches' mean is taken."""
    classifier(folder)
    return folder


def resnet(folder: Path) -> Path:
    """Convolutions: a width for each stage, and a pooled row that has a height and a width."""
    torch.manual_seed(1)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    return _seeing(folder, "ViTImageProcessor")


def embedded(folder: Path) -> Path:
    return embedded_encoder()


def _seeing(folder: Path, kind: str, **said: Any) -> Path:
    processor(folder, kind, size={"height": SIDE, "width": SIDE}, do_resize=True, **said)
    return folder


ENCODERS = {it.__name__: it for it in (embedded, clip, siglip, dinov2, vit, resnet)}


def trained(encoder: Path, folder: Path) -> CheckUse:
    """A check over it, trained in this process."""
    folder.mkdir()
    opened = open_encoder(encoder, CPU)
    pack(opened, folder)
    examples = []
    with torch.inference_mode():
        for label in LABELS:
            for seed in range(25):
                pixels = picture(label, seed)
                [row] = opened.features([pixels]).numpy()
                name = f"{label}/{seed}.png"
                of = Labelled(name, Path(name), label, "here")
                examples.append(parts.example(of, name.encode(), pixels, row))
    tensors = tuple(sorted(opened.network.state_dict()))
    said = course.Encoder({**opened.said, "name": encoder.name, "build": "0"}, tensors)
    course.run(examples, course.Wish("own"), said, folder)
    return CheckUse("own", CheckKind.PROBE.value, str(folder), "0", LABELS)


@pytest.fixture(scope="module", params=list(ENCODERS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An encoder's folder, and a check trained over it."""
    place = tmp_path_factory.mktemp(request.param)
    encoder = ENCODERS[request.param](place)
    return encoder, trained(encoder, place / "check")


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> CheckUse:
    """A check over the embedded encoder, to read only."""
    return trained(embedded_encoder(), tmp_path_factory.mktemp("probe") / "check")


def test_a_check_tells_apart_what_it_learnt_and_needs_nothing_but_its_folder(made: Any) -> None:
    _, use = made
    check = load_check(use, CPU)
    given = [picture(label, seed) for seed in range(100, 110) for label in LABELS]
    with torch.inference_mode():
        scores = check.scores(given)
    assert all(set(one) == set(LABELS) for one in scores)
    hits = [one["bad"] >= 0.5 for one in scores]
    assert sum(hit == (at % 2 == 0) for at, hit in enumerate(hits)) >= 18


def test_a_packed_encoder_gives_the_same_bits(made: Any) -> None:
    encoder, use = made
    first, second = open_encoder(encoder, CPU), load_check(use, CPU)._encoder  # type: ignore[attr-defined]
    given = [picture("bad", seed) for seed in range(3)]
    with torch.inference_mode():
        assert torch.equal(first.features(given), second.features(given))
    assert second.said["width"] == first.said["width"] == first.features(given).shape[1]


def test_half_is_where_the_threshold_lies(probe: CheckUse) -> None:
    check = ProbeCheck.load(probe, CPU)
    config = json.loads((Path(probe.path) / "config.json").read_text())
    limit = config["thresholds"]["bad"]
    given = [picture(label, seed) for seed in range(50) for label in LABELS]
    with torch.inference_mode():
        logits = check._encoder.features(given) @ check._weight.T + check._bias
        chances = logits.double().softmax(dim=1)[:, 0]
        scores = torch.tensor([one["bad"] for one in check.scores(given)], dtype=torch.float64)
    assert torch.equal(scores >= 0.5, chances >= limit)
    assert torch.equal(scores.argsort(), chances.argsort())


# What is refused.


def spoilt(probe: CheckUse, folder: Path, **tensors: torch.Tensor) -> CheckUse:
    """A copy with other weights in its head."""
    folder.mkdir(exist_ok=True)
    for file in Path(probe.path).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    head = load_file(folder / HEAD_FILE)
    save_file({**head, **{f"head.{name}": it for name, it in tensors.items()}}, folder / HEAD_FILE)
    return replace(probe, path=str(folder))


def test_a_head_for_another_encoder_is_refused(probe: CheckUse, tmp_path: Path) -> None:
    use = spoilt(probe, tmp_path, weight=torch.zeros(2, 64))
    with pytest.raises(CheckBroken, match="128 numbers for 2 labels") as told:
        load_check(use, CPU)
    assert (told.value.field, told.value.limit) == ("encoder", [2, 128])


def test_numbers_that_are_none_are_refused(probe: CheckUse, tmp_path: Path) -> None:
    use = spoilt(probe, tmp_path, bias=torch.tensor([float("nan"), 0.0]))
    with pytest.raises(CheckBroken, match="aren't numbers"):
        load_check(use, CPU)
    config = json.loads((Path(probe.path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"thresholds": {"bad": 1.0}}))
    (tmp_path / HEAD_FILE).write_bytes((Path(probe.path) / HEAD_FILE).read_bytes())
    with pytest.raises(CheckBroken, match="thresholds that aren't inside"):
        load_check(use, CPU)


def test_weights_that_are_gone_or_others_are_refused(probe: CheckUse, tmp_path: Path) -> None:
    use = spoilt(probe, tmp_path)
    weights = load_file(tmp_path / ENCODER_FILE)
    del weights["body.0.weight"]
    save_file(weights, tmp_path / ENCODER_FILE)
    with pytest.raises(CheckBroken, match="no image encoder"):
        load_check(use, CPU)
    (tmp_path / HEAD_FILE).unlink()
    with pytest.raises(CheckBroken, match="is no probe"):
        load_check(use, CPU)
    with pytest.raises(CheckBroken, match="are mapped"):
        load_check(replace(probe, labels=("bad", "fine")), CPU)


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckBroken, match="no image encoder"):
        open_encoder(tmp_path, CPU)
    clip(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: it for name, it in weights.items() if "patch_embedding" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckBroken, match="patch_embedding"):
        open_encoder(tmp_path, CPU)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckBroken, match="safetensors"):
        open_encoder(tmp_path, CPU)


def test_an_encoder_that_says_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENCODER_WIDTH_MAX", 8)
    with pytest.raises(CheckBroken, match="16 numbers") as told:
        open_encoder(siglip(tmp_path), CPU)
    assert told.value.limit == 8


# The process that training has for it.


def test_an_embedder_gives_what_the_check_will_see(tmp_path: Path) -> None:
    given = picture("bad", 3)
    with Embedder(embedded_encoder(), tmp_path) as embedder:
        rows = [embedder.features(given), embedder.features(given[:40, :30])]
        process = embedder._process
    assert process.poll() is not None
    opened = open_encoder(embedded_encoder(), CPU)
    with torch.inference_mode():
        expected = opened.features([given, given[:40, :30]]).numpy()
    assert np.stack(rows) == pytest.approx(expected, abs=1e-6)
    assert (tmp_path / ENCODER_FILE).is_file()
