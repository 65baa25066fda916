"""A client of the native API, for the commands: ask for a job, follow it, fetch its pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
from httpx_sse import connect_sse

from calotype.core.errors import CalotypeError, KeyInFlight, OperatorError, StoreAway
from calotype.core.ids import new_id

_TIMEOUT = httpx.Timeout(30.0)
_RECONNECTS_MAX = 10  # in a row, while following a job
_RECONNECT_S = 0.5
_PASSING = [f"urn:calotype:problem:{one.kind}" for one in (KeyInFlight, StoreAway)]
_FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Server:
    """Where a server is, and a key it knows."""

    url: str
    key: str = field(repr=False)

    @property
    def page(self) -> str:
        """The page's address, signed in."""
        return f"{self.url}/#key={self.key}"


class Answered(CalotypeError):
    """The server answered with a problem; it says of itself what the server said."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("detail") or body.get("title") or "the server refused"))
        self.body = body

    def problem(self) -> dict[str, Any]:
        """The server's own body."""
        return {"type": "urn:calotype:problem:internal", **self.body}


class Unreachable(OperatorError):
    """No answer came; unless the connection was refused, the request may have been carried out."""

    def __init__(self, url: str, error: httpx.TransportError) -> None:
        super().__init__(f"can't reach {url}: {error}")
        self.is_refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


class Client:
    """One connection to a server; raises Answered for problems, OperatorError if unreachable."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._http = httpx.Client(
            base_url=server.url,
            headers={"Authorization": f"Bearer {server.key}"},
            timeout=_TIMEOUT,
            trust_env=False,  # a proxy has no business between a person and their own server
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def create(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Ask for a job; what is None is left out.

        Asks again where the connection is lost, and never makes a second job by that.
        """
        body = {name: value for name, value in ask.items() if value is not None}
        headers = {"Idempotency-Key": new_id("ask")}
        for tries_left in reversed(range(_RECONNECTS_MAX)):
            try:
                return self._json("POST", "/v1/jobs", json=body, headers=headers)
            except Unreachable as error:
                if not tries_left or (error.is_refused and tries_left == _RECONNECTS_MAX - 1):
                    raise  # nobody was there from the start
            except Answered as error:
                if not tries_left or error.body.get("type") not in _PASSING:
                    raise
            time.sleep(_RECONNECT_S)
        raise AssertionError("no try at all")

    def send_picture(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Send the file of a picture that jobs can begin from."""
        headers = {"Content-Type": media_type}
        return self._json("POST", "/v1/pictures", content=data, headers=headers)

    def job(self, job_id: str) -> dict[str, Any]:
        """Look at a job."""
        return self._json("GET", f"/v1/jobs/{job_id}")

    def readiness(self) -> dict[str, Any]:
        """What it says of its readiness, ready or not."""
        try:
            body: dict[str, Any] = self._http.get("/readyz").json()
        except httpx.TransportError as error:
            raise Unreachable(self.server.url, error) from error
        return body

    def where(self) -> dict[str, Any]:
        """Ask which models are on which engine."""
        return self._json("GET", "/v1/models/where")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job."""
        return self._json("DELETE", f"/v1/jobs/{job_id}")

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Ask for what is at a path."""
        return self._json("GET", path, params=query)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON to a path."""
        return self._json("POST", path, json=body)

    def download(self, path: str) -> bytes:
        """Fetch a picture by its signed path."""
        return self._request("GET", path).content

    def follow(self, job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (kind, data) of each event until the final one, through lost connections."""
        seen, lost = "", 0
        while lost <= _RECONNECTS_MAX:
            headers = {"Last-Event-ID": seen} if seen else {}
            try:
                with connect_sse(
                    self._http, "GET", job["urls"]["events"], headers=headers
                ) as source:
                    if source.response.is_error:
                        source.response.read()
                        raise _answered(source.response)
                    for event in source.iter_sse():
                        seen, lost = event.id or seen, 0
                        if not event.data:
                            continue  # a keep-alive: httpx-sse makes an event of its blank line
                        yield event.event, event.json()
                        if event.event in _FINAL:
                            return
            except httpx.TransportError:
                pass  # the server restarts, or the network does: go on after the last event seen
            except Answered as error:
                if error.body.get("type") not in _PASSING:
                    raise
            lost += 1
            time.sleep(_RECONNECT_S)
        raise OperatorError(f"the connection to {self.server.url} was lost")

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        body: dict[str, Any] = self._request(method, path, **options).json()
        return body

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unreachable(self.server.url, error) from error
        if response.is_error:
            raise _answered(response)
        return response


def _answered(response: httpx.Response) -> Answered:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"detail": f"the server answered {response.status_code} and no reason"}
    return Answered(body)
