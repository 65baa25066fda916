"""Reads a picture's signed claim back and says what it is worth.

Works offline and follows no address that a file names. It doesn't know which pictures this
installation made: it knows only what the file itself proves.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import c2pa

from calotype.provenance.manifest import LABEL
from calotype.provenance.signing import MEDIA_TYPES, mark_of

State = Literal["trusted", "valid", "invalid", "none"]

# C2PA's own status words; ours, for files the library can't read, begin with "calotype.".
UNREADABLE = "calotype.unreadable"
UNSUPPORTED = "calotype.unsupported"
REMOTE = "calotype.remoteManifest"
_OURS = ("signingCredential.trusted", "claimSignature.validated")


@dataclass(frozen=True)
class Report:
    """What a file says of its origin, and whether to believe it.

    trusted   signed below one of our anchors, and unchanged since
    valid     unchanged since it was signed, but anyone may have signed it
    invalid   changed since it was signed, or damaged; what it claims is left out
    none      carries no claim; that says nothing of where it came from
    """

    state: State
    codes: tuple[str, ...]  # why it isn't trusted: C2PA validation status codes
    manifest: dict[str, Any] | None = None  # ours, as signed; input like any other if only valid
    claim_generator: str | None = None  # e.g. "Calotype/0.1.0"
    is_signed_here: bool = False  # the claim is one that was signed below our anchors, whole or not
    signer: str | None = None  # who signed, as the certificate says; told only if whole
    mark: int | None = None  # the watermark's payload, as signed
    ingredients: tuple[str, ...] = ()  # titles of what it was made from, as signed


def verify(
    data: bytes,
    form: str | None = None,
    *,
    anchors_pem: str | None,
    serials: Collection[str] | None = None,
) -> Report:
    """Read the claim in an encoded picture; never raises for what is in the file.

    ``form`` ("png", "webp" ...) helps with damaged files; None finds it out from the bytes.
    ``anchors_pem`` holds the roots to trust, or None to trust nobody. With ``serials``, only the
    certificates of these numbers are trusted below them: a root may have signed others' too.
    """
    settings: dict[str, Any] = {
        # A file may name an address of its manifest: following it would let anyone's upload make
        # this server send requests.
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    }
    if anchors_pem:
        settings["trust"] = {"trust_anchors": anchors_pem}
    media_type = MEDIA_TYPES.get(form) if form else None
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(media_type, io.BytesIO(data), context=context) as reader,
        ):
            return _report(
                str(reader.get_validation_state() or "Invalid").lower(),
                reader.get_validation_results() or {},
                reader.get_active_manifest() or {},
                serials,
            )
    except c2pa.C2paError.ManifestNotFound:
        return Report("none", ())
    except c2pa.C2paError.NotSupported:
        return Report("none", (UNSUPPORTED,))
    except c2pa.C2paError as error:
        if str(error).startswith("Remote"):  # the library has no class of its own for this one
            return Report("none", (REMOTE,))
        return Report("invalid", (UNREADABLE,))
    except (KeyError, ValueError):  # a claim that is there but isn't whole
        return Report("invalid", (UNREADABLE,))


def _report(
    state: str,
    results: dict[str, Any],
    active: dict[str, Any],
    serials: Collection[str] | None,
) -> Report:
    signature = active.get("signature_info") or {}
    is_known = serials is None or str(signature.get("cert_serial_number")) in serials
    codes = tuple(_failures(results))
    good = {each.get("code") for each in (results.get("activeManifest") or {}).get("success", ())}
    is_signed_here = is_known and good.issuperset(_OURS)
    if state not in ("trusted", "valid"):
        return Report("invalid", codes, is_signed_here=is_signed_here)
    assertions = {each.get("label"): each.get("data") for each in active.get("assertions", ())}
    manifest = assertions.get(LABEL)
    generator = next(iter(active.get("claim_generator_info", ())), None)
    return Report(
        "trusted" if state == "trusted" and is_known else "valid",
        codes,
        manifest if isinstance(manifest, dict) else None,
        f"{generator.get('name')}/{generator.get('version')}" if generator else None,
        is_signed_here=is_signed_here,
        signer=signature.get("common_name") or signature.get("issuer"),
        mark=mark_of(assertions),
        ingredients=tuple(str(each.get("title")) for each in active.get("ingredients", ())),
    )


def _failures(results: dict[str, Any]) -> list[str]:
    """The failure codes of the active manifest and of its ingredients, each once."""
    parts = [results.get("activeManifest") or {}]
    parts += [each.get("validationDeltas") or {} for each in results.get("ingredientDeltas") or ()]
    return list(dict.fromkeys(fail["code"] for part in parts for fail in part.get("failure", ())))
