"""A decoder's mark through the flow: which models draw it, what manifests and verdicts say."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from calotype.core import frames
from calotype.core.nouns import Component, ModelInfo
from calotype.flow import marked_decoders
from calotype.flow.verify import body, origin
from calotype.jobs.store import JobStore
from calotype.pool.models import load_command
from calotype.provenance import certificates, stable_signature_keys
from calotype.provenance.certificates import SigningIdentity
from calotype.provenance.manifest import Manifest
from calotype.provenance.stable_signature import DecoderMark
from calotype.settings import Settings
from tests.flow.dispatch_bench import MODEL, SPEC
from tests.rooms.test_stable_signature import BITS, NOW, a_picture, a_run

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PARTS = (Component("unet-1", "denoiser", 9), Component("vae-1", "vae", 9))
WITH_VAE = replace(MODEL, components=_PARTS)


def keep_mark(settings: Settings, *, made_for: str = "vae-1") -> DecoderMark:
    """A mark in a home that reads its own bits in picture 0."""
    folder, run = marked_decoders.folder_of(settings), a_run(settings.home / "run")
    keep, nothing = stable_signature_keys.keep, [0] * BITS
    plain = keep(folder.with_name("other"), run, nothing, made_for="", made_at=NOW)
    bits = [int(logit > 0) for logit in plain.extractor.logits(a_picture(0))]
    return keep(folder, run, bits, made_for=made_for, made_at=NOW)


@pytest.fixture
def off(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def on(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, marked_decoders=True)


async def test_a_model_is_as_it_was_unless_it_is_asked_for(off: Settings) -> None:
    keep_mark(off)
    equip = marked_decoders.equipping(off, lambda model: model)
    assert equip(WITH_VAE) == WITH_VAE
    assert load_command(WITH_VAE).decoder == ""
    assert "decoder_key" not in made_with(WITH_VAE).to_dict()


async def test_a_model_gets_the_decoder_that_was_made_for_its_autoencoder(on: Settings) -> None:
    mark = keep_mark(on)
    equip = marked_decoders.equipping(on, lambda model: replace(model, title="equipped"))
    model = equip(WITH_VAE)
    assert (model.title, model.decoder, model.decoder_key) == ("equipped", mark.decoder, mark.key)
    assert (model.build, model.components) == (WITH_VAE.build, WITH_VAE.components)
    command = load_command(model)
    frame = frames.encode(command)
    assert frames.decode(frame[frames.HEAD_BYTES : -frames.BLOB_HEAD_BYTES]) == command
    assert command.decoder == mark.decoder
    assert made_with(model).to_dict()["decoder_key"] == mark.key


async def test_a_model_of_another_autoencoder_keeps_its_own(on: Settings) -> None:
    keep_mark(on, made_for="vae-2")
    model = marked_decoders.equipping(on, lambda model: model)(WITH_VAE)
    assert model == WITH_VAE


def made_with(model: ModelInfo) -> Manifest:
    return Manifest.of(
        SPEC, model, image="img_1", index=0, calotype="0", torch="none", device="cpu",
        pixels_sha256="",
    )  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def empty(tmp_path: Path) -> AsyncIterator[tuple[JobStore, SigningIdentity]]:
    store = await JobStore.open(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    yield store, certificates.ensure_development(tmp_path / "signing", now=datetime.now(UTC))
    await store.close()


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


async def test_a_decoders_mark_is_a_witness(
    empty: tuple[JobStore, SigningIdentity], off: Settings
) -> None:
    store, identity = empty
    mark = keep_mark(off)
    found = await origin(
        png(a_picture(0)), log=store.hash_log, keys=[], anchors_pem=identity.anchors_pem,
        decoders=[mark],
    )  # fmt: skip
    told = body(found)
    assert (told["verdict"], told["confidence"]) == ("ours_by_decoder", "likely")
    witness = told["decoder_mark"]
    assert (witness["key"], witness["right"], witness["bits"]) == (mark.key, BITS, BITS)
    assert 0 < witness["false_max"] <= 1e-6


async def test_without_it_nothing_is_told(
    empty: tuple[JobStore, SigningIdentity], off: Settings
) -> None:
    store, identity = empty
    mark = keep_mark(off)
    other = replace(mark, bits=tuple(1 - bit for bit in mark.bits))
    found = await origin(
        png(a_picture(0)), log=store.hash_log, keys=[], anchors_pem=identity.anchors_pem,
        decoders=[other],
    )  # fmt: skip
    assert (found.verdict, body(found)["decoder_mark"]) == ("not_ours", None)
