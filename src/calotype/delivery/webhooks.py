"""Sends one message to one address, signed by Standard Webhooks 1.0.0, and reads a bounded answer.

Secrets are made of one secret file, the webhook's id and how often its secret was changed, so none
is stored. It doesn't know what a message says, nor when to try again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import httpcore

from calotype import __version__
from calotype.core import limits
from calotype.core.errors import CalotypeError
from calotype.delivery.targets import GuardedBackend, check_url

SECRET_BYTES = 32
PREFIX = "whsec_"
_REASON_CHARS_MAX = 300


@dataclass(frozen=True)
class Answer:
    """What came of sending a message."""

    status: int | None  # None: no answer
    reason: str  # a sentence, for who looks why it failed
    text: str = ""  # how its body began

    @property
    def is_taken(self) -> bool:
        """Whether the receiver has the message."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no more messages."""
        return self.status == 410


def secret_of(master: bytes, webhook_id: str, changed: int) -> str:
    """A webhook's secret (``whsec_...``) after it was changed so often."""
    text = f"calotype webhook 1\n{changed}\n{webhook_id}"
    return PREFIX + base64.b64encode(hmac.digest(master, text.encode(), "sha256")).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of a message, as one part of ``webhook-signature``."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Sender:
    """Sends messages, each on a connection of its own. Redirects are not followed."""

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private

    async def send(
        self, url: str, message_id: str, body: bytes, *, secrets: Sequence[str], timestamp: int
    ) -> Answer:
        """POST the body (JSON), signed with each of ``secrets``. Never raises."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"Calotype/{__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(
                sign(secret, message_id, timestamp, body) for secret in secrets
            ),
        }
        try:
            check_url(url, allow_private=self._allow_private)
            async with asyncio.timeout(limits.WEBHOOK_S_MAX):
                status, text = await self._post(url, headers, body)
        except TimeoutError:
            return Answer(None, f"no whole answer within {limits.WEBHOOK_S_MAX:g} s")
        except CalotypeError as error:
            return Answer(None, error.detail)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            return Answer(None, f"{type(error).__name__}: {error}"[:_REASON_CHARS_MAX])
        except (OSError, ValueError) as error:  # TLS, and what a library finds wrong with a URL
            return Answer(None, f"{type(error).__name__}: {error}"[:_REASON_CHARS_MAX])
        return Answer(status, "" if 200 <= status < 300 else f"the answer was {status}", text)

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """The answer's status, and how its body begins."""
        backend = GuardedBackend(allow_private=self._allow_private)
        async with (
            httpcore.AsyncConnectionPool(network_backend=backend, retries=0) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as answer,
        ):
            read, begins = 0, b""
            async for part in answer.aiter_stream():
                read += len(part)
                begins += part[: limits.WEBHOOK_ANSWER_SHOWN_BYTES - len(begins)]
                if read > limits.WEBHOOK_ANSWER_BYTES_MAX:
                    break  # nobody needs it; the connection is closed
            return int(answer.status), _text(begins)


def _text(begins: bytes) -> str:
    """Bytes as text that any database keeps: PostgreSQL's has no NUL."""
    return begins.decode(errors="replace").replace("\0", "\ufffd")
