"""Those who ask for pictures meanwhile: they retry with the same key until they have an answer."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import httpx

TIERS = ("turbo", "fast", "relax")
_OPEN_MAX = 4  # unfinished jobs of a client
_AGAIN = 0.2  # share of requests that are sent again though they were answered
_CANCELLED = 0.05  # share of jobs that are cancelled
_PAUSE_S = 0.5  # between two tries, and two looks


@dataclass
class Ask:
    """One request, by its Idempotency-Key."""

    tenant: str
    key: str
    images: int
    job_ids: list[str] = field(default_factory=list)  # of each answer
    tries: int = 0


class Client:
    """One key's jobs, asked for by a thread of its own."""

    def __init__(self, url: str, tenant: str, secret: str, tier: str, seed: str) -> None:
        self._tenant, self._tier = tenant, tier
        self._noise = random.Random(seed)  # noqa: S311 - the same load for the same seed
        headers = {"Authorization": f"Bearer {secret}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=30.0)
        self._stopping = threading.Event()
        self._open: set[str] = set()  # job ids
        self.asks: list[Ask] = []
        self.ended: dict[str, str] = {}  # last status by job id
        self.faults: list[str] = []  # answers that should never be given
        self.thread = threading.Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        """Ask for nothing new."""
        self._stopping.set()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() or self._open:
                self._look()
                if len(self._open) < _OPEN_MAX and not self._stopping.is_set():
                    self._ask()
                else:
                    time.sleep(_PAUSE_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must show in the report
            self.faults.append(f"a client broke: {error!r}")

    def _ask(self) -> None:
        noise = self._noise
        images = noise.choice((1, 1, 2))
        body: dict[str, object] = {
            "prompt": f"a small boat on a lake {noise.randrange(10**6)}",
            "tier": self._tier,
            "steps": noise.choice((1, 2, 4, 8)),
            "width": 64,
            "height": 64,
            "n": images,
        }
        ask = Ask(self._tenant, f"{noise.getrandbits(128):032x}", images)
        self.asks.append(ask)
        while not self._send(ask, body):
            time.sleep(_PAUSE_S)
        if noise.random() < _AGAIN:
            while not self._send(ask, body):
                time.sleep(_PAUSE_S)
        job_id = ask.job_ids[0]
        self._open.add(job_id)
        if noise.random() < _CANCELLED:
            self._try("DELETE", f"/v1/jobs/{job_id}")

    def _send(self, ask: Ask, body: dict[str, object]) -> bool:
        """True once it is answered; it may have been taken though no answer came."""
        ask.tries += 1
        answer = self._try("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": ask.key})
        if answer is None:
            return False
        if answer.status_code == 202:
            ask.job_ids.append(answer.json()["id"])
            return True
        if answer.status_code not in (409, 429, 500, 503):
            self.faults.append(f"POST: {answer.status_code} {answer.text[:200]}")
        return False

    def _look(self) -> None:
        for job_id in sorted(self._open):
            answer = self._try("GET", f"/v1/jobs/{job_id}")
            if answer is None:
                return
            if answer.status_code == 404:
                self.faults.append(f"{job_id} is not known any more")
                self._open.discard(job_id)
            elif answer.is_success:
                self._seen(job_id, answer.json()["status"])

    def _seen(self, job_id: str, status: str) -> None:
        if status in ("succeeded", "failed", "cancelled"):
            self.ended[job_id] = status
            self._open.discard(job_id)

    def _try(self, method: str, path: str, **more: object) -> httpx.Response | None:
        try:
            return self._http.request(method, path, **more)  # type: ignore[arg-type]
        except httpx.TransportError:
            return None
