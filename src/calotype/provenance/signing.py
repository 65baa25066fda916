"""Signs a picture: a C2PA claim that it was generated, and how to make it again.

Works offline: no time-stamping authority is asked. It doesn't know where the key came from, and it
never changes a pixel. The format: C2PA specification 2.x; the source type: IPTC's digital source
type vocabulary.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import c2pa

from calotype import __version__
from calotype.core.errors import OperatorError
from calotype.provenance.certificates import SigningIdentity
from calotype.provenance.manifest import LABEL, Manifest

MEDIA_TYPES = {"png": "image/png", "webp": "image/webp"}
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype"
GENERATED = f"{_SOURCE_TYPES}/trainedAlgorithmicMedia"
PAINTED_INTO = f"{_SOURCE_TYPES}/compositeWithTrainedAlgorithmicMedia"  # outside of its mask

MARK = "org.calotype.tile.1"  # our watermark, as C2PA's soft bindings name theirs


class SigningFailed(OperatorError):
    """The picture couldn't be signed; it mustn't be delivered unsigned."""

    kind = "signing-failed"
    title = "The picture can't be signed"


class Signer:
    """Signs with one identity. Cheap to make; use one from one thread at a time."""

    def __init__(self, identity: SigningIdentity) -> None:
        self._identity = identity
        # A thumbnail would add some 50 KB and most of the time for a copy of what is signed.
        self._settings = {"builder": {"thumbnail": {"enabled": False}}}

    def sign(self, data: bytes, form: str, manifest: Manifest, *, mark: int | None = None) -> bytes:
        """Return the encoded picture with its signed claim inside; its pixels are the same.

        ``form`` is "png" or "webp"; ``mark`` is the payload of its watermark. Raises
        SigningFailed if it can't be signed.
        """
        if form not in MEDIA_TYPES:
            raise SigningFailed(f"no way to sign {form!r}", field="form", limit=list(MEDIA_TYPES))
        signed = io.BytesIO()
        try:
            info = c2pa.C2paSignerInfo(
                self._identity.algorithm,
                self._identity.chain_pem.encode(),
                self._identity.key_pem.encode(),
                None,
            )
            with (
                c2pa.Context.from_dict(self._settings) as context,
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(_claim(manifest, form, mark), context) as builder,
            ):
                builder.sign(signer, MEDIA_TYPES[form], io.BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise SigningFailed(f"the picture can't be signed: {error}") from error
        return signed.getvalue()


def _claim(manifest: Manifest, form: str, mark: int | None) -> dict[str, Any]:
    source_type = PAINTED_INTO if manifest.made_with.mask_sha256 else GENERATED
    created = {"action": "c2pa.created", "digitalSourceType": source_type}
    actions, assertions = [created], []
    if mark is not None:
        # What a verifier of a stripped copy reads from the pixels, to find this claim again by.
        actions.append({"action": "c2pa.watermarked.bound"})
        binding = {"alg": MARK, "blocks": [{"scope": {}, "value": _base64(mark)}]}
        assertions.append({"label": "c2pa.soft-binding", "data": binding})
    return {
        "claim_generator_info": [{"name": "Calotype", "version": __version__}],
        "format": MEDIA_TYPES[form],
        "title": f"{manifest.image}.{form}",
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": LABEL, "data": manifest.to_dict(), "kind": "Json", "created": True},
            *assertions,
        ],
    }


def _base64(mark: int) -> str:
    return base64.b64encode(mark.to_bytes(8, "big")).decode()
