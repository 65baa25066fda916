"""Brings a list of known pictures in from a hash exchange, page by page, and keeps it up to date.

The API is that of ThreatExchange's ``threat_updates`` (Meta, "ThreatExchange API reference"): JSON
in pages, ``data`` with ``id``, ``indicator``, ``type``, ``last_updated`` and ``should_delete``, and
``paging.next``. The first pull takes all; later ones what changed since, until that is so long ago
that deletions may be forgotten: then all again. An ``ETag`` spares a pull where nothing changed.

A pull that ends anywhere goes on from its last page. The list that judges is swapped whole, at the
end, and not for one that is much shorter unless somebody says so: a list that was emptied by
mistake, or by somebody else, would let known pictures through.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.safety.hash_lists import SUFFIX, check_name, is_severe, severity_line
from calotype.safety.pdq import from_hex, to_hex

PDQ = "HASH_PDQ"
FIELDS = "id,indicator,type,last_updated,should_delete"
SHRINK_SHARE_MAX = 0.2  # of a list that may go missing in one pull
ALL_AGAIN_S = 85 * 24 * 3600.0  # exchanges remember deletions for 90 days
_GONE = "-"  # in place of the hash of a deletion, in a draft


@dataclass(frozen=True)
class Exchange:
    """Where a list comes from."""

    name: str
    url: str
    token: str = ""  # sent as a bearer token; never to another host
    ca_file: str | None = None  # PEM of who vouches for the host, if not the usual ones


@dataclass(frozen=True)
class State:
    """How far a list is; kept beside it."""

    url: str
    etag: str = ""
    since: int = 0  # updates from this second on are wanted next
    all_at: float = 0.0  # when all was last taken, seconds since 1970
    pulled_at: float = 0.0  # when it was last complete
    # Of a pull under way:
    next_url: str = ""  # its next page; "": none is under way
    is_all: bool = True
    latest: int = 0  # the latest update seen
    pages: int = 0
    draft_bytes: int = 0  # of the draft, that are whole
    draft_etag: str = ""


@dataclass(frozen=True)
class Pulled:
    """What came of it."""

    hashes: int  # in the list now
    changes: int  # updates that came
    pages: int
    is_new: bool  # False: the exchange has nothing else than we


class Puller:
    """Pulls one list into a folder of lists."""

    def __init__(
        self,
        exchange: Exchange,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises OperatorError for a name or an address that can't be."""
        check_name(exchange.name)
        self._origin = _origin(exchange.url, exchange.name)
        self._exchange, self._clock, self._sleep = exchange, clock, sleep
        self._list = folder / f"{exchange.name}{SUFFIX}"
        self._state_path = folder / f"{exchange.name}.exchange.json"
        self._draft = folder / f".{exchange.name}.pull"

    def pull(self, *, force: bool = False) -> Pulled:
        """Bring the list up to date; raises OperatorError, and the list is then as it was.

        ``force``: take it though it is much shorter than before.
        """
        self._list.parent.mkdir(parents=True, exist_ok=True)
        state = self.state()
        if not state.next_url:
            state = self._begun(state)
        with self._client() as client:
            while state.next_url:
                page, etag = self._page(client, state)
                if page is None:
                    self._save(replace(state, next_url="", pulled_at=self._clock()))
                    return Pulled(len(self._kept()), 0, state.pages, is_new=False)
                state = self._taken(state, page, etag)
                self._save(state)
        return self._finished(state, force=force)

    def state(self) -> State:
        """How far the list is; of another address, or unreadable: nowhere."""
        try:
            found = State(**json.loads(self._state_path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return State(self._exchange.url)
        is_ours = found.url == self._exchange.url and (self._list.exists() or bool(found.next_url))
        return found if is_ours else State(self._exchange.url)

    def _begun(self, state: State) -> State:
        is_all = not state.since or self._clock() - state.all_at > ALL_AGAIN_S
        since = 0 if is_all else state.since
        asked: dict[str, str | int] = {"types": PDQ, "fields": FIELDS, "start_time": since}
        asked |= {"page_size": limits.HASH_PAGE_ENTRIES_MAX}
        url = str(httpx.URL(self._exchange.url).copy_merge_params(asked))
        self._draft.write_bytes(b"")
        return replace(
            state, next_url=url, is_all=is_all, latest=since, pages=0, draft_bytes=0, draft_etag=""
        )

    def _client(self) -> httpx.Client:
        headers = (
            {"Authorization": f"Bearer {self._exchange.token}"} if self._exchange.token else {}
        )
        verify: Any = True
        if self._exchange.ca_file:
            import ssl

            try:
                verify = ssl.create_default_context(cafile=self._exchange.ca_file)
            except OSError as error:
                raise self._wrong(f"{self._exchange.ca_file} can't be read: {error}") from error
        return httpx.Client(
            headers=headers, timeout=limits.HASH_PAGE_S_MAX, follow_redirects=False, verify=verify
        )

    def _page(self, client: httpx.Client, state: State) -> tuple[dict[str, Any] | None, str]:
        """One page and its ETag; None where nothing changed. Tried again where that may help."""
        if state.pages >= limits.HASH_PAGES_MAX:
            raise self._wrong(f"it has more than {limits.HASH_PAGES_MAX:,} pages")
        # Only a whole pull of the same question has an answer that can be the same.
        tag = state.etag if state.pages == 0 else ""
        reason = ""
        for again in range(limits.HASH_PAGE_TRIES):
            if again:
                self._sleep(2.0**again)
            try:
                status, body, etag = self._got(client, state.next_url, tag)
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if status == httpx.codes.NOT_MODIFIED and tag:
                return None, etag
            if status == httpx.codes.OK:
                return self._read(body), etag
            reason = f"it answered {status}"
            if status != httpx.codes.TOO_MANY_REQUESTS and status < 500:
                break
        raise self._wrong(f"{reason} (page {state.pages + 1}; the next pull goes on from there)")

    def _got(self, client: httpx.Client, url: str, etag: str) -> tuple[int, bytes, str]:
        headers = {"If-None-Match": etag} if etag else {}
        with client.stream("GET", url, headers=headers) as answer:
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > limits.HASH_PAGE_BYTES_MAX:
                    raise self._wrong(f"a page has more than {limits.HASH_PAGE_BYTES_MAX:,} bytes")
            return answer.status_code, bytes(body), answer.headers.get("ETag", "")

    def _read(self, body: bytes) -> dict[str, Any]:
        try:
            page = json.loads(body)
        except ValueError as error:
            raise self._wrong(f"a page isn't JSON: {error}") from error
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise self._wrong("a page has no list under data")
        return page

    def _taken(self, state: State, page: dict[str, Any], etag: str) -> State:
        """The state after a page, which is written to the draft first."""
        lines, latest = [], state.latest
        for entry in page["data"]:
            line, at = self._entry(entry)
            lines.append(line)
            latest = max(latest, at)
        with self._draft.open("r+b") as file:
            file.truncate(state.draft_bytes)  # what a pull that was cut off had begun
            file.seek(state.draft_bytes)
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if size > limits.HASH_LIST_BYTES_MAX:
            raise self._wrong(f"it is larger than {limits.HASH_LIST_BYTES_MAX:,} bytes")
        return replace(
            state,
            next_url=self._next(page, state.next_url),
            latest=latest,
            pages=state.pages + 1,
            draft_bytes=size,
            draft_etag=state.draft_etag or etag,
        )

    def _entry(self, entry: Any) -> tuple[str, int]:
        """A line of the draft, "id hash" or "id -", "" for what isn't PDQ; and when it changed."""
        try:
            key, at = str(int(entry["id"])), int(entry.get("last_updated", 0))
            if entry.get("should_delete"):
                return f"{key} {_GONE}\n", at
            if entry["type"] != PDQ:
                return "", at
            return f"{key} {to_hex(from_hex(str(entry['indicator'])))}\n", at
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise self._wrong(f"an entry can't be read ({error!r}): {str(entry)[:100]}") from error

    def _next(self, page: dict[str, Any], now: str) -> str:
        paging = page.get("paging")
        found = paging.get("next") if isinstance(paging, dict) else None
        if not found:
            return ""
        if _origin(str(found), self._exchange.name) != self._origin:
            raise self._wrong("its next page is at another host")
        if found == now:
            raise self._wrong("its next page is the same page")
        return str(found)

    def _finished(self, state: State, *, force: bool) -> Pulled:
        kept = {} if state.is_all else self._kept()
        changes = 0
        for key, digits in self._drafted():
            changes += 1
            if digits == _GONE:
                kept.pop(key, None)
            else:
                kept[key] = digits
        had = len(self._kept())
        if len(kept) > limits.HASHES_MAX:
            raise self._wrong(f"it has {len(kept):,} hashes", limit=limits.HASHES_MAX)
        if len(kept) < had * (1 - SHRINK_SHARE_MAX) and not force:
            self._save(State(self._exchange.url) if state.is_all else replace(state, next_url=""))
            raise self._wrong(
                f"it has {len(kept):,} hashes now, and had {had:,}; if that is meant, use --force",
                limit={"share_lost_max": SHRINK_SHARE_MAX},
            )
        lines = [*severity_line(is_severe(self._list)), *map(_line, kept.items())]
        _write(self._list, "".join(f"{line}\n" for line in lines))
        now = self._clock()
        self._save(
            State(
                self._exchange.url,
                etag=state.draft_etag,
                since=state.latest,
                all_at=now if state.is_all else state.all_at,
                pulled_at=now,
            )
        )
        self._draft.unlink(missing_ok=True)
        return Pulled(len(kept), changes, state.pages, is_new=True)

    def _kept(self) -> dict[str, str]:
        """The list as it is: hash by id."""
        try:
            lines = self._list.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise self._wrong(f"{self._list} can't be read: {error}") from error
        pairs = (line.partition(",") for line in lines if line and not line.startswith("#"))
        return {key or digits: digits for digits, _, key in pairs}

    def _drafted(self) -> Iterator[tuple[str, str]]:
        with self._draft.open(encoding="utf-8") as lines:
            for line in lines:
                key, _, digits = line.rstrip("\n").partition(" ")
                yield key, digits

    def _save(self, state: State) -> None:
        _write(self._state_path, json.dumps(asdict(state)))

    def _wrong(self, why: str, limit: Any = None) -> OperatorError:
        name = self._exchange.name
        return OperatorError(f"the exchange {name}: {why}", field=f"exchanges.{name}", limit=limit)


def _line(kept: tuple[str, str]) -> str:
    key, digits = kept
    return f"{digits},{key}"


def _origin(url: str, name: str) -> tuple[str, str, int | None]:
    """Scheme, host and port; raises OperatorError for what isn't HTTPS, but to this machine."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise OperatorError(f"{url!r} is no address", field=f"exchanges.{name}.url") from error
    is_here = parts.scheme == "http" and parts.host in ("127.0.0.1", "localhost", "::1")
    if not parts.host or not (parts.scheme == "https" or is_here):
        raise OperatorError(
            f"the exchange {name}: {url} isn't an address by HTTPS", field=f"exchanges.{name}.url"
        )
    return parts.scheme, parts.host, parts.port


def _write(path: Path, text: str) -> None:
    """All of a file or nothing of it."""
    beside = path.with_name(f".{path.name}.draft")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
