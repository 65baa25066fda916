"""Who is of age a provider says, signed; whatever else it says, nobody is for it.

The provider is a stand-in on this machine, asked over real HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.flow.ages import Ages
from calotype.flow.safeguards import Safeguards
from calotype.safety.ages import AgeSource, SignedByHttp
from calotype.settings import Settings
from tests.receiver import Came, Receiver, receiving

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NOW = 1_800_000_000.0
ADA = "acme/ada"


def pem(key: Any = KEY) -> str:
    made = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return str(made, "ascii")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(key: Ed25519PrivateKey = KEY, alg: str = "EdDSA", **said: Any) -> str:
    body = {"sub": ADA, "aud": "calotype", "adult": True, "exp": NOW + 3600} | said
    signed = f"{b64(json.dumps({'alg': alg}).encode())}.{b64(json.dumps(body).encode())}"
    return f"{signed}.{b64(key.sign(signed.encode()))}"


def answer(body: bytes, status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def saying(said: str) -> Callable[[Came], bytes]:
    return lambda came: answer(json.dumps({"token": said}).encode())


class Clock:
    """Stands still until it is moved."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        receiver.answer = saying(token())
        yield receiver


def ages(there: Receiver, clock: Clock | None = None) -> Ages:
    return Ages(SignedByHttp(AgeSource(there.url, pem())), clock or Clock())


async def test_a_person_is_of_age_once_the_provider_signs_it(there: Receiver) -> None:
    known = ages(there)
    assert not known.is_adult("acme", "ada")
    await known.learn("acme", "ada")
    assert known.is_adult("acme", "ada")
    assert not known.is_adult("acme", "bob")
    assert json.loads(there.came[0].body) == {"subject": ADA, "audience": "calotype"}
    await known.learn("acme", "ada")
    assert len(there.came) == 1, "it is remembered"


async def test_an_answer_is_good_for_as_long_as_it_says_and_not_for_ever(there: Receiver) -> None:
    clock = Clock()
    known = ages(there, clock)
    await known.learn("acme", "ada")
    clock.now = NOW + 3600
    assert not known.is_adult("acme", "ada")
    clock.now = NOW
    there.answer = saying(token(exp=NOW + 10 * limits.AGE_GOOD_S_MAX))
    known = ages(there, clock)
    await known.learn("acme", "ada")
    clock.now = NOW + limits.AGE_GOOD_S_MAX + 1
    assert not known.is_adult("acme", "ada")


@pytest.mark.parametrize(
    "said",
    [
        token(OTHER),
        token(adult=False),
        token(adult="true"),
        token(adult=1),
        token(sub="acme/bob"),
        token(aud="another"),
        token(exp=NOW),
        token(exp=float("nan")),
        token(exp=None),
        token(iat=NOW + 3600),
        token(alg="none"),
        token(alg="HS256"),
        token()[:-4],
        token().rpartition(".")[0] + ".",
        "a.b.c",
        "",
        None,
        7,
    ],
)
async def test_a_token_that_does_not_say_so_says_no(there: Receiver, said: Any) -> None:
    there.answer = saying(said)
    known = ages(there)
    await known.learn("acme", "ada")
    assert not known.is_adult("acme", "ada")


@pytest.mark.parametrize(
    "body",
    [
        answer(b"", 404),
        answer(b"", 500),
        answer(b"", 302),
        answer(b"<html>"),
        answer(b"[]"),
        answer(b" " * (limits.AGE_ANSWER_BYTES_MAX + 1)),
        b"nothing of HTTP",
    ],
)
async def test_what_is_no_answer_says_no_and_is_asked_again_later(
    there: Receiver, body: bytes
) -> None:
    clock = Clock()
    known = ages(there, clock)
    there.answer = lambda came: body
    await known.learn("acme", "ada")
    there.answer = saying(token())
    await known.learn("acme", "ada")
    assert not known.is_adult("acme", "ada"), "not at once"
    clock.now += limits.AGE_ASKED_AGAIN_S + 1
    await known.learn("acme", "ada")
    assert known.is_adult("acme", "ada")


async def test_a_provider_that_hangs_is_left(
    there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AGE_S_MAX", 0.05)
    there.answer = lambda came: None
    known = ages(there)
    await asyncio.wait_for(known.learn("acme", "ada"), 30)
    assert not known.is_adult("acme", "ada")


async def test_many_requests_of_one_person_ask_once(there: Receiver) -> None:
    known = ages(there)
    await asyncio.gather(*(known.learn("acme", "ada") for _ in range(20)))
    assert len(there.came) == 1
    assert known.is_adult("acme", "ada")


async def test_a_plug_in_that_fails_makes_nobody_of_age() -> None:
    class Broken:
        async def adult_until(self, subject: str, now: float) -> float:
            raise KeyError(subject)

    class Nonsense:
        async def adult_until(self, subject: str, now: float) -> float:
            return float("nan")

    for provider in (Broken(), Nonsense(), None):
        known = Ages(provider, Clock())
        await known.learn("acme", "ada")
        assert not known.is_adult("acme", "ada")


async def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Every:
        async def adult_until(self, subject: str, now: float) -> float:
            return now + 60

    monkeypatch.setattr(limits, "AGES_KNOWN_MAX", 3)
    known = Ages(Every(), Clock())
    for number in range(5):
        await known.learn("acme", f"user {number}")
    assert [known.is_adult("acme", f"user {number}") for number in range(5)] == [
        *(False, False),
        *(True, True, True),
    ]
    await known.learn("acme", "")
    assert not known.is_adult("acme", ""), "a key without a user is nobody"


# What an operator says, and whose policy follows.


def home(folder: Path, url: str, **changes: str) -> Path:
    (folder / "age.pem").write_text(changes.pop("pem", pem()))
    said = {"url": url, "public_key": "age.pem"} | changes
    lines = "\n".join(f'{name} = "{value}"' for name, value in said.items())
    grown = '[policies.grown]\nextends = "mature"\n'
    (folder / "safety.toml").write_text(f'[tenants]\nacme = "grown"\n{grown}[age]\n{lines}\n')
    return folder


async def test_a_policy_for_adults_is_for_whom_the_provider_knows(
    there: Receiver, tmp_path: Path
) -> None:
    there.answer = saying(token(exp=4e9))
    guards = Safeguards(Settings(home=home(tmp_path, there.url)))
    assert guards.policy("acme", "ada").name == "pg13"
    await guards.learn_age("acme", "ada")
    assert guards.policy("acme", "ada").name == "grown"
    assert guards.prompts("acme", "ada").judge("a nude statue").kind is VerdictKind.ALLOW
    assert guards.prompts("acme", "ada").judge("a child, nude").category == "sexual_minors"
    await guards.learn_age("other", "ada")
    assert len(there.came) == 1, "nobody is asked of people whose policy is everybody's"


async def test_without_a_provider_nobody_is_asked(tmp_path: Path) -> None:
    guards = Safeguards(Settings(home=tmp_path))
    await guards.learn_age("acme", "ada")
    assert guards.policy("acme", "ada").name == "pg13"


@pytest.mark.parametrize(
    ("url", "changes", "field"),
    [
        ("http://age.example/", {}, "age.url"),
        ("https://age.example/", {"pem": "no key"}, "age.public_key"),
        ("https://age.example/", {"pem": pem(ec.generate_private_key(ec.SECP256R1()))},
         "age.public_key"),
        ("https://age.example/", {"public_key": "absent.pem"}, "age.public_key"),
        ("https://age.example/", {"ca_file": "absent.pem"}, "age.ca_file"),
        ("https://age.example/", {"provider": "both"}, "age.url"),
        ("", {"provider": "absent"}, "age.provider"),
        ("", {}, "age.url"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_found_at_the_start(
    tmp_path: Path, url: str, changes: dict[str, str], field: str
) -> None:
    with pytest.raises(OperatorError) as raised:
        Safeguards(Settings(home=home(tmp_path, url, **changes)))
    assert raised.value.field == field
