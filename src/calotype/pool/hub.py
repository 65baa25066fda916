"""Pulls a model from a hub of the Hugging Face kind into the registry.

The hub is the one that ``HF_ENDPOINT`` names, or huggingface_hub's own; a token is taken from
where that library keeps it (``HF_TOKEN``). Only files that count are fetched, of one commit, into a
folder of their own that stays when a pull is cut off: the next goes on in the middle of a file
(the library's own cache begins such a file anew). Each file is held against the hash that the hub
tells of it before it is used.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from calotype.core import limits
from calotype.core.errors import InvalidInput, ModelBroken, OperatorError
from calotype.core.families import SINGLE_FILE
from calotype.core.references import check_name
from calotype.core.weights import SUFFIX, WHY_NO_PICKLE, is_inside, is_pickle
from calotype.files.weights import read_json, weights_in
from calotype.pool.components import has_weights
from calotype.pool.files import CARD, counting
from calotype.pool.folders import INDEX, family_in
from calotype.pool.hub_errors import disk_error, endpoint_now, explained
from calotype.pool.intake import READ_ONLY, Added, Wish, check_free, take_in
from calotype.pool.kinds import ModelKind
from calotype.pool.parts import CONFIG
from calotype.pool.recognise import beside, kind_of_config
from calotype.pool.versions import Versions

UNKNOWN = "unknown"  # the licence of a repository that doesn't say
_COMMIT = r"[0-9a-f]{40,64}"
_DOWNLOADS = "downloads"
_PART = ".part"
_BLOCK_BYTES = 1 << 20

Report = Callable[[str], None]  # is told what goes on, in words


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub tells of it."""

    bytes: int
    sha256: str | None  # of a large one
    git_sha1: str | None  # of any other: of its length and bytes, as git has it


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str  # "owner/name"
    commit: str
    licence: str  # as it says, or UNKNOWN
    licence_link: str  # empty, if it doesn't say
    is_gated: bool
    files: Mapping[str, RemoteFile]
    endpoint: str

    @property
    def source(self) -> str:
        """For a version's record."""
        return f"hub:{self.name}@{self.commit}"


def look(name: str, revision: str | None) -> Repository:
    """What there is of this name: raises InvalidInput, or OperatorError if it can't be told."""
    from huggingface_hub import HfApi

    endpoint = endpoint_now()
    with explained(name):
        info = HfApi(endpoint=endpoint).model_info(
            name, revision=revision, files_metadata=True, timeout=limits.HUB_S_MAX
        )
    card: Any = info.card_data or {}
    files = {
        it.rfilename: RemoteFile(
            bytes=it.size,
            sha256=it.lfs.sha256 if it.lfs is not None else None,
            git_sha1=it.blob_id if it.lfs is None else None,
        )
        for it in info.siblings or ()
        if it.size is not None and _is_plain(it.rfilename)
    }
    if info.sha is None or not re.fullmatch(_COMMIT, info.sha):  # it is to be a folder's name
        raise OperatorError(f"{endpoint} doesn't say which commit of {name} it has")
    return Repository(
        name=name,
        commit=info.sha,
        licence=_licence(card, info.tags or ()),
        licence_link=str(card.get("license_link") or ""),
        is_gated=bool(info.gated),
        files=files,
        endpoint=endpoint,
    )


def check_accepted(repository: Repository, accepted: str | None) -> None:
    """Raise OperatorError unless its licence was accepted, by the name that it is shown with."""
    if accepted == repository.licence:
        return
    wrong = f"not {accepted!r}" if accepted is not None else "and has to be accepted"
    raise OperatorError(
        f"{repository.name} is under {repository.licence}, {wrong}: read it at"
        f" {repository.licence_link or f'{repository.endpoint}/{repository.name}'}, and add"
        f" --accept-licence {repository.licence}",
        field="accept-licence",
        limit=repository.licence,
    )


def pull(
    versions: Versions,
    repository: Repository,
    wish: Wish,
    *,
    file: str | None,
    taken: Mapping[ModelKind, Any],
    report: Report,
) -> Added:
    """Fetch what counts of a repository, and register it.

    ``file`` names one of several that could be meant. Raises what ``take_in`` does.
    """
    name = check_name(wish.name if wish.name is not None else repository.name.rpartition("/")[2])
    folder = versions.root / _DOWNLOADS / repository.name.replace("/", "--") / repository.commit
    fetching = _Fetching(repository, folder, report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = _wanted(repository, fetching, file)
        fetching.check_room(names)
        for each in names:
            fetching.get(each)
    except OSError as error:
        raise disk_error(error, folder) from error
    path = folder / file if file is not None else folder
    wish = replace(
        wish,
        mode="hard-link",  # to what was fetched, which then goes
        name=name,
        licence=repository.licence if wish.licence is None else wish.licence,
        source=repository.source,
    )
    added = take_in(versions, path, wish, taken=taken)
    shutil.rmtree(folder.parent, ignore_errors=True)
    return added


class _Fetching:
    """Fetches files of a repository into a folder, each once."""

    def __init__(self, repository: Repository, folder: Path, report: Report) -> None:
        self._repository, self._folder, self._report = repository, folder, report

    def json(self, name: str) -> dict[str, Any]:
        """What is in a small file."""
        size = self._repository.files[name].bytes
        if size > limits.MODEL_JSON_BYTES_MAX:
            raise ModelBroken(f"{name} is too large", field=name, limit=limits.MODEL_JSON_BYTES_MAX)
        return read_json(self.get(name))

    def check_room(self, names: list[str]) -> None:
        """Refuse what is too much, before it is fetched."""
        total = sum(self._repository.files[name].bytes for name in names)
        if total > limits.MODEL_BYTES_MAX:
            raise ModelBroken(
                f"{self._repository.name} has {total:,} bytes",
                field="repository",
                limit=limits.MODEL_BYTES_MAX,
            )
        here = sum(it.stat().st_size for it in self._folder.rglob("*") if it.is_file())
        self._report(
            f"{self._repository.name}: {len(names)} files, {total / 1e6:.1f} MB"
            + (f", {here / 1e6:.1f} MB of it are here" if here else "")
        )
        check_free(self._folder, max(0, total - here))

    def get(self, name: str) -> Path:
        """Where the file lies, whole and of the hash that the hub tells."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # they are documented
            build_hf_headers,
            disable_progress_bars,
        )

        known, target = self._repository.files[name], self._folder / name
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + _PART)
        have = part.stat().st_size if part.exists() else 0
        if have > known.bytes:
            part.unlink()
            have = 0
        if known.bytes > limits.MODEL_JSON_BYTES_MAX:
            resumed = f", from {have / 1e6:.1f} MB on" if have else ""
            self._report(f"{name}: {known.bytes / 1e6:.1f} MB{resumed}")
        disable_progress_bars()
        of = self._repository
        url = hf_hub_url(of.name, name, revision=of.commit, endpoint=of.endpoint)
        with explained(self._repository.name):
            place = get_hf_file_metadata(
                url, timeout=limits.HUB_S_MAX, endpoint=of.endpoint
            ).location
            headers = build_hf_headers()
            if urlsplit(place).netloc != urlsplit(url).netloc:  # a token is for the hub alone
                headers.pop("authorization", None)
            with part.open("ab") as writing:
                http_get(
                    place, writing, resume_size=have, headers=headers, expected_size=known.bytes
                )
        if not _is_whole(part, known):
            part.unlink()
            raise ModelBroken(
                f"{name} isn't what {self._repository.endpoint} says it is: it was damaged on the"
                " way, and is thrown away",
                field=name,
                limit=known.sha256 or known.git_sha1,
            )
        part.rename(target)
        # What is registered is a hard link to it. Only now: a part is written to if it goes on.
        target.chmod(READ_ONLY)
        return target


def _wanted(repository: Repository, fetching: _Fetching, file: str | None) -> list[str]:
    """Names of the files that make up the model; raises InvalidInput or ModelBroken."""
    names = repository.files.keys()
    # A card is for whoever answers for this installation to write, not for strangers.
    at_root = sorted(name for name in names if "/" not in name and name != CARD)
    if file is not None:
        if file not in names or not file.endswith(SUFFIX):
            raise InvalidInput(
                f"{repository.name} has no {file!r} that could be meant",
                field="file",
                limit=sorted(name for name in names if name.endswith(SUFFIX)),
            )
        return [file]
    if INDEX in names:
        return sorted({INDEX, *beside(at_root), *_of_pipeline(repository, fetching)})
    kept = beside(at_root)
    if CONFIG in names and (kind := kind_of_config(fetching.json(CONFIG))) is not None:
        weights = weights_in(at_root, fetching.json, repository.name)
        if kind is not ModelKind.CLASSIFIER:
            indices = [it for it in at_root if weights and it.endswith(".index.json")]
            return sorted({CONFIG, *kept, *weights, *indices})
        return sorted({*kept, *counting(at_root, fetching.json, repository.name)})
    files = [name for name in at_root if name.endswith(SUFFIX)]
    if len(files) == 1:
        return [*kept, *files]
    if files:
        raise InvalidInput(
            f"{repository.name} has {len(files)} files that could be meant: say which",
            field="file",
            limit=files,
        )
    why = f": {WHY_NO_PICKLE}" if any(is_pickle(name) for name in names) else ""
    raise ModelBroken(f"{repository.name} has nothing that could be used{why}", field="repository")


def _of_pipeline(repository: Repository, fetching: _Fetching) -> Iterator[str]:
    """The files of a diffusers pipeline's components."""
    index = fetching.json(INDEX)
    family = family_in(index)
    parts = [name for name, what in index.items() if isinstance(what, list) and is_inside(name)]
    lacks = False
    for part in parts:
        inside = sorted(
            name.removeprefix(f"{part}/")
            for name in repository.files
            if name.startswith(f"{part}/") and name.count("/") == 1
        )

        def read(name: str, part: str = part) -> dict[str, Any]:
            return fetching.json(f"{part}/{name}")

        is_needed = has_weights(part, family) and bool(inside)
        may_lack = not is_needed or SINGLE_FILE in repository.files
        lacks |= is_needed and not weights_in(inside, read, part, may_lack=may_lack)
        yield from (f"{part}/{name}" for name in counting(inside, read, part))
    if lacks and SINGLE_FILE in repository.files:
        yield SINGLE_FILE


def _licence(card: Any, tags: Sequence[str]) -> str:
    licence = card.get("license")
    if licence == "other":  # its own, by its own name
        licence = card.get("license_name") or licence
    if isinstance(licence, str) and licence:
        return licence
    marks = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    return marks[0] if marks else UNKNOWN


def _is_plain(name: str) -> bool:
    """A name that stays in its folder, at most one folder deep."""
    parts = name.split("/")
    return len(parts) <= 2 and all(is_inside(part) and not part.endswith(_PART) for part in parts)


def _is_whole(file: Path, known: RemoteFile) -> bool:
    if file.stat().st_size != known.bytes:
        return False
    if known.sha256 is not None:
        return _digest(file, hashlib.sha256()) == known.sha256
    git = hashlib.sha1(f"blob {known.bytes}\0".encode(), usedforsecurity=False)
    return known.git_sha1 is None or _digest(file, git) == known.git_sha1


def _digest(file: Path, digest: Any) -> str:
    with file.open("rb") as reading:
        while block := reading.read(_BLOCK_BYTES):
            digest.update(block)
    found: str = digest.hexdigest()
    return found
