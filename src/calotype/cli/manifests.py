"""What a saved picture says of itself: its manifest, read back from the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LINES = (  # what is shown of a manifest, by its own names
    ("model", "width", "height", "seed", "steps", "guidance", "sampler"),
    ("kind", "parent", "strength"),  # from version 2 on
    ("build", "calotype", "torch", "device"),
    ("pixels_sha256",),
)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest that is signed into the file; None where there is none, or it was changed.

    Read from the file and not from the job: so that what is printed is what the file will prove.
    """
    from calotype.provenance.verification import verify

    return verify(path.read_bytes(), path.suffix.removeprefix("."), anchors_pem=None).manifest


def short(manifest: dict[str, Any] | None) -> str:
    """The manifest in a few lines for people: what makes it again, with what, and what it gives."""
    if manifest is None:
        return "  no manifest can be read from it"
    plain = manifest.get("kind", "text") == "text"
    told = {k: v for k, v in manifest.items() if not (plain and k in _LINES[1]) and v is not None}
    lines = [", ".join(f"{k} {told[k]}" for k in keys if k in told) for keys in _LINES]
    added = (*manifest.get("loras", ()), *manifest.get("controls", ()))
    lines += [f"with {use['name']} {use['build']}, weight {use['weight']:g}" for use in added]
    return "\n".join(f"  {line}" for line in lines if line)
