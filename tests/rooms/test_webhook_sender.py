"""One message to one receiver, over real HTTP: signed, bounded, never redirected."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from calotype.core import limits
from calotype.delivery.webhooks import Answer, Sender, secret_of
from tests.receiver import Receiver, answered, receiving

MASTER = bytes(range(32))
SECRET, OLDER = (secret_of(MASTER, "whk_1", changed) for changed in (1, 0))
BODY = b'{"type":"job.succeeded"}'


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


async def send(receiver: Receiver, *, secrets: tuple[str, ...] = (SECRET,), **more: bool) -> Answer:
    sender = Sender(**{"allow_private": True, **more})
    return await sender.send(
        receiver.url, "msg_1", BODY, secrets=secrets, timestamp=int(time.time())
    )


async def test_a_message_is_signed_as_standard_webhooks_say(receiver: Receiver) -> None:
    assert (await send(receiver, secrets=(SECRET, OLDER))).is_taken
    (came,) = receiver.came
    assert came.headers["content-type"] == "application/json"
    signatures = came.headers["webhook-signature"].split(" ")
    for secret, signature in zip((SECRET, OLDER), signatures, strict=True):
        headers = {**came.headers, "webhook-signature": signature}
        judge = Webhook(secret)  # their own library
        judge.verify(came.body.decode(), headers)
        with pytest.raises(WebhookVerificationError):
            judge.verify(came.body.decode() + " ", headers)


async def test_each_webhook_has_a_secret_of_its_own() -> None:
    made = {secret_of(MASTER, hook, changed) for hook in ("a", "b") for changed in (0, 1)}
    assert len(made) == 4
    assert all(secret.startswith("whsec_") for secret in made)
    assert secret_of(MASTER, "a", 0) == secret_of(MASTER, "a", 0)


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_any_2xx_takes_the_message(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda came: answered(status)
    assert await send(receiver) == Answer(status, "")


@pytest.mark.parametrize("status", [301, 400, 410, 429, 500])
async def test_anything_else_does_not(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda came: answered(status)
    answer = await send(receiver)
    assert (answer.status, answer.is_taken, answer.is_gone) == (status, False, status == 410)
    assert str(status) in answer.reason


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda came: answered(307, Location="http://169.254.169.254/latest/")
    assert (await send(receiver)).status == 307
    assert len(receiver.came) == 1


async def test_a_receiver_that_says_nothing_is_given_up_in_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_S_MAX", 0.2)
    receiver.answer = lambda came: None
    answer = await send(receiver)
    assert (answer.status, answer.is_taken) == (None, False)
    assert "0.2 s" in answer.reason


async def test_an_endless_answer_is_read_so_far_and_no_further(receiver: Receiver) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n"
    receiver.answer = lambda came: head + bytes(4 * limits.WEBHOOK_ANSWER_BYTES_MAX)
    answer = await send(receiver)
    assert answer.is_taken
    assert answer.text == "\ufffd" * limits.WEBHOOK_ANSWER_SHOWN_BYTES


async def test_how_an_answer_begins_is_told_whatever_it_is(receiver: Receiver) -> None:
    body = b"<h1>down</h1>\xff\x00" + b"x" * 5000
    head = b"HTTP/1.1 503 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    receiver.answer = lambda came: head + body
    answer = await send(receiver)
    assert answer.status == 503
    assert answer.text.startswith("<h1>down</h1>\ufffd\ufffdxxx")
    assert len(answer.text) == limits.WEBHOOK_ANSWER_SHOWN_BYTES


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"", b"HTTP/1.1 999999 X\r\n\r\n"])
async def test_what_is_no_http_is_no_answer(receiver: Receiver, answer: bytes) -> None:
    receiver.answer = lambda came: answer
    assert not (await send(receiver)).is_taken


async def test_a_private_receiver_is_sent_nothing_unless_it_is_allowed(receiver: Receiver) -> None:
    answer = await send(receiver, allow_private=False)
    assert (answer.status, answer.is_taken) == (None, False)
    https = receiver.url.replace("http://", "https://")
    answer = await Sender().send(
        https, "msg_1", BODY, secrets=(SECRET,), timestamp=int(time.time())
    )
    assert "public" in answer.reason
    assert receiver.came == []


async def test_a_receiver_that_is_away_is_told_by_reason() -> None:
    answer = await Sender(allow_private=True).send(
        "http://127.0.0.1:9/", "msg_1", BODY, secrets=(SECRET,), timestamp=int(time.time())
    )
    assert answer.status is None
    assert "ConnectError" in answer.reason


async def test_no_proxy_of_the_environment_is_asked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be what connects, and where to isn't ours to check then."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await send(receiver)).is_taken
    assert len(receiver.came) == 1
