"""``calotype verify FILE``: where a picture came from, by its claim, its mark and the hash log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calotype.cli.console import AsJson, Home, print_json
from calotype.core.errors import InvalidInput

if TYPE_CHECKING:
    from calotype.flow.verify import Origin
    from calotype.jobs.store import JobStore


def verify(
    *,
    file: Annotated[Path, typer.Argument(help="A picture's file.", show_default=False)],
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Tell where a picture came from, with what this home folder knows, offline.

    Exit code 1 unless it was made here.
    """
    from calotype.cli.home import with_store
    from calotype.flow.identity import trust_of
    from calotype.flow.marked_decoders import marks_of
    from calotype.flow.verify import body, origin
    from calotype.provenance import watermark_keys
    from calotype.settings import Settings

    data = read_bounded(file)
    settings = Settings(home=home)
    anchors_pem, serials = trust_of(settings)

    async def look(store: JobStore) -> Origin:
        return await origin(
            data,
            log=store.hash_log,
            keys=watermark_keys.load(settings.secrets_folder / "watermark"),
            anchors_pem=anchors_pem,
            serials=serials,
            files=store.files,
            decoders=marks_of(settings),
        )

    found = with_store(home, look)
    if as_json:
        print_json(body(found))
    else:
        level, why = found.confidence
        print(f"{file}: {found.sentence} ({level.replace('_', ' ')}: {why})")
        print("\n".join(f"  {line}" for line in _lines(found)))
    if not found.verdict.startswith("ours"):
        raise typer.Exit(1)


def read_bounded(file: Path) -> bytes:
    """A file as large as a picture may be. Raises InvalidInput."""
    from calotype.core import limits

    try:
        if file.stat().st_size > limits.PICTURE_BYTES_MAX:
            most = limits.PICTURE_BYTES_MAX
            raise InvalidInput(f"{file} has more than {most:,} bytes", field="file", limit=most)
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}", field="file") from error


def _lines(found: Origin) -> list[str]:
    claim, mark, logged = found.claim, found.mark, found.logged
    codes = f" ({', '.join(claim.codes)})" if claim.codes else ""
    lines = [f"C2PA      {claim.state}{codes}"]
    if not found.is_picture:
        return [*lines, "pixels    they can't be read, so no mark was looked for"]
    if mark is None:
        lines.append("watermark none of ours")
    else:
        payload = "its payload can't be read" if mark.payload is None else f"{mark.payload:016x}"
        lines.append(
            f"watermark {payload}, key {mark.key}; by chance in less than "
            f"{max(mark.false_max, 1e-30):.0e} of unmarked pictures"
        )
        placed = mark.placed
        if (placed.turn % 360, placed.scale, placed.is_mirrored) != (0, 1, False):
            mirrored = "mirrored, " if placed.is_mirrored else ""
            lines.append(f"          since then {mirrored}scaled by {placed.scale:.2f}, "
                         f"turned by {(placed.turn + 180) % 360 - 180:.1f} degrees")  # fmt: skip
    if (decoder := found.decoder) is not None:
        lines.append(
            f"decoder   {decoder.right} of {decoder.bits} bits of key {decoder.key}; by"
            f" chance in less than {decoder.false_max:.0e} of unmarked pictures"
        )
    if logged is None:
        return [*lines, "hash log  nothing of it"]
    entry = logged.kept.entry
    likeness = "" if logged.likeness is None else f", likeness {logged.likeness:.3f}"
    lines.append(f"hash log  {entry.image}, by its {logged.by}{likeness}")
    proven = "proven" if logged.is_proven else "NOT PROVEN: the log was changed"
    lines.append(f"          entry {logged.kept.number} of {logged.count}, "
                 f"{entry.at:%Y-%m-%d %H:%M:%S} UTC, {proven}")  # fmt: skip
    lines.append(f"          head {logged.head.hex()}")
    return lines
