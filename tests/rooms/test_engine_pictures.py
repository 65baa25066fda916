"""Rows that begin from a picture, held to diffusers' image-to-image and inpainting pipelines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from calotype.core import limits
from calotype.core.errors import InternalError, InvalidInput
from calotype.core.messages import RowControl, RowFailed, RowPicture, RunRow
from calotype.engine.colours import coarse, recoloured
from calotype.engine.pictures import edges, mask_of, pictures_of, signal
from calotype.engine.tiles import in_tiles
from tests.rooms.engine_bench import SIZE
from tests.rooms.engine_models import Picture, apart
from tests.rooms.engine_studio import (
    IMAGE_TO_IMAGE,
    INPAINT,
    MASK,
    SOURCE,
    Studio,
    family_of,
    frame,
    photo,
    pil,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FLOW = ("sd3", "flux")


def from_picture(studio: Studio, name: str, **changes: Any) -> tuple[RunRow, bytes]:
    pictures, blob = frame(SOURCE)
    return studio.drawer(name).row(**{"pictures": pictures, "source": 0, **changes}), blob


def repainted(studio: Studio, name: str, **changes: Any) -> tuple[RunRow, bytes]:
    pictures, blob = frame(SOURCE, MASK)
    row = studio.drawer(name).row(pictures=pictures, source=0, mask=1, **changes)
    return row, blob


@pytest.mark.parametrize(
    ("name", "sampler", "strength"),
    [
        *(("sdxl", sampler, 0.5) for sampler in ("ddim", "dpmpp_2m", "dpmpp_sde", "euler")),
        *(("sdxl", sampler, 0.8) for sampler in ("euler_a", "heun", "unipc", "lcm", "tcd")),
        ("sdxl", "euler", 1.0),
        ("sd15", "ddim", 0.5),
        ("sd15", "dpmpp_2m_karras", 0.7),
        ("sd3", "flow_euler", 0.55),
        ("sd3", "flow_heun", 0.55),
        ("sd3", "flow_euler", 1.0),
        ("flux", "flow_euler", 0.55),
        ("flux", "flow_euler", 1.0),
        ("vignette", "dpmpp_2m", 0.5),
        ("vignette", "euler_a", 0.8),
    ],
)
def test_a_row_from_a_picture_is_what_diffusers_makes_of_it(
    studio: Studio, name: str, sampler: str, strength: float
) -> None:
    row, blob = from_picture(studio, name, sampler=sampler, strength=strength, steps=6)
    plain = studio.plain(name, IMAGE_TO_IMAGE[family_of(name)])
    eta = {"eta": 0.3} if sampler == "tcd" else {}  # its paper's, and its scheduler's own
    expected = studio.drawn(name, plain, row, image=pil(SOURCE), strength=strength, **eta)
    assert apart(studio.drawer(name).ours(row, blob), expected) <= 1


@pytest.mark.parametrize(
    ("name", "sampler", "strength"),
    [
        *(("sdxl", sampler, 1.0) for sampler in ("ddim", "dpmpp_2m", "euler", "euler_a", "heun")),
        *(("sdxl", sampler, 0.6) for sampler in ("dpmpp_sde", "euler", "lcm", "unipc")),
        ("sd15", "ddim", 1.0),
        ("sd15", "euler_a", 0.6),
        ("sd3", "flow_euler", 1.0),
        ("sd3", "flow_heun", 0.6),
        ("flux", "flow_euler", 1.0),
        ("flux", "flow_euler", 0.6),
        ("vignette", "dpmpp_2m", 1.0),
        ("vignette", "euler_a", 0.6),
        ("sd15-inpainting", "ddim", 1.0),
        ("sd15-inpainting", "euler_a", 0.6),
        ("sdxl-inpainting", "euler", 1.0),
        ("sdxl-inpainting", "dpmpp_2m", 0.6),
    ],
)
def test_a_repainted_row_is_what_diffusers_makes_of_it(
    studio: Studio, name: str, sampler: str, strength: float
) -> None:
    row, blob = repainted(studio, name, sampler=sampler, strength=strength, steps=6)
    plain = studio.plain(name, INPAINT[family_of(name)])
    if name == "vignette":  # diffusers' pipeline takes latents of 4 channels only, or says so
        plain.unet.register_to_config(in_channels=4)
    expected = studio.drawn(
        name, plain, row, image=pil(SOURCE), mask_image=pil(MASK), strength=strength
    )
    assert apart(studio.drawer(name).ours(row, blob), expected) <= 1


def test_a_picture_that_may_not_change_comes_back_and_where_it_may_it_does(studio: Studio) -> None:
    drawer = studio.drawer("vignette")
    source = drawer.ours(drawer.row("source", steps=8))
    corner = np.zeros((SIZE, SIZE, 1), np.uint8)
    corner[:24, :24] = 255
    pictures, blob = frame(source, corner)
    row = drawer.row(
        "repainted", pictures=pictures, source=0, mask=1, steps=8, prompt="snow", seed=5
    )
    change = np.abs(drawer.ours(row, blob).astype(int) - source)
    assert change[40:, 40:].mean() < 4, "what the autoencoder loses"
    assert change[:24, :24].mean() > 12


def test_a_text_row_of_an_inpainting_model_may_change_everything(studio: Studio) -> None:
    drawer = studio.drawer("sd15-inpainting")
    everywhere = np.full((SIZE, SIZE, 1), 255, np.uint8)
    pictures, blob = frame(SOURCE, everywhere)
    masked = drawer.ours(drawer.row("masked", pictures=pictures, source=0, mask=1), blob)
    assert np.array_equal(drawer.ours(drawer.row("text")), masked)


def told(**changes: Any) -> RunRow:
    """A row of 64 x 64 pixels that is never run."""
    pictures = (RowPicture(SIZE, SIZE),)
    row = RunRow("r", "m", "", "", SIZE, SIZE, 4, 1.0, "euler", 1, "fast", source=0)
    return replace(row, **{"pictures": pictures, **changes})


HUGE = RowPicture(20_000, 20_000)
FITS = RowPicture(SIZE, SIZE)


@pytest.mark.parametrize(
    ("changes", "field", "limit"),
    [
        ({"pictures": (RowPicture(SIZE + 8, SIZE),)}, "source", [SIZE, SIZE]),
        ({"pictures": (RowPicture(SIZE, SIZE, 1),)}, "source", 3),
        ({"pictures": (FITS, RowPicture(SIZE, 8, 1)), "mask": 1}, "mask", [SIZE, SIZE]),
        ({"pictures": (FITS, FITS), "mask": 1}, "mask", 1),
        ({"source": None, "mask": 0}, "mask", None),
        (
            {"pictures": (FITS, HUGE), "controls": (RowControl("c", "", "", 1),)},
            "controls",
            [SIZE, SIZE],
        ),
        ({"pictures": (FITS,) * 9}, "pictures", limits.PICTURES_PER_ROW_MAX),
    ],
)
def test_a_picture_that_doesnt_fit_its_row_is_refused_before_a_byte_of_it_is_read(
    changes: dict[str, Any], field: str, limit: Any
) -> None:
    with pytest.raises(InvalidInput) as refused:
        pictures_of(told(**changes), b"")
    assert (refused.value.field, refused.value.limit) == (field, limit)


def test_a_frame_that_tells_of_other_pictures_than_it_has_is_a_fault() -> None:
    with pytest.raises(InternalError, match="bytes of pictures"):
        pictures_of(told(), b"\0" * 10)
    with pytest.raises(InternalError, match="picture 1 of 1"):
        pictures_of(told(source=1), b"")


@pytest.mark.parametrize(
    "changes",
    [{"pictures": (RowPicture(8, 8),)}, {"strength": 0.1}, {"strength": -1.0}],
)
def test_a_row_whose_source_cant_be_fails_for_good_and_its_neighbour_keeps_its_bits(
    studio: Studio, changes: dict[str, Any]
) -> None:
    drawer = studio.drawer("sdxl")
    alone, blob = from_picture(studio, "sdxl", row="alone", strength=0.9)
    expected = drawer.ours(alone, blob)
    beside, _ = from_picture(studio, "sdxl", row="beside", strength=0.9)
    wrong, _ = from_picture(studio, "sdxl", row="wrong")
    drawer.engine.handle(beside, blob)
    drawer.engine.tick()
    drawer.engine.handle(replace(wrong, **changes), blob)
    drawer.finish()
    failed = [it for it, _ in drawer.heard if isinstance(it, RowFailed) and it.row == "wrong"][-1]
    assert not failed.retryable
    assert np.array_equal(drawer.picture(beside), expected)


def test_masks_are_white_from_the_middle_grey_on_and_edges_have_three_channels() -> None:
    grey = torch.tensor([[[127], [128]]], dtype=torch.uint8)
    assert mask_of(grey).tolist() == [[[[0.0, 1.0]]]]
    found = edges(torch.from_numpy(photo(4)))
    assert found.shape == (SIZE, SIZE, 3)
    assert set(found.unique().tolist()) <= {0, 255}


@pytest.mark.parametrize(("cells", "tile"), [((40, 56), 16), ((16, 17), 16), ((9, 64), 16)])
def test_tiles_of_what_they_dont_change_are_the_whole(cells: tuple[int, int], tile: int) -> None:
    whole = torch.rand(1, 3, *cells)
    seen: list[torch.Size] = []

    def doubled(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[-2:])
        return part.repeat_interleave(2, -1).repeat_interleave(2, -2)

    joined = in_tiles(doubled, whole, cells, tile)
    assert torch.allclose(joined, doubled(whole), atol=1e-5)
    assert {tuple(shape) for shape in seen[:-1]} == {(min(tile, cells[0]), min(tile, cells[1]))}


def test_a_picture_in_tiles_has_no_seams(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    coder = studio.drawer("vignette").model.autoencoder
    picture = signal(torch.from_numpy(photo(5, 640, 384)))
    with torch.inference_mode():
        latents = coder.encode(picture, None)
        whole = coder.decode(latents)
        monkeypatch.setattr(coder, "_tile", 48)  # latents: 384 pixels
        assert torch.allclose(coder.encode(picture, None), latents, atol=0.05)
        apart_by = (coder.decode(latents) - whole).abs().amax(dim=0) * 127.5
    assert apart_by.max() < 0.5, "of 255, anywhere"


def test_tiles_draw_from_the_generator_as_the_whole_does(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    coder = studio.drawer("sdxl").model.autoencoder
    picture = signal(torch.from_numpy(photo(5, 192, 128)))
    states = []
    for tile in (1024, 8):
        monkeypatch.setattr(coder, "_tile", tile)
        generator = torch.Generator().manual_seed(1)
        with torch.inference_mode():
            latents = coder.encode(picture, generator)
        assert latents.shape == (1, 4, 16, 24)
        states.append(generator.get_state())
    skipped = torch.Generator().manual_seed(1)
    coder.skip((1, 4, 16, 24), skipped)
    assert all(torch.equal(state, skipped.get_state()) for state in states)


def test_a_redrawn_picture_may_keep_its_sources_colours(studio: Studio) -> None:
    drawer = studio.drawer("vignette")
    large = photo(6, 128, 128)
    pictures, blob = frame(large)
    fields = {"pictures": pictures, "source": 0, "width": 128, "height": 128, "steps": 10}
    row = drawer.row("free", strength=0.3, **fields)
    free, kept = (drawer.ours(it, blob) for it in (row, replace(row, keeps_colours=True)))
    shift, left = (np.abs(colours_of(it) - colours_of(large)).mean() for it in (free, kept))
    assert left < 0.3 * shift


def colours_of(picture: Picture) -> Any:
    return coarse(signal(torch.from_numpy(picture.copy()))[0]).numpy()


def test_what_is_fine_in_a_picture_isnt_recoloured() -> None:
    picture = torch.rand(3, 48, 40) - 0.5
    assert torch.allclose(recoloured(picture, coarse(picture)), picture, atol=1e-6)
    brighter = recoloured(picture, coarse(picture) + 0.25)
    assert torch.allclose(brighter, picture + 0.25, atol=1e-6)
