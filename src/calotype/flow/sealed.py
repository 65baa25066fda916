"""The sealed store as it is used: off the event loop, and what of a picture is kept in it.

A picture that isn't allowed is kept with what it takes to mark and sign it, should people allow it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from calotype.core.errors import InternalError
from calotype.core.nouns import Verdict
from calotype.flow.finish import Allowed, Raw
from calotype.provenance.manifest import MadeControl, MadeLora, MadeWith, Manifest
from calotype.safety.sealing import SealedStore
from calotype.settings import Settings


class Sealed:
    """One part of what is sealed: pictures that wait for people, or cases."""

    def __init__(self, store: SealedStore) -> None:
        self._store = store

    async def seal(self, name: str, data: bytes) -> None:
        """Keep these bytes. Raises OperatorError."""
        await asyncio.to_thread(self._store.seal, name, data)

    async def open(self, name: str) -> bytes:
        """The bytes again. Raises NotFound, OperatorError."""
        return await asyncio.to_thread(self._store.open, name)

    async def names(self) -> list[str]:
        """Of all that is sealed in this part."""
        return await asyncio.to_thread(self._store.names)

    async def destroy(self, names: Collection[str]) -> None:
        """Keep these no longer."""
        for name in names:
            await asyncio.to_thread(self._store.destroy, name)

    async def sweep(self, kept: Collection[str], *, before: datetime) -> list[str]:
        """Destroy what was sealed before then, but for these, and return the names."""
        return await asyncio.to_thread(self._store.sweep, kept, before=before)


def sealed_parts(settings: Settings) -> tuple[Sealed, Sealed]:
    """Pictures that wait for people, and cases. Raises OperatorError."""
    return (
        Sealed(SealedStore(_folder(settings, "pictures"), settings.sealed_key_path)),
        Sealed(SealedStore(_folder(settings, "cases"), settings.sealed_key_path)),
    )


def packed(raw: Raw, png: bytes) -> bytes:
    """A picture and what it takes to finish it."""
    return json.dumps(
        {
            "png": _text(png),
            "manifest": asdict(raw.manifest),
            "ingredients": [_text(each) for each in raw.ingredients],
        }
    ).encode()


def png_of(data: bytes) -> bytes:
    """The picture of what ``packed`` made."""
    return base64.b64decode(json.loads(data)["png"], validate=True)


def unpacked(data: bytes, verdict: Verdict, image: str) -> Allowed:
    """The same, to be finished by this verdict; it has to be of this image."""
    kept: dict[str, Any] = json.loads(data)
    manifest = _manifest_of(kept["manifest"])
    if manifest.image != image:
        raise InternalError(f"what is sealed for {image} is of {manifest.image}")
    ingredients = tuple(base64.b64decode(each, validate=True) for each in kept["ingredients"])
    return Allowed(base64.b64decode(kept["png"], validate=True), manifest, verdict, ingredients)


def _manifest_of(values: dict[str, Any]) -> Manifest:
    made = values.pop("made_with")
    loras = tuple(MadeLora(**each) for each in made.pop("loras"))
    controls = tuple(MadeControl(**each) for each in made.pop("controls"))
    return Manifest(**values, made_with=MadeWith(**made, loras=loras, controls=controls))


def _folder(settings: Settings, part: str) -> Path:
    return settings.sealed_folder / part


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
