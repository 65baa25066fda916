"""The words that switch a LoRA on: read from real files, and left out where they are odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.nouns import AdapterInfo, AdapterKind
from calotype.pool.adapters import read_adapter
from calotype.pool.files import FileHashes
from calotype.pool.triggers import in_header
from tests.tensors import lora, tensors

SETS = {"10_sks dog": {"sks dog": 20, "grass": 12, "sitting": 3}, "pictures": {"ink": 7}}


def read(path: Path) -> AdapterInfo:
    return read_adapter(AdapterKind.LORA, "ink", path, FileHashes())


def file_with(folder: Path, **told: Any) -> Path:
    """A LoRA's file whose header tells this; what is no text as JSON."""
    file = folder / "ink.safetensors"
    texts = {
        name.replace("__", "."): it if isinstance(it, str) else json.dumps(it)
        for name, it in told.items()
    }
    file.write_bytes(tensors(lora(), told=texts))
    return file


def test_the_names_of_training_folders_and_their_frequent_tags_are_read(tmp_path: Path) -> None:
    info = read(file_with(tmp_path, ss_tag_frequency=SETS))
    assert info.triggers == ("sks dog", "grass", "ink"), "what half of the pictures have"
    assert info.triggers_unread == ()


def test_how_many_pictures_a_folder_has_is_believed_where_it_is_said(tmp_path: Path) -> None:
    dirs = {"10_sks dog": {"n_repeats": 10, "img_count": 40}}
    assert read(file_with(tmp_path, ss_tag_frequency=SETS, ss_dataset_dirs=dirs)).triggers == (
        "sks dog", "ink",
    )  # fmt: skip


def test_captions_and_pictures_that_it_was_held_against_are_no_words(tmp_path: Path) -> None:
    captions = {
        "100_zwx": {"a woman beside a car": 1, "a woman on a train": 1},
        "1_dog": {"dog": 9},
    }
    info = read(file_with(tmp_path, ss_tag_frequency=captions, ss_reg_dataset_dirs={"1_dog": {}}))
    assert info.triggers == ("zwx",)


def test_the_phrase_of_modelspec_comes_first(tmp_path: Path) -> None:
    file = file_with(
        tmp_path, modelspec__trigger_phrase="inkwash,  old  paper", ss_tag_frequency=SETS
    )
    assert read(file).triggers[:2] == ("inkwash", "old paper")


def test_what_lies_beside_a_file_is_read(tmp_path: Path) -> None:
    file = file_with(tmp_path)
    (tmp_path / "ink.json").write_text(json.dumps({"activation text": "ink, Zwx"}))
    (tmp_path / "ink.civitai.info").write_text(json.dumps({"trainedWords": ["zwx", "a lake, ink"]}))
    assert read(file).triggers == ("ink", "Zwx", "a lake, ink")


def test_a_card_may_name_them(tmp_path: Path) -> None:
    file_with(tmp_path)
    (tmp_path / "ink.safetensors").rename(tmp_path / "lora.safetensors")
    (tmp_path / "calotype.json").write_text(json.dumps({"triggers": ["inkwash"]}))
    assert read(tmp_path).triggers == ("inkwash",)
    (tmp_path / "calotype.json").write_text(json.dumps({"triggers": ["ink\u0000wash"]}))
    with pytest.raises(ModelBroken) as error:
        read(tmp_path)
    assert error.value.field == "triggers"


LONG = "x" * (limits.LORA_TRIGGER_CHARS_MAX + 1)
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"ss_tag_frequency": "{"}, "no JSON object"),
        ({"ss_tag_frequency": '["ink"]'}, "no JSON object"),
        ({"ss_tag_frequency": DEEP}, "no JSON object"),
        ({"ss_tag_frequency": '{"1_a": ' + "9" * 5_000 + "}"}, "no JSON object"),
        ({"ss_tag_frequency": " " * (limits.LORA_TOLD_CHARS_MAX + 1)}, "may have 1,048,576"),
        ({"ss_tag_frequency": {"a": ["ink"]}}, "no numbers by tag"),
        ({"ss_tag_frequency": {"a": {"ink": "many"}}}, "no numbers by tag"),
        ({"ss_tag_frequency": {"a": {"ink": float("nan")}}}, "no numbers by tag"),
        ({"ss_tag_frequency": {"a": {"ink": -1}}}, "no numbers by tag"),
        ({"ss_tag_frequency": {"a": {LONG: 3}}}, "may have 100"),
        ({"ss_tag_frequency": {"a": {"ink\0": 3}}}, "nobody can type"),
        ({"ss_tag_frequency": {"a": {"\ud800": 3}}}, "nobody can type"),
        ({"ss_tag_frequency": {"3_\u202eink": {}}}, "nobody can type"),
        ({"modelspec__trigger_phrase": "ink\x1b[2J"}, "nobody can type"),
    ],
)
def test_odd_metadata_is_left_out_and_named(tmp_path: Path, told: dict[str, Any], why: str) -> None:
    info = read(file_with(tmp_path, **told))
    assert info.triggers == ()
    [reason] = info.triggers_unread
    assert why in reason
    assert len(reason) < 200
    assert reason.isprintable()


@pytest.mark.parametrize("beside", ["", "[]", "{", '{"activation text": 3}', "\xff\xfe"])
def test_so_are_odd_files_beside(tmp_path: Path, beside: str) -> None:
    file = file_with(tmp_path)
    (tmp_path / "ink.json").write_bytes(beside.encode("latin-1"))
    info = read(file)
    assert info.triggers == ()
    assert len(info.triggers_unread) == 1


def test_of_too_many_the_first_count_and_the_rest_is_named(tmp_path: Path) -> None:
    tags = {f"tag {at}": 100 - at // 10 for at in range(100)}
    info = read(file_with(tmp_path, ss_tag_frequency={"a": tags}))
    assert info.triggers == tuple(tags)[: limits.LORA_TRIGGERS_MAX]
    assert info.triggers_unread == (f"{100 - limits.LORA_TRIGGERS_MAX} words past the first 24",)


def test_a_count_larger_than_any_float_is_a_count() -> None:
    told = {"ss_tag_frequency": json.dumps({"a": {"ink": 10**400, "rare": 1}})}
    assert in_header(told).words == ("ink",)
