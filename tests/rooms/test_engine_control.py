"""ControlNets of rows, held to diffusers' own pipelines; and that a row's stay that row's."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from calotype.core.errors import InvalidInput, ModelBroken
from calotype.core.messages import RowControl, RowFailed, RunRow
from calotype.engine.controls import load_control
from calotype.engine.forwards import Adapters, Forwards, Steering, joined
from calotype.engine.pictures import edges, pictures_of
from calotype.engine.rows import Row, start_row
from tests.rooms.engine_models import Drawer, Picture, apart
from tests.rooms.engine_studio import (
    FIRST,
    MASK,
    SECOND,
    SOURCE,
    Studio,
    Wanted,
    controls_of,
    family_of,
    frame,
    make_control,
    pil,
)

pytestmark = pytest.mark.usefixtures("one_thread")

CONTROLLED = {
    "sd15": diffusers.StableDiffusionControlNetPipeline,
    "sdxl": diffusers.StableDiffusionXLControlNetPipeline,
    "sd3": diffusers.StableDiffusion3ControlNetPipeline,
    "flux": diffusers.FluxControlNetPipeline,
}
FROM_PICTURE = {
    "sd15": diffusers.StableDiffusionControlNetImg2ImgPipeline,
    "sdxl": diffusers.StableDiffusionXLControlNetImg2ImgPipeline,
    "flux": diffusers.FluxControlNetImg2ImgPipeline,
}
REPAINTED = {
    "sd15": diffusers.StableDiffusionControlNetInpaintPipeline,
    "sdxl": diffusers.StableDiffusionXLControlNetInpaintPipeline,
    "flux": diffusers.FluxControlNetInpaintPipeline,
}


def plain_arguments(controls: tuple[RowControl, ...], field: str) -> dict[str, Any]:
    """As diffusers' pipelines are told: alone for one, lists for several."""
    told: dict[str, list[Any]] = {
        field: [pil(it) for it in (FIRST, SECOND)[: len(controls)]],
        "controlnet_conditioning_scale": [it.weight for it in controls],
        "control_guidance_start": [it.start for it in controls],
        "control_guidance_end": [it.end for it in controls],
    }
    return told if len(controls) > 1 else {name: values[0] for name, values in told.items()}


def plain_nets(studio: Studio, name: str, controls: tuple[RowControl, ...]) -> Any:
    kind = {
        "sd15": diffusers.ControlNetModel,
        "sdxl": diffusers.ControlNetModel,
        "sd3": diffusers.SD3ControlNetModel,
        "flux": diffusers.FluxControlNetModel,
    }[family_of(name)]
    nets = [kind.from_pretrained(it.path) for it in controls]
    return nets if len(nets) > 1 else nets[0]


@pytest.fixture
def _means_for_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """SD3's pipeline draws a control picture's latents from no seed at all; we take their mean."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda it, *_, **__: it.mode())


@pytest.mark.usefixtures("_means_for_samples")
@pytest.mark.parametrize(
    ("name", "sampler", "guidance", "wanted"),
    [
        ("sdxl", "euler", 5.0, [(1.0, 0.0, 1.0)]),
        ("sdxl", "dpmpp_2m", 5.0, [(0.6, 0.2, 0.7), (1.3, 0.0, 0.5)]),
        ("sdxl", "heun", 1.0, [(0.6, 0.2, 0.7)]),
        ("sd15", "ddim", 5.0, [(0.7, 0.0, 1.0)]),
        ("sd15", "euler_a", 5.0, [(0.7, 0.4, 1.0), (0.5, 0.0, 0.6)]),
        ("sd3", "flow_euler", 5.0, [(0.7, 0.0, 0.8)]),
        ("sd3", "flow_euler", 1.0, [(0.7, 0.0, 0.8), (1.2, 0.0, 1.0)]),
        ("flux", "flow_euler", 3.5, [(0.7, 0.0, 0.8)]),
        ("flux", "flow_euler", 3.5, [(0.7, 0.0, 0.8), (1.2, 0.0, 1.0)]),
        ("vignette", "dpmpp_2m", 5.0, [(1.0, 0.0, 1.0)]),
        ("vignette", "euler", 5.0, [(0.6, 0.2, 0.7), (1.3, 0.0, 0.5)]),
    ],
)
def test_a_controlled_row_is_what_diffusers_makes_of_it(
    studio: Studio, name: str, sampler: str, guidance: float, wanted: list[Wanted]
) -> None:
    pictures, blob = frame(*(FIRST, SECOND)[: len(wanted)])
    controls = controls_of(studio, name, wanted)
    drawer = studio.drawer(name)
    row = drawer.row(
        sampler=sampler, guidance=guidance, steps=6, pictures=pictures, controls=controls
    )
    family = family_of(name)
    plain = studio.plain(name, CONTROLLED[family], controlnet=plain_nets(studio, name, controls))
    field = "control_image" if family in ("sd3", "flux") else "image"
    expected = studio.drawn(name, plain, row, **plain_arguments(controls, field))
    ours = drawer.ours(row, blob)
    assert apart(ours, expected) <= 1
    bare = drawer.ours(drawer.row("bare", sampler=sampler, guidance=guidance, steps=6))
    assert apart(ours, bare) > 8, "the ControlNet must show"


@pytest.mark.usefixtures("_means_for_samples")
@pytest.mark.parametrize(
    ("name", "sampler", "kinds"),
    [
        ("sdxl", "euler_a", FROM_PICTURE),
        ("sdxl", "dpmpp_2m", REPAINTED),
        ("sd15", "ddim", FROM_PICTURE),
        ("sd15", "euler", REPAINTED),
        ("sd15-inpainting", "euler", REPAINTED),
        ("flux", "flow_euler", FROM_PICTURE),
        ("flux", "flow_euler", REPAINTED),
    ],
)
def test_a_controlled_row_from_a_picture_is_what_diffusers_makes_of_it(
    studio: Studio, name: str, sampler: str, kinds: dict[str, Any]
) -> None:
    controls = controls_of(studio, name, [(0.7, 0.0, 0.8)], first=2)
    pictures, blob = frame(SOURCE, MASK, FIRST)
    told: dict[str, Any] = {"image": pil(SOURCE), "strength": 0.7}
    mask = None
    if kinds is REPAINTED:
        told["mask_image"], mask = pil(MASK), 1
    drawer = studio.drawer(name)
    row = drawer.row(
        sampler=sampler, steps=6, pictures=pictures, controls=controls, source=0, mask=mask
    )
    row = replace(row, strength=0.7)
    plain = studio.plain(
        name, kinds[family_of(name)], controlnet=plain_nets(studio, name, controls)
    )
    told |= plain_arguments(controls, "control_image")
    assert apart(drawer.ours(row, blob), studio.drawn(name, plain, row, **told)) <= 1


def asked(drawer: Drawer, control: RowControl, **changes: Any) -> tuple[RunRow, bytes]:
    pictures, blob = frame(FIRST)
    return drawer.row(pictures=pictures, controls=(control,), **changes), blob


def test_edges_are_found_if_the_row_wants_them(studio: Studio) -> None:
    (control,) = controls_of(studio, "sdxl", [(1.0, 0.0, 1.0)])
    drawer = studio.drawer("sdxl")
    row, blob = asked(drawer, replace(control, canny=True))
    found = edges(torch.from_numpy(FIRST)).numpy()
    pictures, _ = frame(found)
    by_hand = drawer.row("by hand", pictures=pictures, controls=(control,))
    expected = drawer.ours(by_hand, found.tobytes())
    assert np.array_equal(drawer.ours(row, blob), expected)


def started(drawer: Drawer, row: RunRow, blob: bytes = b"") -> Row:
    controls = [load_control(wanted, drawer.model) for wanted in row.controls]
    with torch.inference_mode():
        return start_row(
            row, drawer.model, drawer.engine._encodings, pictures_of(row, blob), controls
        )


def run(drawer: Drawer, forwards: Forwards) -> torch.Tensor:
    with torch.inference_mode():
        return drawer.model.denoise(forwards.padded(8))


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "flux"])
def test_who_has_no_control_gets_exactly_nothing_from_a_neighbours(
    studio: Studio, name: str
) -> None:
    drawer = studio.drawer(name)
    (control,) = controls_of(studio, name, [(1.0, 0.0, 1.0)])
    bare = started(drawer, drawer.row("bare", seed=3)).forwards()
    led = started(drawer, *asked(drawer, control)).forwards()
    unled = led.with_adapters(Adapters())
    beside_led, beside_unled = (run(drawer, joined((bare, it))) for it in (led, unled))
    count = len(bare)
    assert torch.equal(beside_led[:count], beside_unled[:count])
    assert not torch.equal(beside_led[count : count + len(led)], beside_unled[count:][: len(led)])


def test_controls_are_added_in_their_rows_order_whatever_the_neighbours(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    first, second = controls_of(studio, "sdxl", [(0.3, 0.0, 1.0), (1.1, 0.0, 1.0)])
    pictures, blob = frame(FIRST, SECOND)
    row = started(drawer, drawer.row(pictures=pictures, controls=(first, second)), blob)
    mine = row.forwards()
    turned = tuple(
        Steering(it.control, it.picture, 0.9) for it in reversed(mine.adapters[0].controls)
    )
    other = mine.with_adapters(Adapters(controls=turned))
    alone, beside = run(drawer, mine), run(drawer, joined((other, mine)))
    assert torch.equal(alone[:2], beside[2:4])


CALLS = itertools.count()
KINDS_OF_ROWS = ("text", "image", "repaint", "led", "led twice", "led repaint")


class Mixed:
    """Rows of all kinds on one engine, and how each looks when it is alone."""

    def __init__(self, studio: Studio) -> None:
        self.drawer = studio.drawer("sdxl")
        self._one, self._two = controls_of(
            studio, "sdxl", [(0.6, 0.0, 0.7), (1.2, 0.3, 1.0)], first=2
        )
        self._alone: dict[tuple[str, int], Picture] = {}

    def row(self, kind: str, seed: int) -> tuple[RunRow, bytes]:
        pictures, blob = frame(SOURCE, MASK, FIRST, SECOND)
        sampler = ("euler", "dpmpp_2m", "euler_a", "heun")[seed]
        kinds: dict[str, dict[str, Any]] = {
            "text": {},
            "image": {"source": 0, "strength": 0.7},
            "repaint": {"source": 0, "mask": 1},
            "led": {"controls": (self._one,), "guidance": 1.0},
            "led twice": {"controls": (self._two, self._one)},
            "led repaint": {"source": 0, "mask": 1, "controls": (self._two,)},
        }
        name = f"{kind} {seed} {next(CALLS)}"
        fields = {"sampler": sampler, "seed": seed, "pictures": pictures, **kinds[kind]}
        return self.drawer.row(name, **fields), blob

    def alone(self, kind: str, seed: int) -> Picture:
        if (kind, seed) not in self._alone:
            self._alone[kind, seed] = self.drawer.ours(*self.row(kind, seed))
        return self._alone[kind, seed]


@pytest.fixture(scope="module")
def mixed(studio: Studio) -> Mixed:
    return Mixed(studio)


some_row = st.tuples(st.sampled_from(KINDS_OF_ROWS), st.integers(0, 3), st.integers(0, 2))


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(some_row, min_size=2, max_size=5))
def test_a_row_has_the_same_bits_alone_and_among_rows_of_all_kinds(
    mixed: Mixed, crowd: list[tuple[str, int, int]]
) -> None:
    expected = [mixed.alone(kind, seed) for kind, seed, _ in crowd]
    rows = []
    for kind, seed, ticks in crowd:
        row, blob = mixed.row(kind, seed)
        rows.append(row)
        mixed.drawer.engine.handle(row, blob)
        for _ in range(ticks):
            mixed.drawer.engine.tick()
    mixed.drawer.finish()
    for row, alone in zip(rows, expected, strict=True):
        assert np.array_equal(mixed.drawer.picture(row), alone), row.row


def spoilt(folder: Path, name: str, value: float) -> Path:
    file = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights[name].view(-1)[0] = value
    save_file(weights, file)
    return folder


@pytest.mark.parametrize("index", ["", ".fp16"])
def test_a_control_of_half_precision_or_in_parts_is_read(studio: Studio, index: str) -> None:
    path, drawer = studio.folder / f"parts-{next(CALLS)}", studio.drawer("sdxl")
    make_control(drawer, path, 1)
    plain = path / "diffusion_pytorch_model.safetensors"
    weights = load_file(plain)
    plain.rename(path / "diffusion_pytorch_model.fp16.safetensors")
    wanted = RowControl(path.name, str(path), "build", 0)
    half = load_control(wanted, drawer.model).net.net.state_dict()
    (path / "diffusion_pytorch_model.fp16.safetensors").unlink()
    names = sorted(weights)
    for at in (0, 1):
        save_file({name: weights[name] for name in names[at::2]}, path / f"{at}.safetensors")
    parts = {name: f"{at % 2}.safetensors" for at, name in enumerate(names)}
    told = json.dumps({"weight_map": parts})
    (path / f"diffusion_pytorch_model.safetensors.index{index}.json").write_text(told)
    in_parts = load_control(wanted, drawer.model).net.net.state_dict()
    assert half.keys() == in_parts.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(half[name], tensor)
        assert torch.equal(in_parts[name], tensor)


def broken_control(studio: Studio, fault: str) -> Path:
    """A folder that can't be used, made new: of another base, with NaN, without weights, ..."""
    path, drawer = studio.folder / f"broken-{next(CALLS)}", studio.drawer("sdxl")
    if fault == "another family":
        return make_control(studio.drawer("flux"), path, 1)
    if fault == "another base":
        return make_control(drawer, path, 1, cross_attention_dim=32)
    make_control(drawer, path, 1)
    match fault:
        case "nan":
            spoilt(path, "conv_in.weight", float("nan"))
        case "no weights":
            (path / "diffusion_pytorch_model.safetensors").unlink()
        case "no config":
            (path / "config.json").write_text("{")
        case "another kind":
            (path / "config.json").write_text('{"_class_name": "ControlNetUnionModel"}')
        case "cut off":
            file = path / "diffusion_pytorch_model.safetensors"
            file.write_bytes(file.read_bytes()[:1000])
    return path


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("another family", InvalidInput, "another base: flux"),
        ("another base", InvalidInput, "another base: its cross_attention_dim is 32, not 64"),
        ("nan", ModelBroken, "conv_in.weight isn't finite"),
        ("no weights", ModelBroken, "no safetensors with weights in"),
        ("no config", ModelBroken, "no readable config.json"),
        ("another kind", ModelBroken, "ControlNetUnionModel is not supported"),
        ("cut off", ModelBroken, "Error"),
    ],
)
def test_a_control_that_cant_be_used_fails_its_row_alone(
    studio: Studio, mixed: Mixed, fault: str, kind: type[Exception], reason: str
) -> None:
    path, drawer = broken_control(studio, fault), studio.drawer("sdxl")
    control = RowControl(path.name, str(path), "build", 0)
    with pytest.raises(kind, match=reason):
        load_control(control, drawer.model)
    expected = mixed.alone("led", 0)
    beside, blob = mixed.row("led", 0)
    drawer.engine.handle(beside, blob)
    drawer.engine.tick()
    row, bytes_of_row = asked(drawer, control)
    row = replace(row, row=path.name)
    drawer.engine.handle(row, bytes_of_row)
    drawer.finish()
    (failed,) = [it for it, _ in drawer.heard if isinstance(it, RowFailed) and it.row == row.row]
    assert reason.split(":", maxsplit=1)[0].split(maxsplit=1)[0] in failed.reason
    assert not failed.retryable
    assert np.array_equal(drawer.picture(beside), expected)
