"""Parts to learn from, to calibrate by and to measure on, such that near copies stay together.

Copies of the same pixels are left out; pictures within PDQ's distance of each other, in any of the
eight positions, are of one group, and a group is in one part. Otherwise a crop of what was learnt
would be measured on, and the figures would be better than the check.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import InvalidInput
from calotype.safety.hash_lists import HashList, KnownPictures
from calotype.safety.pdq import PdqHash, pdq
from calotype.safety.training.labelled import Labelled, said_of

LEARNT, CALIBRATION, MEASURED = "learnt", "calibration", "measured"
SHARES = {LEARNT: 0.6, CALIBRATION: 0.2, MEASURED: 0.2}
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601


@dataclass(frozen=True)
class Example:
    """A labelled picture, looked at."""

    of: Labelled
    file_sha256: str
    pixels_sha256: str  # of height, width and RGB
    hashed: PdqHash
    brightness: float  # mean luma, 0..255
    side_px: int  # the longer one
    features: NDArray[np.float32]  # the encoder's row


def example(
    of: Labelled, data: bytes, pixels: NDArray[np.uint8], features: NDArray[np.float32]
) -> Example:
    """Look at a picture: its file's bytes, its pixels (height x width x 3), its row."""
    height, width, _ = pixels.shape
    whole = hashlib.sha256(f"{height}x{width}:".encode() + pixels.tobytes())
    return Example(
        of,
        hashlib.sha256(data).hexdigest(),
        whole.hexdigest(),
        pdq(pixels),
        float((pixels.reshape(-1, 3).mean(axis=0, dtype=np.float64) * _LUMA).sum()),
        max(height, width),
        features,
    )


def without_copies(examples: Sequence[Example]) -> list[Example]:
    """Each picture once, the first by name; raises InvalidInput for one under two labels."""
    kept: dict[str, Example] = {}
    torn = []
    for each in examples:
        first = kept.setdefault(each.pixels_sha256, each)
        if first.of.label != each.of.label:
            torn.append((each.of.name, f"the same picture as {first.of.name}"))
    if torn:
        raise InvalidInput(
            f"pictures lie under two labels: {said_of(torn)}", field="data", limit="one label each"
        )
    return list(kept.values())


def groups(examples: Sequence[Example]) -> list[int]:
    """For each picture the place of the first one of its group of near copies.

    A picture with nothing to hash (PDQ's quality 0) is a group of its own.
    """
    found = list(range(len(examples)))

    def root(at: int) -> int:
        while found[at] != at:
            found[at] = found[found[at]]
            at = found[at]
        return at

    hashable = [at for at, each in enumerate(examples) if each.hashed.quality > 0]
    if hashable:
        every = np.stack([examples[at].hashed.positions[0] for at in hashable])
        known = KnownPictures([HashList("examples", every)])
        for at in hashable:
            for near in known.near(examples[at].hashed.positions):
                one, other = sorted((root(at), root(hashable[near])))
                found[other] = one
    return [root(at) for at in range(len(found))]


def split(examples: Sequence[Example], of_group: Sequence[int], seed: int) -> list[str]:
    """For each picture its part; by label and group, by chance that comes again with the seed.

    Of each label every part gets its share of pictures as nearly as whole groups allow, the largest
    groups first. A group with several labels counts for the one that most of it has.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for at, group in enumerate(of_group):
        members[group].append(at)
    by_label: dict[str, list[int]] = defaultdict(list)
    for group, inside in members.items():
        counted = Counter(examples[at].of.label for at in inside)
        by_label[max(sorted(counted), key=lambda label: counted[label])].append(group)
    parts = [LEARNT] * len(examples)
    for _, mine in sorted(by_label.items()):
        mine.sort(key=lambda group: (-len(members[group]), _chance(seed, examples[group])))
        total = sum(len(members[group]) for group in mine)
        left = {part: share * total for part, share in SHARES.items()}
        for group in mine:
            part = max(left, key=lambda name: left[name])  # the first of equals
            left[part] -= len(members[group])
            for at in members[group]:
                parts[at] = part
    return parts


def across_labels(examples: Sequence[Example], of_group: Sequence[int]) -> list[tuple[str, str]]:
    """Pairs of near copies that people labelled differently, by name."""
    first: dict[int, Example] = {}
    found = []
    for each, group in zip(examples, of_group, strict=True):
        known = first.setdefault(group, each)
        if known.of.label != each.of.label:
            found.append((known.of.name, each.of.name))
    return found


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 over labels and files' hashes, whatever the files are called."""
    lines = sorted(f"{each.of.label} {each.file_sha256}\n" for each in examples)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _chance(seed: int, one: Example) -> str:
    return hashlib.sha256(f"{seed} {one.pixels_sha256}".encode()).hexdigest()
