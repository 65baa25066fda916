"""The processes that finish pictures: they die, they hang, and the picture is done all the same."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.nouns import VerdictKind
from calotype.delivery.formats import encode
from calotype.flow.finish import Finished, Finisher, Raw, Wanted, _finish
from calotype.flow.workers import TRIES, Workers
from calotype.provenance import certificates
from calotype.provenance.manifest import Manifest
from calotype.provenance.signing import SigningFailed
from calotype.provenance.watermark import MarkKey
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.setup import SafetySetup
from tests.flow.dispatch_bench import ALLOWED, MODEL, SPEC

SIDE = 64
MARK_KEY = MarkKey("wmk_test", bytes(32))
USES = SafetySetup.default_setup().uses("vignette-domain")
INSIDE = {use.score_name(label): 0.0 for use in USES for label in use.labels}


def raw(**scores: float) -> Raw:
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    manifest = Manifest.of(
        SPEC, MODEL, image="img_01ARZ3NDEKTSV4RRFFQ69G5FAV", index=0, calotype="0", torch="none",
        device="cpu", pixels_sha256="",
    )  # fmt: skip
    return Raw(pixels.tobytes(), SIDE, SIDE, scores | INSIDE, manifest, uses=USES)


class ToldExecutor(Executor):
    """Gives each piece of work the next of these fates: an answer, or None for never."""

    def __init__(self, fates: list[Finished | None]) -> None:
        self.fates = fates

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if (fate := self.fates.pop(0)) is not None:
            future.set_result(fate)
        return future


class ToldWorkers(Workers):
    """Workers without processes."""

    def __init__(self, *fates: Finished | None) -> None:
        self.fates, self.started = list(fates), 0
        super().__init__(1, lambda: None)

    def _started(self) -> Executor:
        self.started += 1
        return ToldExecutor(self.fates)


async def test_processes_that_hang_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FINISH_S_MAX", 0.02)
    done = Finished(ALLOWED, {}, "")
    workers = ToldWorkers(None, done)
    assert await workers.do(_finish, raw()) == done
    assert workers.started == 2
    with pytest.raises(InternalError, match="hung"):
        await ToldWorkers(*[None] * TRIES).do(_finish, raw())


async def test_a_killed_process_is_replaced_and_its_picture_done_again(tmp_path: Path) -> None:
    identity = certificates.ensure_development(tmp_path, now=datetime.now(UTC))
    finisher = Finisher(1, identity, MARK_KEY)
    try:
        finishing = asyncio.create_task(finisher.finish(raw(finite=1.0)))
        await asyncio.sleep(0.05)
        for pid in list(finisher._workers._executor._processes):  # type: ignore[attr-defined]
            os.kill(pid, signal.SIGKILL)
        finished = await finishing
        assert finished.verdict.kind is VerdictKind.ALLOW
        assert finished.files.keys() == {"png", "webp"}
        with pytest.raises(SafetyUnavailable):
            await finisher.finish(raw())  # without the score that it has to have
    finally:
        finisher.stop()


async def test_what_can_not_be_signed_comes_back_as_no_file(tmp_path: Path) -> None:
    identity = certificates.ensure_development(tmp_path, now=datetime.now(UTC))
    broken = replace(identity, key_pem="not a key")
    finisher = Finisher(1, broken, MARK_KEY)
    try:
        with pytest.raises(SigningFailed):
            await finisher.finish(raw(finite=1.0))
    finally:
        finisher.stop()


async def test_a_claim_that_was_kept_with_a_picture_in_it_is_left_out(tmp_path: Path) -> None:
    """A release before took such claims in."""
    identity = certificates.ensure_development(tmp_path, now=datetime.now(UTC))
    png = encode(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8), "png")
    kept = b"\0\0\0\x10jumb\0\0\0\x08bidb"
    finisher = Finisher(1, identity, MARK_KEY)
    try:
        brought = await finisher.bring(Wanted(png, SIDE, SIDE, 3, "pic_1", kept))
    finally:
        finisher.stop()
    assert brought.ingredient not in (None, kept)
