"""Decoders' marks as they are read: the test that calls a picture marked, and their folders.

Pure NumPy: extractors here are random, which is all that the arithmetic needs. That trained ones
read what decoders draw is in ``test_marking``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.provenance import stable_signature, stable_signature_keys
from calotype.provenance.stable_signature import DecoderMark, Pixels, find, needed, tail

BITS = 32
LAYERS = ((3, 12), (12, 48))  # in, out
NOW = datetime(2026, 11, 26, tzinfo=UTC)


def tensors(seed: int = 0, bits: int = BITS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {
        f"conv{k}.{name}": rng.normal(0, 0.3, shape)
        for k, (inputs, outputs) in enumerate(LAYERS)
        for name, shape in (("weight", (outputs, inputs, 3, 3)), ("bias", (outputs,)))
    }
    found |= {"head.weight": rng.normal(0, 1, (bits, 48)), "head.bias": rng.normal(0, 0.1, bits)}
    return {name: it.astype(np.float32) for name, it in found.items()}


def a_run(folder: Path, seed: int = 0, given: dict[str, np.ndarray] | None = None) -> Path:
    """What a training leaves; its decoder is never read here."""
    folder.mkdir(exist_ok=True)
    file = folder / stable_signature_keys.EXTRACTOR
    save_file(given or tensors(seed), file, {"strides": "[2, 2]"})
    save_file({"decoder.w": np.zeros(1, np.float32)}, folder / stable_signature_keys.DECODER)
    return folder


def a_picture(seed: int, side: int = 64) -> Pixels:
    """Soft blobs, as noise would read the same everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3))
    return np.kron(coarse, np.ones((side // 8, side // 8, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> DecoderMark:
    """One whitened on such pictures, whose bits are those that it reads in picture 0."""
    base = tmp_path_factory.mktemp("mark")
    keep, nothing = stable_signature_keys.keep, [0] * BITS
    plain = keep(base / "kept", a_run(base / "run"), nothing, made_for="", made_at=NOW)
    logits = np.stack([plain.extractor.logits(a_picture(k)) for k in range(100, 400)])
    variances, axes = np.linalg.eigh(np.cov(logits.T))
    turned = (axes / np.sqrt(variances)).T
    given = tensors()
    given["head.bias"] = (turned @ (given["head.bias"] - logits.mean(0))).astype(np.float32)
    given["head.weight"] = (turned @ given["head.weight"]).astype(np.float32)
    run = a_run(base / "whitened", given=given)
    plain = keep(base / "kept", run, nothing, made_for="", made_at=NOW)
    bits = [int(logit > 0) for logit in plain.extractor.logits(a_picture(0))]
    return keep(base / "kept", run, bits, made_for="vae-1", made_at=NOW)


@pytest.mark.parametrize("bits", [32, 40, 48])
def test_the_tail_is_that_of_fair_coins(bits: int) -> None:
    for right in range(bits + 1):
        exact = Fraction(sum(comb(bits, k) for k in range(right, bits + 1)), 2**bits)
        assert tail(right, bits) == pytest.approx(float(exact), rel=1e-12)
    least = needed(bits)
    assert stable_signature.LOOKS * tail(least, bits) <= stable_signature.FALSE_MAX
    assert stable_signature.LOOKS * tail(least - 1, bits) > stable_signature.FALSE_MAX


def test_too_few_bits_are_never_enough() -> None:
    assert needed(16) == 17
    assert needed(limits.MARK_BITS_MIN, limits.DECODER_MARKS_MAX) <= limits.MARK_BITS_MIN


def test_a_mark_is_found_and_mirrored_too(mark: DecoderMark) -> None:
    picture = a_picture(0)
    found = find(picture, [mark])
    assert found is not None
    assert (found.key, found.right, found.bits, found.is_mirrored) == (mark.key, BITS, BITS, False)
    assert found.false_max == stable_signature.LOOKS * 0.5**BITS
    assert stable_signature.LOOKS == 34
    mirrored = find(picture[:, ::-1], [mark])
    assert mirrored is not None
    assert mirrored.is_mirrored


def test_other_pictures_and_small_ones_have_none(mark: DecoderMark) -> None:
    assert find(a_picture(1), [mark]) is None
    assert find(a_picture(0)[:31], [mark]) is None
    assert find(a_picture(0), []) is None


def test_what_is_looked_for_beside_costs_certainty(mark: DecoderMark) -> None:
    alone, beside = find(a_picture(0), [mark]), find(a_picture(0), [mark, mark, mark])
    assert alone is not None
    assert beside is not None
    assert beside.false_max == 3 * alone.false_max


def test_over_keys_an_unmarked_picture_has_as_many_bits_right_as_coins(mark: DecoderMark) -> None:
    # The promise of false positives is over keys, whatever the picture and the extractor are.
    read = mark.extractor.logits(a_picture(5)) > 0
    keys = np.random.default_rng(3).integers(0, 2, (20_000, BITS)).astype(bool)
    right = (keys == read).sum(1)
    for least in (20, 22, 24):
        share, told = (right >= least).mean(), tail(least, BITS)
        assert abs(share - told) < 5 * np.sqrt(told / len(keys))


def test_large_pictures_are_looked_at_in_their_middle(mark: DecoderMark) -> None:
    large = np.zeros((700, 900, 3), np.uint8)
    large[88:600, 192:704] = a_picture(0, 512)  # on the grid of 8
    [seen] = stable_signature.whole(large, mark)
    assert np.array_equal(seen, a_picture(0, 512))


def test_a_picture_is_also_looked_at_as_large_as_its_model_draws(mark: DecoderMark) -> None:
    picture = a_picture(0, 192)
    _, scaled = stable_signature.whole(picture, replace(mark, drawn_px=64))
    assert scaled.shape == (64, 64, 3)
    read = tuple(int(logit > 0) for logit in mark.extractor.logits(scaled))
    assert find(picture, [replace(mark, bits=read)]) is None
    found = find(picture, [replace(mark, bits=read, drawn_px=64)])
    assert found is not None
    assert found.right == BITS


def test_wherever_a_picture_was_cut_one_look_lies_on_the_grid(mark: DecoderMark) -> None:
    rows, columns = np.indices((120, 136))
    place = np.stack([rows % 8, columns % 8, 0 * rows], 2).astype(np.uint8)  # of each pixel
    for top in range(8):
        for left in range(8):
            seen = place[top : top + 100, left : left + 100]
            looks = [*stable_signature.whole(seen, mark), *stable_signature.cut(seen, mark)]
            at = {(int(it[0, 0, 0]), int(it[0, 0, 1])) for it in looks}
            assert at & {(0, 0), (0, 1), (1, 0), (1, 1)}, (top, left)


def test_a_mark_is_kept_and_read_back(tmp_path: Path) -> None:
    bits = [1, 0] * (BITS // 2)
    older = stable_signature_keys.keep(
        tmp_path / "kept", a_run(tmp_path / "one"), bits, made_for="vae-1", made_at=NOW
    )
    later = NOW.replace(year=2027)
    newer = stable_signature_keys.keep(
        tmp_path / "kept", a_run(tmp_path / "two", 1), bits, made_for="vae-1", made_at=later
    )
    own = stable_signature_keys.load(tmp_path / "kept")
    assert [it.key for it in own] == [newer.key, older.key]
    assert own[1].bits == tuple(bits)
    assert stable_signature_keys.made_for(own, ["vae-2", "vae-1"]) is own[0]
    assert stable_signature_keys.made_for(own, ["vae-2"]) is None
    secret = tmp_path / "kept" / older.key
    assert secret.stat().st_mode & 0o077 == 0
    assert "bits" not in repr(older)


def test_one_training_is_kept_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    for _ in range(2):
        stable_signature_keys.keep(tmp_path / "kept", run, [1] * BITS, made_for="", made_at=NOW)
    assert len(list((tmp_path / "kept").iterdir())) == 1


def spoilt(folder: Path, how: str) -> None:
    mark = folder / "mark.json"
    about = json.loads(mark.read_text())
    match how:
        case "other bits":
            mark.write_text(json.dumps(about | {"bits": "1" * BITS}))
        case "no bits":
            mark.write_text(json.dumps(about | {"bits": ""}))
        case "not JSON":
            mark.write_text("{")
        case "other extractor":
            a_run(folder, seed=9)
        case "no extractor":
            (folder / "extractor.safetensors").unlink()
        case "cut short":
            data = (folder / "extractor.safetensors").read_bytes()
            (folder / "extractor.safetensors").write_bytes(data[:-9])


@pytest.mark.parametrize(
    "how", ["other bits", "no bits", "not JSON", "other extractor", "no extractor", "cut short"]
)
def test_a_damaged_mark_is_named_and_not_used(tmp_path: Path, how: str) -> None:
    mark = stable_signature_keys.keep(
        tmp_path / "kept", a_run(tmp_path / "run"), [0] * BITS, made_for="", made_at=NOW
    )
    spoilt(tmp_path / "kept" / mark.key, how)
    with pytest.raises(OperatorError, match="isn't a decoder's mark"):
        stable_signature_keys.load(tmp_path / "kept")


@pytest.mark.parametrize(
    "change",
    [
        {"head.weight": np.ones((BITS, 5), np.float32)},
        {"conv1.weight": np.ones((48, 9, 3, 3), np.float32)},
        {"conv0.bias": np.full(12, np.nan, np.float32)},
    ],
)
def test_an_extractor_that_fits_nothing_is_refused(
    tmp_path: Path, change: dict[str, np.ndarray]
) -> None:
    run = a_run(tmp_path / "run")
    save_file(tensors() | change, run / "extractor.safetensors", {"strides": "[2, 2]"})
    with pytest.raises(OperatorError, match="its extractor"):
        stable_signature_keys.keep(tmp_path / "k", run, [0] * BITS, made_for="", made_at=NOW)


def test_more_marks_than_can_be_looked_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        run = a_run(tmp_path / f"run{seed}", seed)
        stable_signature_keys.keep(tmp_path / "k", run, [0] * BITS, made_for="", made_at=NOW)
    monkeypatch.setattr(limits, "DECODER_MARKS_MAX", 2)
    with pytest.raises(OperatorError) as caught:
        stable_signature_keys.load(tmp_path / "k")
    assert caught.value.limit == 2


def test_marks_are_looked_for_without_torch() -> None:
    code = (
        "import sys, calotype.provenance.stable_signature_keys, calotype.flow.marked_decoders;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
