"""What is typed of LoRAs, ControlNets and pictures, turned into a request's fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from calotype.cli.client import Client
from calotype.core.errors import InvalidInput, OperatorError

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}


def loras_of(typed: Sequence[str]) -> list[dict[str, Any]] | None:
    """``NAME`` or ``NAME:WEIGHT``, each; None where nothing was typed."""
    uses = [_weighted(each) for each in typed]
    return [{"name": name, "weight": weight} for name, weight in uses] or None


def controls_of(
    client: Client, typed: Sequence[str], canny: bool | None
) -> list[dict[str, Any]] | None:
    """``NAME=FILE`` or ``NAME=FILE:WEIGHT``, each; the files are sent. None where none was typed.

    ``canny`` is of all of them; None leaves it as they were trained.
    """
    uses = []
    for each in typed:
        name, _, rest = each.partition("=")
        given, weight = (rest, 1.0) if Path(rest).is_file() else _weighted(rest)
        use: dict[str, Any] = {"name": name, "picture": sent(client, given), "weight": weight}
        uses.append(use if canny is None else {**use, "canny": canny})
    return uses or None


def sent(client: Client, given: str) -> str:
    """The id of a picture: sends the file of this name, or takes what is no file as an id."""
    path = _file(given)
    if path is None:
        return given
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise InvalidInput(f"{path} is no PNG, JPEG or WebP", limit=[*MEDIA_TYPES])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} can't be read: {error.strerror}") from error
    return str(client.send_picture(data, media_type)["id"])


def image_id(given: str) -> str:
    """The id of a finished image: as it is signed into the file of this name, or as it is typed."""
    from calotype.cli.manifests import read_manifest

    path = _file(given)
    if path is None:
        return given
    manifest = read_manifest(path)
    if manifest is None or "image" not in manifest:
        raise InvalidInput(f"{path} doesn't say which image it is: use its id, or --source it")
    return str(manifest["image"])


def check_controls(typed: Sequence[str]) -> None:
    """Refuse what can't be read as a ControlNet and a picture, before any server is started."""
    for each in typed:
        name, equals, rest = each.partition("=")
        if not (name and equals and rest):
            raise typer.BadParameter(f"{each} isn't NAME=FILE", param_hint="--control")


def _file(given: str) -> Path | None:
    """The file of this name; None if it is an id. Raises InvalidInput if it can be neither."""
    path = Path(given)
    if path.is_file():
        return path
    if "/" in given or path.suffix:
        raise InvalidInput(f"there is no file {given}")
    return None


def _weighted(typed: str) -> tuple[str, float]:
    """``NAME:WEIGHT``; what doesn't end in a number is a name as it is."""
    name, colon, weight = typed.rpartition(":")
    try:
        return (name, float(weight)) if colon else (typed, 1.0)
    except ValueError:
        return typed, 1.0
