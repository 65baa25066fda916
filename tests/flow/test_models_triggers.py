"""Trigger words of LoRAs, from adding one to the refusal of a job that uses it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calotype.core.errors import Refused, Suspended
from calotype.core.nouns import AdapterInfo, AdapterKind
from calotype.flow.safeguards import Safeguards
from calotype.jobs.store import JobStore
from calotype.settings import Settings
from tests.flow.command_line import here
from tests.flow.dispatch_bench import SPEC
from tests.flow.test_conduct import ADA, conductor
from tests.laid import opened_in
from tests.tensors import lora, make_base, tensors


def lora_file(folder: Path, tags: dict[str, int], name: str = "ink") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.safetensors"
    told = {"ss_tag_frequency": json.dumps({"10_zwx": tags})}
    file.write_bytes(tensors(lora(), told=told))
    return file


def told(home: Path, *arguments: str) -> Any:
    answer = here(home, "models", *arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_they_are_kept_with_the_version_and_shown(tmp_path: Path) -> None:
    file = lora_file(tmp_path / "files", {"ink wash": 9, "x" * 200: 9})
    (tmp_path / "files" / "ink.json").write_text(json.dumps({"activation text": "old paper"}))
    answer = here(tmp_path, "models", "add", str(file), "--trigger", "inky", "--trigger", "1ink")
    assert "trigger words: inky, 1ink, old paper, zwx, ink wash" in answer.stdout
    assert "left out of its trigger words: ss_tag_frequency:" in answer.stderr
    file.unlink()
    (tmp_path / "files" / "ink.json").unlink()
    words = ["inky", "1ink", "old paper", "zwx", "ink wash"]
    shown = told(tmp_path, "show", "lora/ink")
    assert shown["model"]["triggers"] == words
    assert shown["record"]["triggers"] == words[:3], "what its file doesn't say"
    assert "200 characters" in shown["model"]["triggers_unread"][0]
    [listed] = [it for it in told(tmp_path, "list")["loras"] if it["name"] == "ink"]
    assert listed["triggers"] == words


def test_a_versions_words_do_not_change(tmp_path: Path) -> None:
    file = lora_file(tmp_path / "files", {"ink wash": 9})
    added = told(tmp_path, "add", str(file), "--trigger", "inky")
    assert (added["is_new"], added["triggers"]) == (True, ["inky", "zwx", "ink wash"])
    again = told(tmp_path, "add", str(file))
    assert (again["is_new"], again["triggers"]) == (False, added["triggers"])
    answer = here(tmp_path, "models", "add", str(file), "--trigger", "other")
    assert answer.returncode == 2
    assert "registered already, without other" in answer.stderr


@pytest.mark.parametrize("word", ["", "ink\n", "x" * 101])
def test_a_word_that_nobody_can_type_is_refused(tmp_path: Path, word: str) -> None:
    file = lora_file(tmp_path / "files", {"ink": 9})
    assert here(tmp_path, "models", "add", str(file), "--trigger", word).returncode == 2
    many = [each for at in range(25) for each in ("--trigger", f"ink{at}")]
    assert "25 trigger words" in here(tmp_path, "models", "add", str(file), *many).stderr
    base = make_base(tmp_path / "base")
    assert here(tmp_path, "models", "add", str(base), "--trigger", "ink").returncode == 2


@pytest.mark.parametrize(
    ("tags", "typed"), [({"child": 9, "nude": 9}, ()), ({"child": 9}, ("--trigger", "nude"))]
)
def test_what_no_policy_lets_pass_is_not_registered(
    tmp_path: Path, tags: dict[str, int], typed: tuple[str, ...]
) -> None:
    file = lora_file(tmp_path / "files", tags)
    answer = here(tmp_path, "models", "add", str(file), *typed)
    assert answer.returncode != 0
    assert "ink isn't registered, whatever the policy: its name and trigger words ask for" in (
        " ".join(answer.stderr.split())
    )
    assert [it for it in told(tmp_path, "list")["loras"] if it["name"] == "ink"] == []
    assert list((tmp_path / "models" / ".registry" / "lora").glob("*")) == []


def test_what_some_policy_lets_pass_is(tmp_path: Path) -> None:
    assert told(tmp_path, "add", str(lora_file(tmp_path / "files", {"nude": 9})))["is_new"]


ORDINARY = ("1girl", "solo", "breasts", "school uniform", "looking at viewer", "sword", "zwx")


def adapter(name: str, *words: str) -> AdapterInfo:
    return AdapterInfo(
        AdapterKind.LORA, f"{name}@{'0' * 16}", "", "0" * 16, name, "", (), 1, triggers=words
    )


@asynccontextmanager
async def closing_store(folder: Path) -> AsyncIterator[JobStore]:
    store = await opened_in(folder)
    yield store
    await store.close()


async def check(store: JobStore, folder: Path, prompt: str, *loras: AdapterInfo) -> None:
    guards = Safeguards(Settings(home=folder))
    spec = replace(SPEC, prompt=prompt)
    await conductor(store, folder).check_words(ADA, spec, guards, loras)


async def test_the_words_of_a_lora_are_read_with_each_job_and_count_against_nobody(
    tmp_path: Path,
) -> None:
    async with closing_store(tmp_path) as store:
        await check(store, tmp_path, "a mother at the sea", adapter("ink", *ORDINARY))
        for _ in range(4):
            with pytest.raises(Refused) as error:
                await check(store, tmp_path, "a lake", adapter("ok"), adapter("ink", "n u d e"))
        assert error.value.field == "loras[1].name"
        assert error.value.extra["category"] == "sexual"
        assert error.value.detail == "The trigger words of the LoRA ink ask for sexual content."
        await conductor(store, tmp_path).check_account(ADA)
        assert await store.people.strikes.counts() == []


async def test_a_minor_in_the_prompt_and_a_loras_words_are_together(tmp_path: Path) -> None:
    async with closing_store(tmp_path) as store:
        with pytest.raises(Refused) as error:
            await check(store, tmp_path, "a child at the sea", adapter("ink", *ORDINARY))
        assert (error.value.field, error.value.extra["category"]) == ("loras", "sexual_minors")
        assert error.value.detail.startswith("With its LoRAs' trigger words, the prompt asks for")
        assert len(await store.people.cases.every()) == 1, "for people to look at"
        await conductor(store, tmp_path).check_account(ADA)
        with pytest.raises(Refused):
            await check(store, tmp_path, "nude child", adapter("ink"))
        with pytest.raises(Suspended):
            await conductor(store, tmp_path).check_account(ADA)
