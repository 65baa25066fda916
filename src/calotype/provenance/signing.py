"""Signs a picture: a C2PA claim that it was generated, and how to make it again.

Each file of a picture is signed itself, since any other encoding loses the claim. Works offline,
unless a time-stamping authority is named. It doesn't know where the key came from, and it never
changes a pixel. The format: C2PA specification 2.x; the source type: IPTC's digital source type
vocabulary.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import c2pa

from calotype import __version__
from calotype.core.errors import OperatorError
from calotype.provenance import keys
from calotype.provenance.certificates import SigningIdentity
from calotype.provenance.manifest import LABEL, Manifest

MEDIA_TYPES = {form: f"image/{form}" for form in ("png", "webp", "jpeg", "avif")}
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype"
GENERATED = f"{_SOURCE_TYPES}/trainedAlgorithmicMedia"
PAINTED_INTO = f"{_SOURCE_TYPES}/compositeWithTrainedAlgorithmicMedia"  # outside of its mask

MARK = "org.calotype.tile.1"  # our watermark, as C2PA's soft bindings name theirs
SOFT_BINDING = "c2pa.soft-binding"


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

    def sign(
        self,
        data: bytes,
        form: str,
        recipe: Manifest | Mapping[str, Any],
        *,
        mark: int | None = None,
        side: int = 0,
        ingredients: Sequence[bytes] = (),
    ) -> bytes:
        """Return the encoded picture with its signed claim inside; its pixels are the same.

        ``form`` is one of MEDIA_TYPES; ``recipe`` the picture's manifest, or what was signed of it
        before; ``mark`` the payload of its watermark; ``side`` its longer side in pixels if it was
        made smaller; ``ingredients`` archives of what it was made from. Raises SigningFailed if it
        can't be signed.
        """
        if form not in MEDIA_TYPES:
            raise SigningFailed(f"no way to sign {form!r}", field="form", limit=list(MEDIA_TYPES))
        told = recipe.to_dict() if isinstance(recipe, Manifest) else dict(recipe)
        signed = io.BytesIO()
        try:
            with (
                c2pa.Context.from_dict(self._settings) as context,
                self._signer() as signer,
                c2pa.Builder(_claim(told, form, mark, side), context) as builder,
            ):
                for each in ingredients:
                    builder.add_ingredient_from_archive(io.BytesIO(each))
                builder.sign(signer, MEDIA_TYPES[form], io.BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise SigningFailed(f"the picture can't be signed: {error}") from error
        return signed.getvalue()

    def _signer(self) -> Any:
        """One that signs with our key, wherever it is."""
        it = self._identity
        if not it.command:
            stamp = it.timestamp_url.encode() if it.timestamp_url else None
            chain, key = it.chain_pem.encode(), it.key_pem.encode()
            return c2pa.Signer.from_info(c2pa.C2paSignerInfo(it.algorithm, chain, key, stamp))

        def signature(text: bytes) -> bytes:
            made = keys.signature(
                text, algorithm=it.algorithm, key_pem=it.key_pem, command=it.command
            )
            return keys.as_numbers(made, it.algorithm)

        algorithm = c2pa.C2paSigningAlg[it.algorithm.upper()]
        return c2pa.Signer.from_callback(signature, algorithm, it.chain_pem, it.timestamp_url)


def source_type(recipe: Mapping[str, Any]) -> str:
    """IPTC's word for how a picture with this manifest came to be."""
    return PAINTED_INTO if recipe.get("mask_sha256") else GENERATED


def mark_of(assertions: Mapping[str, Any]) -> int | None:
    """The watermark's payload that a claim's assertions (by label) tell; None if they tell none."""
    binding = assertions.get(SOFT_BINDING)
    try:
        if binding is None or binding["alg"] != MARK:
            return None
        return int.from_bytes(base64.b64decode(binding["blocks"][0]["value"]), "big")
    except (KeyError, IndexError, TypeError, ValueError):  # somebody else's, under our name
        return None


def _claim(recipe: dict[str, Any], form: str, mark: int | None, side: int) -> dict[str, Any]:
    created = {"action": "c2pa.created", "digitalSourceType": source_type(recipe)}
    actions: list[dict[str, Any]] = [created]
    assertions = []
    if side:
        actions.append({"action": "c2pa.resized", "parameters": {"longer_side_px": side}})
    if mark is not None:
        # What a verifier of a stripped copy reads from the pixels, to find this claim again by.
        actions.append({"action": "c2pa.watermarked.bound"})
        binding = {"alg": MARK, "blocks": [{"scope": {}, "value": _base64(mark)}]}
        assertions.append({"label": SOFT_BINDING, "data": binding})
    size = f"-{side}" if side else ""
    return {
        "claim_generator_info": [{"name": "Calotype", "version": __version__}],
        "format": MEDIA_TYPES[form],
        "title": f"{recipe['image']}{size}.{form}",
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": LABEL, "data": recipe, "kind": "Json", "created": True},
            *assertions,
        ],
    }


def _base64(mark: int) -> str:
    return base64.b64encode(mark.to_bytes(8, "big")).decode()
