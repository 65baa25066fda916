"""Lists of known pictures from an exchange: whole or not at all, and never shorter unasked."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.safety.configuration import exchange
from calotype.safety.hash_exchange import ALL_AGAIN_S, Exchange, Puller
from calotype.safety.hash_lists import KnownPictures, is_severe, read, set_severity
from calotype.safety.pdq import pdq, to_hex
from tests.exchange import StandIn, exchanging, update
from tests.flow.command_line import here
from tests.rooms.test_safety_pdq import far
from tests.rooms.test_safety_pictures import canary

NAME = "industry"
HASHES = [to_hex(each) for each in far(12)]


@pytest.fixture
def there() -> Iterator[StandIn]:
    with exchanging() as standin:
        standin.updates = [update(at, HASHES[at], at=at) for at in range(1, 6)]
        yield standin


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def puller(there: StandIn, folder: Path, clock: Clock, **said: Any) -> Puller:
    return Puller(
        Exchange(NAME, there.url, **said), folder, clock=clock, sleep=lambda seconds: None
    )


def listed(folder: Path) -> set[str]:
    return {to_hex(one) for one in read(folder / f"{NAME}.pdq").hashes}


def test_all_pages_are_taken_and_the_pictures_are_known(
    there: StandIn, tmp_path: Path, clock: Clock
) -> None:
    there.updates.append(update(9, to_hex(pdq(canary()).positions[0])))
    there.updates.append(update(10, "no hash", kind="HASH_MD5"))
    pulled = puller(there, tmp_path, clock).pull()
    assert (pulled.hashes, pulled.pages, pulled.is_new) == (6, 4, True)
    match = KnownPictures.from_files([tmp_path]).nearest(pdq(canary()).positions)
    assert match is not None
    assert (match.source, match.distance) == (NAME, 0)


def test_later_only_what_changed_is_asked_for_and_deletions_are_followed(
    there: StandIn, tmp_path: Path, clock: Clock
) -> None:
    puller(there, tmp_path, clock).pull()
    assert is_severe(tmp_path / f"{NAME}.pdq"), "as any list is, until somebody says otherwise"
    set_severity(tmp_path, NAME, is_severe=False)
    there.updates += [update(2, at=7), update(6, HASHES[6], at=8), update(3, HASHES[7], at=9)]
    there.asked.clear()
    assert puller(there, tmp_path, clock).pull().hashes == 5
    assert listed(tmp_path) == {HASHES[at] for at in (1, 4, 5, 6, 7)}
    assert all("start_time=5" in path for path in there.asked)
    assert not is_severe(tmp_path / f"{NAME}.pdq"), "a pull leaves that as it is"


def test_where_nothing_changed_nothing_is_taken(
    there: StandIn, tmp_path: Path, clock: Clock
) -> None:
    puller(there, tmp_path, clock).pull()
    there.asked.clear()
    pulled = puller(there, tmp_path, clock).pull()
    assert (pulled.hashes, pulled.is_new) == (5, False)
    assert len(there.asked) == 1


def test_after_a_long_time_all_is_taken_again(there: StandIn, tmp_path: Path, clock: Clock) -> None:
    """An exchange forgets deletions; a list that only took changes would keep the deleted."""
    puller(there, tmp_path, clock).pull()
    there.updates = [update(at, HASHES[at], at=at) for at in (1, 2, 4, 5)]
    clock.now += ALL_AGAIN_S + 1
    assert puller(there, tmp_path, clock).pull().hashes == 4
    assert HASHES[3] not in listed(tmp_path)


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_what_was_cut_off_goes_on_where_it_was(
    there: StandIn, tmp_path: Path, clock: Clock, fails_at: int
) -> None:
    before = puller(there, tmp_path, clock).pull()
    assert before.pages == 3
    clock.now += ALL_AGAIN_S + 1
    there.updates.append(update(8, HASHES[8], at=9))  # a third page, half full, is full now
    there.asked.clear()
    there.instead = lambda count: (500, b"") if count >= fails_at else None
    with pytest.raises(OperatorError, match="answered 500"):
        puller(there, tmp_path, clock).pull()
    assert len(listed(tmp_path)) == 5, "the list is as it was"
    there.instead = lambda count: None
    there.asked.clear()
    assert puller(there, tmp_path, clock).pull().hashes == 6
    assert len(there.asked) == 3 - fails_at


def test_half_a_page_in_the_draft_is_written_anew(
    there: StandIn, tmp_path: Path, clock: Clock
) -> None:
    there.instead = lambda count: (500, b"") if count else None
    with pytest.raises(OperatorError):
        puller(there, tmp_path, clock).pull()
    with (tmp_path / f".{NAME}.pull").open("ab") as draft:  # a crash before the state was written
        draft.write(b"3 abc")
    there.instead = lambda count: None
    assert puller(there, tmp_path, clock).pull().hashes == 5


def test_one_bad_answer_is_asked_again(there: StandIn, tmp_path: Path, clock: Clock) -> None:
    there.instead = lambda count: (429, b"") if count in (0, 2) else None
    assert puller(there, tmp_path, clock).pull().hashes == 5


def test_a_list_that_is_much_shorter_is_not_taken_unless_forced(
    there: StandIn, tmp_path: Path, clock: Clock
) -> None:
    puller(there, tmp_path, clock).pull()
    there.updates += [update(1, at=8), update(2, at=8)]
    for _ in range(2):
        with pytest.raises(OperatorError, match=r"3 hashes now, and had 5.*--force"):
            puller(there, tmp_path, clock).pull()
        assert len(listed(tmp_path)) == 5
    assert puller(there, tmp_path, clock).pull(force=True).hashes == 3
    assert len(listed(tmp_path)) == 3


def test_an_empty_answer_does_not_empty_a_list(
    there: StandIn, tmp_path: Path, clock: Clock
) -> None:
    puller(there, tmp_path, clock).pull()
    there.updates = []
    clock.now += ALL_AGAIN_S + 1
    with pytest.raises(OperatorError, match="0 hashes now"):
        puller(there, tmp_path, clock).pull()
    assert len(listed(tmp_path)) == 5


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (403, b"", "answered 403"),
        (302, b"", "answered 302"),
        (304, b"", "answered 304"),
        (200, b"<html>", "isn't JSON"),
        (200, b"[]", "no list under data"),
        (200, b'{"data": [{"id": 1}]}', "can't be read"),
        (200, b'{"data": [7]}', "can't be read"),
        (200, json.dumps({"data": [update(1, "abc")]}).encode(), "can't be read"),
        (200, b'{"data": [], "paging": {"next": "https://elsewhere.example/"}}', "another host"),
        (200, b"{" + b" " * 5_000, "more than 4,096 bytes"),
    ],
)
def test_what_is_no_answer_leaves_the_list_as_it_was(
    there: StandIn,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes,
    says: str,
) -> None:
    monkeypatch.setattr(limits, "HASH_PAGE_BYTES_MAX", 4_096)
    puller(there, tmp_path, clock).pull()
    clock.now += ALL_AGAIN_S + 1
    (tmp_path / f"{NAME}.exchange.json").unlink()
    there.asked.clear()
    there.instead = lambda count: (status, body)
    with pytest.raises(OperatorError, match=says) as raised:
        puller(there, tmp_path, clock).pull()
    assert raised.value.field == f"exchanges.{NAME}"
    assert len(listed(tmp_path)) == 5


def test_pages_have_an_end(
    there: StandIn, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HASH_PAGES_MAX", 2)
    with pytest.raises(OperatorError, match="more than 2 pages"):
        puller(there, tmp_path, clock).pull()
    monkeypatch.setattr(limits, "HASH_PAGES_MAX", 10)
    monkeypatch.setattr(limits, "HASHES_MAX", 3)
    with pytest.raises(OperatorError, match="5 hashes"):
        puller(there, tmp_path, clock).pull()


@pytest.mark.parametrize(
    "url", ["http://hashes.example/v1", "ftp://127.0.0.1/", "no address", "", "https:///path"]
)
def test_only_https_is_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(OperatorError) as raised:
        Puller(Exchange(NAME, url), tmp_path)
    assert raised.value.field == f"exchanges.{NAME}.url"


def test_a_token_is_sent_and_stands_in_no_file(
    there: StandIn, tmp_path: Path, clock: Clock
) -> None:
    puller(there, tmp_path, clock, token="s3cret").pull()
    assert set(there.tokens) == {"Bearer s3cret"}
    assert not any("s3cret" in file.read_text() for file in tmp_path.iterdir())
    assert not any("s3cret" in path for path in there.asked)


def test_by_https_a_host_has_to_be_who_it_says(tmp_path: Path, clock: Clock) -> None:
    chain = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with exchanging(context) as there:
        there.updates = [update(1, HASHES[1])]
        with pytest.raises(OperatorError, match=r"(?i)certificate"):
            puller(there, tmp_path / "lists", clock).pull()
        known = puller(there, tmp_path / "lists", clock, ca_file=str(chain))
        assert known.pull().hashes == 1


def certificate(folder: Path) -> Path:
    """Of 127.0.0.1, vouched for by itself; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    here_only = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here_only, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "chain.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


# What an operator says, and the command.


def configured(folder: Path, url: str) -> Path:
    (folder / "token").write_text("s3cret\n")
    (folder / "token").chmod(0o600)
    file = folder / "safety.toml"
    file.write_text(f'[exchanges.{NAME}]\nurl = "{url}"\ntoken_file = "token"\n')
    return file


def test_the_command_pulls_and_says_what_came(there: StandIn, tmp_path: Path) -> None:
    configured(tmp_path, there.url)
    answer = here(tmp_path, "safety", "hashes", "pull", NAME)
    assert answer.returncode == 0, answer.stderr
    assert "5 hashes in industry; 5 changes came" in answer.stdout
    told = json.loads(here(tmp_path, "safety", "hashes", "pull", NAME, "--json").stdout)
    assert (told["hashes"], told["is_new"]) == (5, False)
    told = json.loads(here(tmp_path, "safety", "hashes", "list", "--json").stdout)
    assert [(each["name"], each["hashes"]) for each in told] == [(NAME, 5)]
    assert there.tokens[0] == "Bearer s3cret"
    refused = here(tmp_path, "safety", "hashes", "pull", "other")
    assert refused.returncode != 0
    assert "names no exchange 'other'" in refused.stderr


def test_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    file = configured(tmp_path, "https://hashes.example/")
    assert exchange(file, NAME).token == "s3cret"
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(OperatorError, match="read by others"):
        exchange(file, NAME)
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "token").write_text("two words")
    with pytest.raises(OperatorError, match="isn't one token"):
        exchange(file, NAME)
