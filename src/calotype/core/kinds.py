"""What a job does: its kind, and what each kind needs and brings along."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Variations and upscales begin from a finished image, their parent."""

    TEXT = "text"
    IMAGE = "image"  # from a source picture
    INPAINT = "inpaint"  # the same, but only where its mask is white
    VARY_SUBTLE = "vary_subtle"
    VARY_STRONG = "vary_strong"
    UPSCALE_2X = "upscale_2x"
    UPSCALE_4X = "upscale_4x"


# What a kind begins from, by the names of an Ask's fields; the others of the three it doesn't take.
BEGINS_FROM: dict[Kind, tuple[str, ...]] = {
    Kind.TEXT: (),
    Kind.IMAGE: ("source",),
    Kind.INPAINT: ("source", "mask"),
    Kind.VARY_SUBTLE: ("parent",),
    Kind.VARY_STRONG: ("parent",),
    Kind.UPSCALE_2X: ("parent",),
    Kind.UPSCALE_4X: ("parent",),
}
UPSCALES = {Kind.UPSCALE_2X: 2, Kind.UPSCALE_4X: 4}  # by how much each side grows
OF_A_PARENT = tuple(kind for kind, needs in BEGINS_FROM.items() if "parent" in needs)

# Where the caller leaves it open: the share of the steps, and of noise, that the source is given.
# Chosen by eye, with the embedded model.
STRENGTHS = {
    Kind.TEXT: 1.0,  # from noise alone
    Kind.IMAGE: 0.7,  # its layout stays, what the words say is drawn
    Kind.INPAINT: 1.0,  # less leaves the light of what was there
    Kind.VARY_SUBTLE: 0.5,  # another roof, another cloud
    Kind.VARY_STRONG: 0.85,  # another sky; the subject keeps its place
    Kind.UPSCALE_2X: 0.1,  # crisp; from 0.2 on it draws a second house into the first
    Kind.UPSCALE_4X: 0.1,
}
IMAGES = {Kind.VARY_SUBTLE: 4, Kind.VARY_STRONG: 4}  # how many, if not one
