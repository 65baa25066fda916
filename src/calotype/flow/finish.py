"""From raw pixels to signed files, off the event loop: judge, mark, encode, sign; stores nothing.

The same for the pictures that people send: read, judge, bring to size, or tell where they came
from; a stranger's file is decoded here, and not in the server. Other forms and sizes of a delivered
picture are made here too. The work is done in a small pool of processes (``workers``). Nothing
comes back from it without its verdict, and only an allowed picture is marked and signed; one that
isn't comes back as a bare PNG, to be sealed at once or dropped. What can't be judged, marked or
signed raises, and the job is held or fails: never delivered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import InternalError
from calotype.core.hash_log import LogEntry
from calotype.core.nouns import Verdict, VerdictKind
from calotype.core.picture_checks import CheckUse
from calotype.delivery import formats, inputs
from calotype.flow.examine import Seen, examine
from calotype.flow.workers import Workers
from calotype.provenance import fingerprint, xmp
from calotype.provenance.certificates import SigningIdentity
from calotype.provenance.ingredients import again, archive, has_picture
from calotype.provenance.manifest import Manifest
from calotype.provenance.signing import Signer, SigningFailed, source_type
from calotype.provenance.stable_signature import DecoderMark
from calotype.provenance.verification import verify
from calotype.provenance.watermark import MarkKey, embed, payload_of
from calotype.safety import phash
from calotype.safety.current import CurrentCheck
from calotype.safety.pictures import Scored
from calotype.safety.policies import Policy
from calotype.safety.setup import SafetySetup


@dataclass(frozen=True)
class Raw:
    """A picture as the engine delivered it."""

    pixels: bytes  # RGB, uint8, height x width x 3, C order
    width: int
    height: int
    scores: dict[str, float]  # classifier scores by check name
    manifest: Manifest  # its pixels_sha256 is filled in here
    uses: tuple[CheckUse, ...] = ()  # the checks that its model's pictures have to pass
    unchecked: Mapping[str, str] = field(default_factory=dict)  # those that failed: why
    degraded: Mapping[str, str] = field(default_factory=dict)  # those with a place down: why
    policy: Policy | None = None  # by which it is judged; None: the default
    pool: str = ""  # in whose store it will lie; "": everybody's
    ingredients: tuple[bytes, ...] = ()  # what it was made from, as provenance.ingredients keeps it


@dataclass(frozen=True)
class Finished:
    """A judged picture; without files unless its verdict allows it."""

    verdict: Verdict
    files: dict[str, bytes]  # signed, by format
    pixels_sha256: str  # before it was marked: what the same recipe gives again
    entry: LogEntry | None = None  # to be logged before it is delivered; None unless allowed
    kept: bytes = b""  # a PNG of one that isn't allowed, unmarked and unsigned: to be sealed


@dataclass(frozen=True)
class Allowed:
    """A picture that people allow, as it was kept, and their verdict."""

    png: bytes
    manifest: Manifest  # its pixels_sha256 is filled in here
    verdict: Verdict
    ingredients: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class TakenIn:
    """A picture that was sent, judged; without a file unless its verdict allows it."""

    verdict: Verdict
    png: bytes
    width: int  # pixels
    height: int  # pixels
    pixels_sha256: str
    ingredient: bytes | None = None  # if the file that was sent had a claim of its own


@dataclass(frozen=True)
class Wanted:
    """A kept picture, and how a row wants it."""

    file: bytes  # PNG
    width: int  # pixels
    height: int  # pixels
    channels: int  # 3: RGB, 1: grey, for a mask
    title: str = ""  # its id, as an ingredient; "" if nobody asks for one
    ingredient: bytes | None = None  # as it was kept when the picture was sent


@dataclass(frozen=True)
class Brought:
    """A kept picture as a row wants it; without bytes unless its verdict allows it."""

    verdict: Verdict
    raw: bytes  # uint8, height x width x channels
    pixels_sha256: str  # of all of the kept picture, RGB
    ingredient: bytes | None = None


@dataclass(frozen=True)
class Rendition:
    """A delivered picture in another form, or smaller."""

    png: bytes  # signed, as it was delivered
    form: str
    side: int  # pixels of its longer side; 0: as large as it is


class Finisher:
    """The pool of finishing processes."""

    def __init__(
        self,
        processes: int,
        identity: SigningIdentity,
        mark_key: MarkKey,
        lists: Sequence[Path] = (),
        setup: SafetySetup | None = None,
    ) -> None:
        tools = (identity, mark_key, tuple(lists), setup)
        self._workers = Workers(processes, _prepare, tools)

    async def finish(self, raw: Raw) -> Finished:
        """Judge, mark, encode and sign one picture.

        Raises SafetyUnavailable (it can't be judged), SigningFailed, or InternalError when the
        processes keep dying on it, or take more than FINISH_S_MAX.
        """
        return await self._workers.do(_finish, raw)

    async def let_out(self, allowed: Allowed) -> Finished:
        """Mark, encode and sign a picture that people allow. Raises what ``finish`` does."""
        return await self._workers.do(_let_out, allowed)

    async def take_in(self, data: bytes) -> TakenIn:
        """Read and judge the file of a picture that was sent.

        Raises InvalidInput for what can't be taken, else as ``finish`` does.
        """
        return await self._workers.do(_take_in, data)

    async def bring(self, wanted: Wanted) -> Brought:
        """Judge a kept picture again, by what is known now, and bring it to size.

        Raises what ``take_in`` does.
        """
        return await self._workers.do(_bring, wanted)

    async def render(self, rendition: Rendition) -> bytes:
        """Encode, mark and sign a delivered picture in another form or size.

        Its PNG says what is signed again; raises SigningFailed if that isn't whole.
        """
        return await self._workers.do(_render, rendition)

    async def examine(
        self, data: bytes, keys: Sequence[MarkKey], decoders: Sequence[DecoderMark] = ()
    ) -> Seen:
        """Look at any file, as ``flow.examine`` does; nothing that is in it makes this raise."""
        return await self._workers.do(_examine, (data, tuple(keys), tuple(decoders)))

    def stop(self) -> None:
        """End the processes; what they worked on is lost."""
        self._workers.stop()


@dataclass(frozen=True)
class _Tools:
    """What one finishing process works with."""

    check: CurrentCheck
    signer: Signer
    mark_key: MarkKey
    anchors_pem: str  # of our own claims
    serials: tuple[str, ...]  # of our own certificates


_tools: list[_Tools] = []  # one, once the process is prepared


def _prepare(
    identity: SigningIdentity,
    mark_key: MarkKey,
    lists: Sequence[Path],
    setup: SafetySetup | None,
) -> None:
    """Set up a process: its tools."""
    check = CurrentCheck(lists, setup)
    _tools[:] = [_Tools(check, Signer(identity), mark_key, identity.anchors_pem, identity.serials)]


def _finish(raw: Raw) -> Finished:
    if raw.policy is not None and raw.policy.pool not in ("", raw.pool):
        raise InternalError(
            f"a picture that will lie in the store of {raw.pool!r} isn't judged by "
            f"{raw.policy.name}, whose pictures lie in that of {raw.policy.pool!r}"
        )
    tools = _tools[0]
    pixels = np.frombuffer(raw.pixels, np.uint8).reshape(raw.height, raw.width, 3)
    digest = hashlib.sha256(raw.pixels).hexdigest()
    scored = Scored(raw.scores, raw.uses, raw.unchecked, is_degraded=bool(raw.degraded))
    verdict = tools.check.judge(pixels, scored, raw.policy)
    if verdict.kind is not VerdictKind.ALLOW:
        return Finished(verdict, {}, digest, kept=formats.encode(pixels, "png"))
    return _signed(pixels, Allowed(b"", raw.manifest, verdict, raw.ingredients))


def _let_out(allowed: Allowed) -> Finished:
    return _signed(inputs.read(allowed.png, is_kept=True), allowed)


def _signed(pixels: NDArray[np.uint8], allowed: Allowed) -> Finished:
    if allowed.verdict.kind is not VerdictKind.ALLOW:
        raise InternalError(f"{allowed.manifest.image} isn't allowed: it isn't signed")
    tools, digest = _tools[0], _digest(pixels)
    height, width, _ = pixels.shape
    manifest = replace(allowed.manifest, pixels_sha256=digest)
    payload = payload_of(digest, tools.mark_key)
    marked = embed(pixels, payload, tools.mark_key)
    recipe = manifest.to_dict()
    packet = xmp.packet(recipe, source_type(recipe))
    files = {
        form: tools.signer.sign(
            formats.encode(marked, form, xmp=packet),
            form,
            recipe,
            mark=payload,
            ingredients=allowed.ingredients,
        )
        for form in formats.MADE_AT_ONCE
    }
    entry = LogEntry(
        image=manifest.image,
        mark=payload,
        mark_key=tools.mark_key.id,
        files={form: hashlib.sha256(data).hexdigest() for form, data in files.items()},
        phash=phash.hashes(phash.small(marked))[0],
        width=width,
        height=height,
        sketch=fingerprint.to_bytes(fingerprint.sketch(marked)),
        at=datetime.now(UTC),
    )
    return Finished(allowed.verdict, files, digest, entry)


def _render(rendition: Rendition) -> bytes:
    tools, side = _tools[0], rendition.side
    claim = verify(rendition.png, "png", anchors_pem=tools.anchors_pem)
    if claim.manifest is None or claim.mark is None:
        raise SigningFailed("the picture's own PNG has no whole claim of ours to sign again")
    pixels = inputs.read(rendition.png, is_kept=True)
    if side:
        # Smaller, the mark is weaker; marked again it is as strong as in a picture of that size.
        pixels = embed(formats.resized(pixels, side), claim.mark, tools.mark_key)
    packet = xmp.packet(claim.manifest, source_type(claim.manifest))
    data = formats.encode(pixels, rendition.form, xmp=packet)
    return tools.signer.sign(
        data,
        rendition.form,
        claim.manifest,
        mark=claim.mark,
        side=side,
        ingredients=again(rendition.png, "png"),
    )


def _examine(given: tuple[bytes, tuple[MarkKey, ...], tuple[DecoderMark, ...]]) -> Seen:
    data, keys, decoders = given
    return examine(
        data,
        keys=keys,
        anchors_pem=_tools[0].anchors_pem,
        serials=_tools[0].serials,
        decoders=decoders,
    )


def _take_in(data: bytes) -> TakenIn:
    pixels = inputs.read(data)
    height, width, _ = pixels.shape
    verdict = _tools[0].check.judge_input(pixels)
    allowed = verdict.kind is VerdictKind.ALLOW
    png = formats.encode(pixels, "png") if allowed else b""
    ingredient = _claimed(data) if allowed else None
    return TakenIn(verdict, png, width, height, _digest(pixels), ingredient)


def _bring(wanted: Wanted) -> Brought:
    pixels = inputs.read(wanted.file, is_kept=True)
    verdict = _tools[0].check.judge_input(pixels)
    allowed = verdict.kind is VerdictKind.ALLOW
    size = (wanted.width, wanted.height, wanted.channels)
    ingredient = wanted.ingredient
    if ingredient is not None and has_picture(ingredient):  # kept by a release that took it
        ingredient = None
    if ingredient is None and wanted.title and allowed:
        ingredient = archive(wanted.file, "png", wanted.title, anchors_pem=_tools[0].anchors_pem)
    raw = inputs.brought(pixels, *size) if allowed else b""
    return Brought(verdict, raw, _digest(pixels), ingredient)


def _claimed(data: bytes) -> bytes | None:
    """The archive of a file that has a claim of its own, which decoding it would lose."""
    if verify(data, anchors_pem=_tools[0].anchors_pem).state == "none":
        return None
    form = inputs.form_of(data)
    return archive(data, form, "what was sent", anchors_pem=_tools[0].anchors_pem)


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()
