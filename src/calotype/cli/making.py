"""Make pictures with a server, showing progress in the terminal; shared by generate and demo."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from calotype.cli.client import Answered, Client
from calotype.cli.console import say
from calotype.cli.waiting import eta_text
from calotype.core.errors import CalotypeError, Conflict, OperatorError


class JobEnded(CalotypeError):
    """The job ended without its pictures."""


def make_pictures(client: Client, ask: dict[str, Any]) -> dict[str, Any]:
    """Run one job to its end and return its body; Ctrl-C cancels it.

    Raises Answered when the server refuses the request, JobEnded when the job fails.
    """
    job = _created(client, ask)
    if job.get("tier_detail"):
        say(f"it waits in {job['tier']}, not in {job['fell_from']}: {job['tier_detail']}")
    try:
        _show(client, job)
    except KeyboardInterrupt:
        client.cancel(job["id"])
        raise
    job = client.job(job["id"])
    if job["status"] == "failed":
        raise _failure(job)
    if job["status"] != "succeeded":
        raise Conflict(f"the job was {job['status']} by someone else")
    return job


def _created(client: Client, ask: dict[str, Any]) -> dict[str, Any]:
    """Ask for the job; Ctrl-C meanwhile cancels it once it has a name, or it would run unseen."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        job = client.create(ask)
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        client.cancel(job["id"])
        raise KeyboardInterrupt
    return job


def save_pictures(client: Client, job: dict[str, Any], paths: list[Path] | None) -> list[Path]:
    """Write the job's pictures to new files in the current folder, or each to its own of ``paths``.

    ``paths`` has one path for each picture asked for; one that was withheld leaves its own unused.
    Raises JobEnded where there is nothing to write, and OperatorError where it can't be written.
    """
    tell_withheld(job)
    if not job["images"]:
        raise JobEnded("no picture is left: the safety check withheld them all")
    if paths is None:
        return [
            _write_new(Path(f"calotype-{image['seed']}.png"), client.download(image["url"]))
            for image in job["images"]
        ]
    return [_write(client, image, paths[image["index"]]) for image in job["images"]]


def tell_withheld(job: dict[str, Any]) -> None:
    """Say which of the pictures asked for the safety check withheld, and why where it is told."""
    refused, count = job.get("refused") or [], job["n"] - len(job["images"])
    for each in refused:
        why = each.get("detail") or each.get("category") or "it gives no reason"
        say(f"picture {each['index'] + 1} of {job['n']} was withheld by the safety check: {why}")
    if count > 0 and not refused:
        say(f"{count} of {job['n']} pictures withheld by the safety check")


def numbered(path: Path, count: int) -> list[Path]:
    """Name ``count`` files after one: itself, or FILE-1.png, FILE-2.png ..."""
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]


def _show(client: Client, job: dict[str, Any]) -> None:
    done: dict[int, int] = {}  # steps by image
    is_cut = False  # the text, and that is said
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=36),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("asking", total=job["steps"] * job["n"])
        for kind, data in client.follow(job):
            if kind == "step":
                done[data["image"]] = data["step"]
                progress.update(task, total=data["steps"] * job["n"])  # the engine's own count
                if (cut := data.get("tokens_cut")) and not is_cut:
                    is_cut = True
                    progress.console.print(
                        f"the text is too long: its last {cut} tokens do nothing"
                    )
            elif kind in ("queued", "attempt_failed"):
                done.clear()
            progress.update(task, completed=sum(done.values()), description=_say(kind, data))


# Of pictures, by the ending of the file that they are saved to.
FORMS = {".png": "png", ".webp": "webp", ".avif": "avif", ".jpg": "jpeg", ".jpeg": "jpeg"}
_WORDS = {  # for events that aren't about the place in the line
    "promoted": "in line; it has waited its tier's maximum, and goes before others",
    "loading": "its model is being loaded",
    "load_failed": "its model couldn't be loaded; once more",
    "started": "drawing",
    "step": "drawing",
    "image_finished": "finishing",
    "attempt_failed": "the engine was lost; once more",
    "handed_back": "its engine goes, or has no room for it; another goes on",
    "pending_safety": "waiting for its safety check",
    "in_review": "waiting for a person to look at it; Ctrl-C ends the wait, and the job",
}


def _say(kind: str, data: dict[str, Any]) -> str:
    if kind not in ("queued", "eta"):
        return _WORDS.get(kind, kind)
    place, eta = data.get("position"), data if kind == "eta" else data.get("eta")
    said = f"in line, place {place}" if place else "in line"
    return f"{said}; {eta_text(eta)}" if eta else said


def _failure(job: dict[str, Any]) -> CalotypeError:
    error = job.get("error") or {}
    return Answered({"detail": "the job failed", **error})


def _write(client: Client, image: dict[str, Any], path: Path) -> Path:
    url = image["url"] if path.suffix == ".png" else image["urls"][FORMS[path.suffix]]
    if url is None:
        raise JobEnded("the picture was taken away")
    content = client.download(url)
    with _writing(path):
        path.write_bytes(content)
    return path


def _write_new(path: Path, content: bytes) -> Path:
    """Write to ``path``, or to the first of path-2, path-3 ... that isn't there yet."""
    candidate, number = path, 1
    while True:
        try:
            with _writing(candidate), candidate.open("xb") as file:
                file.write(content)
        except FileExistsError:
            number += 1
            candidate = path.with_stem(f"{path.stem}-{number}")
        else:
            return candidate


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the disk says into a sentence; a file that is there already is the caller's."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise OperatorError(f"can't write {path.absolute()}: {error.strerror}") from error
