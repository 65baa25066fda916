"""The engine's small parts: what it remembers, which command is next, how many threads it has."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from calotype.core.errors import OperatorError
from calotype.core.messages import CancelRow, LoadModel, Message, Stop
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Encoding
from calotype.engine.inbox import Inbox
from calotype.engine.recent import Recent
from calotype.engine.threads import THREADS_VARIABLE, sleep_while_waiting, thread_count
from tests.rooms.engine_bench import run_row


@dataclass
class Encoder:
    """What encodings need of a model."""

    name: str = "m"
    build: str = "b"
    texts: list[str] = field(default_factory=list)  # that it had to encode

    def encode(self, text: str) -> Encoding:
        self.texts.append(text)
        return Encoding({"embeds": torch.zeros(1, 2, 3)}, tokens_cut=len(text))

    def encode_negative(self, text: str, prompt: Encoding) -> Encoding | None:
        return None


def encode(encodings: Encodings, model: Any, *texts: str) -> list[Encoding]:
    return [encodings.encode(model, text) for text in texts]


def test_the_text_used_longest_ago_is_forgotten_first() -> None:
    encodings, model = Encodings(size_max=2), Encoder()
    encode(encodings, model, "a", "b", "a", "c", "a")
    assert model.texts == ["a", "b", "c"], "a was used after b, so b went"
    encode(encodings, model, "c", "b")
    assert model.texts == ["a", "b", "c", "b"]
    assert len(encodings) == 2


def test_a_text_is_remembered_for_one_model_and_build_only() -> None:
    encodings, texts = Encodings(size_max=9), list[str]()
    for model in (Encoder(texts=texts), Encoder(name="n", texts=texts), Encoder(build="c")):
        encode(encodings, model, "a", "a")
    assert texts == ["a", "a"]
    assert len(encodings) == 3


def test_what_was_cut_is_remembered_with_the_encoding() -> None:
    encodings, model = Encodings(size_max=2), Encoder()
    made, remembered = encode(encodings, model, "abc", "abc")
    assert made is remembered
    assert remembered.tokens_cut == 3


def test_what_could_not_be_made_is_not_remembered() -> None:
    recent: Recent[str, int] = Recent(2)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)
    assert len(recent) == 0
    assert recent.get("a", lambda: 1) == 1
    assert recent.get("a", lambda: 2) == 1


LOAD = LoadModel("m", "/m", "b")


def taken(inbox: Inbox, *, wait: bool = False) -> Message | None:
    command = inbox.take(wait=wait)
    return command and command[0]


def test_commands_come_in_order_but_cancels_and_stop_come_first() -> None:
    inbox = Inbox(9)
    for command in (LOAD, run_row("a"), CancelRow("held"), run_row("b"), Stop()):
        inbox.put(command)
    assert [taken(inbox) for _ in range(6)] == [
        Stop(),
        CancelRow("held"),
        LOAD,
        run_row("a"),
        run_row("b"),
        None,
    ]


def test_a_row_cancelled_before_it_is_taken_never_runs() -> None:
    inbox = Inbox(9)
    for command in (run_row("a"), run_row("b"), CancelRow("a")):
        inbox.put(command)
    assert [taken(inbox) for _ in range(3)] == [CancelRow("a"), run_row("b"), None]


def test_a_full_inbox_makes_the_reader_wait_and_an_empty_one_the_loop() -> None:
    inbox = Inbox(2)
    rows = [run_row(f"r{at}") for at in range(50)]
    held: list[int] = []

    def read() -> None:
        for row in rows:
            inbox.put(row)
            held.append(len(inbox._commands))

    reader = threading.Thread(target=read)
    reader.start()
    assert [taken(inbox, wait=True) for _ in rows] == rows
    reader.join(10.0)
    assert not reader.is_alive()
    assert max(held) <= 2
    assert taken(inbox) is None


def test_a_pass_has_a_thread_for_each_core_we_may_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert thread_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert thread_count() == 64
    monkeypatch.setenv(THREADS_VARIABLE, " 2 ")
    assert thread_count() == 2


@pytest.mark.parametrize("text", ["0", "two", "-1", "1.5"])
def test_a_number_of_threads_that_is_none_is_the_operators_fault(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, text)
    with pytest.raises(OperatorError, match="at least 1"):
        thread_count()


def test_an_operator_may_choose_how_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
