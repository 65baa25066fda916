"""One contract, two engines: the pool can't tell the fake from the real one by how it talks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core.messages import (
    HEARTBEAT_VARIABLE,
    CancelRow,
    EngineReady,
    Heartbeat,
    LoadModel,
    LoadProgress,
    Message,
    ModelFailed,
    ModelLoaded,
    ParkRow,
    RowControl,
    RowDone,
    RowFailed,
    RowLora,
    RowParked,
    RowPicture,
    RowStarted,
    RunRow,
    StepDone,
    Stop,
)
from calotype.pool.process import EngineProcess
from calotype.pool.registry import embedded_folder
from calotype.pool.reports import EngineDown

pytestmark = [
    pytest.mark.parametrize("engine", ["calotype.pool.testing", "calotype.engine"]),
    pytest.mark.usefixtures("kept_curves"),
]


BEATS = {HEARTBEAT_VARIABLE: "1.0", "CALOTYPE_FAKE_STEP_S": "0.01"}


class Talk:
    """An engine process and what it says, heartbeats aside."""

    def __init__(self, process: EngineProcess) -> None:
        self.process = process
        self.beats = 0

    async def hear(self) -> tuple[Message, bytes]:
        while True:
            message, blob = await self.process.read()
            if isinstance(message, Heartbeat):
                self.beats += 1
            elif not isinstance(message, LoadProgress):
                return message, blob

    async def hear_row(self, name: str) -> tuple[list[Message], bytes]:
        """Everything up to the end of this row; nothing else may be said meanwhile."""
        heard: list[Message] = []
        while True:
            message, blob = await self.hear()
            assert getattr(message, "row", None) == name, message
            heard.append(message)
            if isinstance(message, RowDone | RowFailed):
                return heard, blob


@asynccontextmanager
async def talk_to(engine: str) -> AsyncIterator[Talk]:
    process = await EngineProcess.start((sys.executable, "-m", engine), BEATS, None)
    try:
        async with asyncio.timeout(240):  # the real one proves its batch sizes first
            yield Talk(process)
    finally:
        await process.end(0.0)


def row(name: str, *, model: str = "vignette", steps: int = 3) -> RunRow:
    return RunRow(name, model, "a red house", "", 64, 72, steps, 3.0, "ddim", 7, "fast")


async def test_talk_from_ready_to_stop(engine: str, tmp_path: Path) -> None:
    async with talk_to(engine) as talk:
        say, process = talk.process.write, talk.process
        ready, _ = await talk.hear()
        assert isinstance(ready, EngineReady)
        assert ready.pid == process.pid

        await say(LoadModel("vignette", str(embedded_folder()), "build"))
        await say(LoadModel("gone", str(tmp_path), "build"))
        loaded, _ = await talk.hear()
        assert isinstance(loaded, ModelLoaded)
        assert loaded.name == "vignette"
        failed, _ = await talk.hear()
        assert isinstance(failed, ModelFailed)
        assert failed.name == "gone"
        assert failed.reason

        await say(row("job/1/0"))
        heard, pixels = await talk.hear_row("job/1/0")
        assert heard[:-1] == [
            RowStarted("job/1/0"),
            *(StepDone("job/1/0", step, 3) for step in (1, 2, 3)),
        ]
        done = heard[-1]
        assert isinstance(done, RowDone)
        assert (done.width, done.height, len(pixels)) == (64, 72, 64 * 72 * 3)
        assert done.device_s > 0.0

        await say(row("job/1/1"))
        assert (await talk.hear_row("job/1/1"))[1] == pixels, "same job and seed, other pixels"

        await say(row("job/2/0", model="gone"))
        heard, _ = await talk.hear_row("job/2/0")
        assert isinstance(heard[-1], RowFailed)
        assert heard[-1].retryable, "it may be loaded by then"

        await say(row("dropped", steps=100))
        assert await talk.hear() == (RowStarted("dropped"), b"")
        await say(CancelRow("dropped"))
        await say(CancelRow("never heard of"))
        await say(row("after"))
        while (await talk.hear())[0] != RowStarted("after"):
            pass  # the dropped row's last steps
        heard, _ = await talk.hear_row("after")  # which lets no other row speak
        assert isinstance(heard[-1], RowDone)

        if not talk.beats:
            assert isinstance((await process.read())[0], Heartbeat)
        await say(Stop())
        with pytest.raises(EngineDown):
            await talk.hear()
        assert await process.end(10.0) == 0


async def test_a_row_goes_from_one_process_to_another_and_to_the_same_bits(engine: str) -> None:
    package = embedded_folder().parent
    cyanotype = package / "loras" / "vignette-cyanotype" / "lora.safetensors"
    edges = package / "controlnets" / "vignette-edges"
    plain = replace(row("plain"), steps=6)
    picture = bytes(range(256)) * (64 * 72 * 3 // 256)
    from_picture = replace(
        plain, sampler="unipc", pictures=(RowPicture(64, 72),), source=0, strength=0.8, steps=8
    )
    rows = [
        (replace(plain, sampler="dpmpp_2m"), b""),
        (replace(plain, sampler="euler_a"), b""),
        (replace(plain, sampler="dpmpp_sde"), b""),
        (from_picture, picture),
        (replace(plain, loras=(RowLora("cyanotype", str(cyanotype), "b", 0.8),)), b""),
        (
            replace(
                plain,
                sampler="heun",
                pictures=(RowPicture(64, 72),),
                controls=(RowControl("edges", str(edges), "b", 0),),
            ),
            picture,
        ),
    ]
    async with talk_to(engine) as first, talk_to(engine) as second:
        for talk in (first, second):
            assert isinstance((await talk.hear())[0], EngineReady)
            await talk.process.write(LoadModel("vignette", str(embedded_folder()), "build"))
        for talk in (first, second):
            assert isinstance((await talk.hear())[0], ModelLoaded)
        for number, (wanted, blob) in enumerate(rows):
            whole = await drawn(second, replace(wanted, row=f"whole/1/{number}"), blob)
            kept = b""
            for tries in range(10):  # it may be through before it is told
                half = replace(wanted, row=f"half/{tries}/{number}")
                if kept := await handed_back(first, half, blob):
                    break
            again = replace(wanted, row=f"again/1/{number}", parked_bytes=len(kept))
            assert await drawn(second, again, blob + kept) == whole, wanted


async def drawn(talk: Talk, wanted: RunRow, blob: bytes) -> bytes:
    await talk.process.write(wanted, blob)
    heard, pixels = await talk.hear_row(wanted.row)
    assert isinstance(heard[-1], RowDone), heard
    return pixels


async def handed_back(talk: Talk, wanted: RunRow, blob: bytes) -> bytes:
    """Begin a row, and have it handed back after a step or two; empty if it was quicker."""
    await talk.process.write(wanted, blob)
    while not isinstance((await talk.hear())[0], StepDone):
        pass
    await talk.process.write(ParkRow(wanted.row))
    while isinstance((heard := await talk.hear())[0], StepDone):
        pass
    parked, kept = heard
    if isinstance(parked, RowDone):
        return b""
    assert isinstance(parked, RowParked), parked
    assert 1 <= parked.step < parked.steps
    assert not parked.reason
    return kept


async def test_engine_ends_when_the_socket_closes(engine: str) -> None:
    process = await EngineProcess.start((sys.executable, "-m", engine), BEATS, None)
    assert await process.end(20.0) >= 0, "it had to be killed"
