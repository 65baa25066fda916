"""PDQ as others compute it, and lists of it that are quick to look things up in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.safety import hash_lists
from calotype.safety.hash_lists import HashList, KnownPictures, added, files_of, read
from calotype.safety.pdq import DISTANCE_MAX, Hashes, distances, from_hex, pdq, to_hex

REFERENCE = 10  # bits: within this of the C++ reference an implementation is right (its README)


# seed, height, width; hash and quality of pdqhash 0.2.8, which is Facebook's C++
OF_THE_REFERENCE = [
    (0, 64, 64, "b146f51281bf4f6b553335fca66c9ccc2b867759513f1315fb98283242d43139", 69),
    (1, 128, 128, "aae4e843c2aef78ab592e5361644b8be9bd53f89c2d914f2e65184650bd303b3", 68),
    (2, 100, 140, "86e79c2b1644850d6495f2e3cbacdc7f1bbe9e5393124b15c64b69720b10c797", 63),
    (3, 300, 500, "ea5e5aa3d1431237ceb8a950ee146095e60fcd8a36c90f27cec5b271e5ce861d", 72),
    (4, 768, 768, "13dff392d058c69fa43a542dc97c15f17a42ea5fca611946da4b14c1b6f43f08", 70),
]


def scene(seed: int, high: int, wide: int) -> NDArray[np.uint8]:
    """Colours by chance, in coarse and fine blobs."""
    rng, total = np.random.default_rng(seed), np.zeros((high, wide, 3))
    for cells in (4, 8, 16, 32):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.array(coarse.resize((wide, high), Image.Resampling.BICUBIC)) / (cells / 4)
    return np.clip(total / 2, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("seed", "high", "wide", "digits", "quality"), OF_THE_REFERENCE)
def test_it_is_what_others_call_pdq(
    seed: int, high: int, wide: int, digits: str, quality: int
) -> None:
    found = pdq(scene(seed, high, wide))
    assert distances(found.positions[0], from_hex(digits)[None])[0] <= REFERENCE
    assert found.quality == pytest.approx(quality, abs=1)


@pytest.mark.parametrize("side", range(8))
def test_all_eight_positions_are_those_of_a_turned_or_mirrored_picture(side: int) -> None:
    pixels = scene(1, 256, 256)
    turned = np.rot90(pixels, side % 4)
    turned = turned[:, ::-1] if side >= 4 else turned
    one, other = pdq(pixels), pdq(np.ascontiguousarray(turned))
    assert distances(other.positions[0], one.positions).min() <= 2
    assert one.quality == pytest.approx(other.quality, abs=2)


def test_digits_there_and_back() -> None:
    one = pdq(scene(2, 100, 140)).positions[0]
    digits = to_hex(one)
    assert len(digits) == 64
    assert (from_hex(digits) == one).all()
    assert (from_hex(digits.upper()) == one).all()
    bit_0 = from_hex("0" * 63 + "1")
    assert distances(bit_0, from_hex("0" * 64)[None])[0] == 1


@pytest.mark.parametrize("digits", ["", "0" * 63, "0" * 65, "x" * 64])
def test_other_digits_are_no_hash(digits: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        from_hex(digits)


def test_blank_and_tiny_pictures_have_no_quality() -> None:
    assert pdq(np.full((64, 64, 3), 90, np.uint8)).quality == 0
    assert pdq(scene(3, 4, 300)).quality == 0
    assert pdq(scene(3, 300, 300)).quality > 20


# Lists.


def far(count: int, seed: int = 0) -> Hashes:
    return np.random.default_rng(seed).integers(0, 2**63, (count, 4), np.uint64) * 2


def near(one: Hashes, bits: int, seed: int = 0) -> Hashes:
    """The hash with so many bits turned."""
    turned = np.random.default_rng(seed).choice(256, bits, replace=False)
    found = one.copy()
    for bit in turned:
        found[bit // 64] ^= np.uint64(1 << int(bit % 64))
    return found


def eight(one: Hashes) -> Hashes:
    return np.concatenate([far(3, 5), one[None], far(4, 6)])


@pytest.mark.parametrize("count", [50, hash_lists.BRUTE_MAX + 500])
def test_what_is_near_is_found_with_and_without_an_index(count: int) -> None:
    hashes = far(count)
    known = KnownPictures([HashList("first", hashes[:20]), HashList("second", hashes[20:])])
    for bits in (0, 1, 16, 30, DISTANCE_MAX):
        for place, name in ((7, "first"), (count - 1, "second"), (20, "second")):
            match = known.nearest(eight(near(hashes[place], bits, seed=bits)))
            assert match is not None, bits
            assert (match.source, match.distance) == (name, bits)
    assert known.nearest(eight(near(hashes[7], DISTANCE_MAX + 1))) is None
    assert known.nearest(far(8, 9)) is None


def test_an_index_says_what_comparing_all_says() -> None:
    hashes = far(hash_lists.BRUTE_MAX + 1)
    index = hash_lists._Index(hashes)
    rng = np.random.default_rng(3)
    for seed in range(60):
        one = near(hashes[int(rng.integers(len(hashes)))], int(rng.integers(0, 40)), seed)
        wanted = set(np.flatnonzero(distances(one, hashes) <= DISTANCE_MAX))
        assert wanted <= set(index.near(one))


def test_no_list_knows_nothing() -> None:
    assert KnownPictures().nearest(far(8)) is None
    assert len(KnownPictures()) == 0


def test_lists_are_taken_in_and_read_again(tmp_path: Path) -> None:
    file, folder = tmp_path / "Some List.csv", tmp_path / "home" / "hashes"
    one, other = (to_hex(each) for each in far(2))
    file.write_text(f"# canaries\n{one},80,benign\n\n{other} 70\n")
    assert added(file, folder, "canaries") == 2
    assert [path.stem for path in files_of([folder])] == ["canaries"]
    assert [to_hex(each) for each in read(folder / "canaries.pdq").hashes] == [one, other]
    assert added(file, folder, "canaries") == 2, "again is in its place"
    with pytest.raises(OperatorError, match="named"):
        added(file, folder, "../escape")


def test_a_list_has_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "long.pdq"
    file.write_text("".join(f"{to_hex(each)}\n" for each in far(5)))
    monkeypatch.setattr(limits, "HASHES_MAX", 4)
    with pytest.raises(OperatorError, match=r"long\.pdq has 5 hashes"):
        read(file)
    monkeypatch.setattr(limits, "HASH_LIST_BYTES_MAX", 60)
    with pytest.raises(OperatorError, match="too large"):
        read(file)
