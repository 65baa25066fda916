"""Headers of safetensors files: what is read of a sound one, and that nothing else gets through."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.headers import DTYPE_BYTES, Header, parse_header
from calotype.core.weights import parts_of, weights_entry
from calotype.files.headers import read_header
from tests.tensors import tensors, whole


def header_of(path: Path, content: bytes) -> Header:
    path.write_bytes(content)
    return read_header(path)


def refused(path: Path, content: bytes) -> ModelBroken:
    with pytest.raises(ModelBroken) as caught:
        header_of(path, content)
    assert caught.value.field == path.name
    return caught.value


def test_a_file_that_the_format_s_own_library_wrote_is_read(tmp_path: Path) -> None:
    import numpy as np

    content = save(
        {
            "b": np.zeros((2, 3), np.float16),
            "a": np.ones(5, np.int64),
            "one": np.array(1.0, np.float32),
        },
        metadata={"made": "here"},
    )
    header = header_of(tmp_path / "it.safetensors", content)
    assert {name: (it.dtype, it.shape) for name, it in header.tensors.items()} == {
        "a": ("I64", (5,)),
        "b": ("F16", (2, 3)),
        "one": ("F32", ()),
    }
    assert header.told == {"made": "here"}
    assert header.bytes == 5 * 8 + 6 * 2 + 4
    begin = header.data_at + header.tensors["a"].begin
    assert content[begin : begin + 8] == (1).to_bytes(8, "little")


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({**ENTRY, "dtype": "F31"}, "has dtype 'F31'"),
        ({**ENTRY, "dtype": ["F32"]}, "has dtype"),
        ({**ENTRY, "shape": [-2]}, r"has shape \[-2\]"),
        ({**ENTRY, "shape": [True, 2]}, "has shape"),
        ({**ENTRY, "shape": [2.0]}, "has shape"),
        ({**ENTRY, "shape": [1] * 9}, "has shape"),
        ({**ENTRY, "shape": [2**40, 2**40]}, "has 8 bytes, and by its shape"),
        ({**ENTRY, "shape": "2"}, "has shape"),
        ({**ENTRY, "data_offsets": [8, 0]}, "has data_offsets"),
        ({**ENTRY, "data_offsets": [-8, 0]}, "has data_offsets"),
        ({**ENTRY, "data_offsets": [0, 8, 16]}, "has data_offsets"),
        ({**ENTRY, "data_offsets": [4, 12]}, "begins at 4 and not at 0"),
        ({**ENTRY, "data_offsets": [0, 2**60], "shape": [2**58]}, "is cut short"),
        ({**ENTRY, "more": 1}, "isn't described by"),
        ({"dtype": "F32"}, "isn't described by"),
        ([], "isn't described by"),
        (None, "isn't described by"),
    ],
)
def test_a_lying_entry_is_refused_by_name(tmp_path: Path, entry: Any, says: str) -> None:
    content = whole(json.dumps({"layer": entry}).encode(), bytes(8))
    with pytest.raises(ModelBroken, match=says) as caught:
        header_of(tmp_path / "it.safetensors", content)
    assert "it.safetensors" in caught.value.detail


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "header would take 0 bytes"),
        (b"\x08", "header would take 0 bytes"),
        ((2**60).to_bytes(8, "little") + b"{}", "header would take 1152921504606846976 bytes"),
        ((100).to_bytes(8, "little") + b"{}", "header would take 100 bytes"),
        (whole(b"[]"), "no JSON object"),
        (whole(b" {}"), "no JSON object"),
        (whole(b"{"), "has a header of|header would take 1|doesn't parse"),
        (whole(b'{"a":'), "doesn't parse"),
        (whole(b'{"a": "\xff"}'), "doesn't parse"),
        (whole(b'{"a":' * 10_000 + b"}" * 10_000), "doesn't parse"),
        (whole(b'{"a": ' + b"9" * 5_000 + b"}"), "doesn't parse"),
        (whole(b'{"__metadata__": []}'), "__metadata__ isn't text"),
        (whole(b'{"__metadata__": {"a": 1}}'), "__metadata__ isn't text"),
        (b"\x80\x02}q\x00.", "no whole safetensors file"),  # a pickle of {}
        (b"PK\x03\x04" + bytes(100), "no whole safetensors file"),  # torch.save's archive
    ],
)
def test_what_is_no_header_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ModelBroken, match=says):
        header_of(tmp_path / "it.safetensors", content)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(ENTRY)
    content = whole(f'{{"a": {entry}, "a": {entry}}}'.encode(), bytes(8))
    assert refused(tmp_path / "it", content).limit == "once"
    twice = b'{"a": {"dtype": "F32", "dtype": "F16", "shape": [2], "data_offsets": [0, 8]}}'
    assert "'dtype' is there twice" in refused(tmp_path / "it", whole(twice, bytes(8))).detail


def test_tensors_may_not_share_bytes_or_leave_any_out(tmp_path: Path) -> None:
    shared = {"a": ENTRY, "b": ENTRY}
    assert (
        "begins at 0 and not at 8"
        in refused(tmp_path / "it", whole(json.dumps(shared).encode(), bytes(8))).detail
    )
    more = refused(tmp_path / "it", tensors({"a": [2]}) + b"\0")
    assert "has more than its tensors: they take 8 bytes, and it has 9" in more.detail
    short = refused(tmp_path / "it", tensors({"a": [2]})[:-1])
    assert "is cut short: they take 8 bytes, and it has 7" in short.detail
    assert short.limit == 8


def test_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MODEL_TENSORS_MAX", 2)
    assert refused(tmp_path / "it", tensors({"a": [1], "b": [1], "c": [1]})).limit == 2


def test_what_can_t_be_read_is_refused_without_waiting(tmp_path: Path) -> None:
    for make in (lambda it: it.mkdir(), os.mkfifo, lambda it: it.symlink_to(it)):
        path = tmp_path / f"{make!r}"[-12:-1]
        make(path)
        with pytest.raises(ModelBroken, match=r"is no file|can't be read"):
            read_header(path)
    with pytest.raises(ModelBroken, match="can't be read: No such file"):
        read_header(tmp_path / "none")


@given(st.binary(max_size=300), st.integers(0, 100))
@example(b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}', 4)
def test_no_bytes_get_another_error_out_of_it(raw: bytes, data_bytes: int) -> None:
    try:
        header = parse_header(raw, data_bytes, "it")
    except ModelBroken:
        return
    assert header.bytes == data_bytes


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
_SIDES = st.lists(st.integers(-1, 4) | st.just(2**62), max_size=4)
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPE_BYTES]) | _JSON,
        "shape": _SIDES | _JSON,
        "data_offsets": st.tuples(st.integers(-1, 20), st.integers(-1, 2**40)) | _JSON,
    }
)


@settings(max_examples=300)
@given(st.dictionaries(st.text(max_size=5), _ENTRY | _JSON, max_size=3), st.integers(0, 2**41))
def test_a_header_that_gets_through_is_sound(parsed: dict[str, Any], data_bytes: int) -> None:
    try:
        header = parse_header(json.dumps(parsed).encode(), data_bytes, "it")
    except ModelBroken as error:
        error.detail.encode()  # fit to be printed, whatever the names were
        return
    at = 0
    for tensor in header.tensors.values():
        assert tensor.begin == at
        assert tensor.bytes == math.prod(tensor.shape) * DTYPE_BYTES[tensor.dtype]
        at = tensor.end
    assert at == data_bytes


@given(st.dictionaries(st.text(), st.lists(st.integers(0, 3), max_size=3), max_size=4))
def test_every_sound_header_gets_through(shapes: dict[str, list[int]]) -> None:
    shapes.pop("__metadata__", None)
    content = tensors(shapes)
    length = int.from_bytes(content[:8], "little")
    header = parse_header(content[8 : 8 + length], len(content) - 8 - length, "it")
    assert {name: list(it.shape) for name, it in header.tensors.items()} == shapes


# Which files hold weights.


@pytest.mark.parametrize(
    ("names", "entry"),
    [
        (["model.safetensors"], "model.safetensors"),
        (["model.fp16.safetensors", "model.safetensors"], "model.safetensors"),
        (["model.fp16.safetensors"], "model.fp16.safetensors"),
        (["model.safetensors.index.json"], "model.safetensors.index.json"),
        (
            ["diffusion_pytorch_model.safetensors.index.fp16.json"],
            "diffusion_pytorch_model.safetensors.index.fp16.json",
        ),
        (["pytorch_model.bin", "model.ckpt", "config.json"], None),
    ],
)
def test_weights_are_found_by_the_names_that_libraries_give_them(
    names: list[str], entry: str | None
) -> None:
    assert weights_entry(names) == entry


def test_the_parts_that_an_index_names_have_to_be_files_beside_it() -> None:
    assert parts_of({"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}, "it") == (
        "1.safetensors",
        "2.safetensors",
    )
    for wrong in ("../1.safetensors", "/etc/1.safetensors", "1.bin", 3, ""):
        with pytest.raises(ModelBroken, match="no safetensors file of its folder"):
            parts_of({"weight_map": {"a": wrong}}, "it")
    empty: list[dict[str, Any]] = [{}, {"weight_map": {}}, {"weight_map": []}]
    for nothing in empty:
        with pytest.raises(ModelBroken, match="names no files"):
            parts_of(nothing, "it")
