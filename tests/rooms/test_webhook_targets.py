"""Where this server sends to: every way of hiding a private address that is known to us."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.delivery.targets import (
    GuardedBackend,
    NotPublic,
    check_target,
    check_url,
    is_public,
)

PRIVATE = (
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",  # shared by carriers
    "127.0.0.1",
    "127.255.255.255",
    "169.254.169.254",  # where clouds tell secrets
    "172.16.0.1",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",  # mapped
    "::ffff:169.254.169.254",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:a9fe:a9fe::1",
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::",  # NAT64 of one network's own
    "64:ff9b:1::a00:1",
    "64:ff9b:1:a9fe:a9:fe08:808:808",
    "fec0::1",  # of a site, as once was
    "::10.0.0.1",  # "compatible", as once was
    "4000::1",  # nobody's
    "2001:0:5ef5:79fd:0:59d:a0e5:f5ff",  # Teredo
    "2001:db8::1",
    "2606:4700::5efe:10.0.0.1",  # ISATAP
    "2606:4700::200:5efe:192.168.0.1",
)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "2606:4700::1111",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
    ],
)
def test_a_public_address_is(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_a_cover_is_as_public_as_what_it_covers(address: ipaddress.IPv4Address) -> None:
    bits, inside = int(address), is_public(address)
    for cover in (
        ipaddress.IPv6Address((0xFFFF << 32) | bits),
        ipaddress.IPv6Address((0x2002 << 112) | (bits << 80) | 1),
        ipaddress.IPv6Address((0x64FF9B << 96) | bits),
    ):
        if not inside:
            assert not is_public(cover)


# What a person may write. Each host is read by the machine as one of 127.0.0.1 or 169.254.169.254.
NOTATIONS = (
    "https://127.0.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://0/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://2852039166/",
    "https://localhost/",
    "https://localhost./",
)


@pytest.mark.parametrize("url", NOTATIONS)
async def test_no_notation_of_a_private_address_is_taken(url: str) -> None:
    with pytest.raises(InvalidInput):
        await check_target(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "//example.com/",
        "https:///x",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com/#part",
        "https://example.com:0x50/",
        "https://exa%6dple.com/",
        "https://exämple.com/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/ x",
        "https://example.com/\n",
        "https://[::1/",
        "https://example.com/" + "x" * 2000,
        "",
    ],
)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_url(url, allow_private=False)
    assert refused.value.field == "url"


@given(st.text(max_size=40))
def test_no_text_breaks_the_check(text: str) -> None:
    try:
        host, port = check_url(f"https://{text}", allow_private=False)
    except InvalidInput:
        return
    assert host
    assert 0 < port < 65536


class Names:
    """Answers look-ups, one after the other, as a name server that changes its mind."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


@pytest.fixture
async def listener() -> Any:
    """A server that counts who came."""
    came: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(len(await reader.read(1)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], came
    server.close()


async def test_a_name_that_changes_its_mind_gains_nothing(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, came = listener
    monkeypatch.setattr(socket, "getaddrinfo", Names("93.184.216.34", "127.0.0.1"))
    await check_target(f"https://rebinding.example:{port}/", allow_private=False)
    with pytest.raises(NotPublic):
        await GuardedBackend(allow_private=False).connect_tcp("rebinding.example", port)
    assert came == []


async def test_a_peer_that_is_not_public_is_sent_nothing(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was looked up, what was reached counts."""
    port, came = listener
    backend = GuardedBackend(allow_private=False)

    async def resolved(*_: Any, **__: Any) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr("calotype.delivery.targets.resolve", resolved)
    with pytest.raises(NotPublic):
        await backend.connect_tcp("example.com", port)
    await asyncio.sleep(0.05)
    assert sum(came) == 0  # it came, and said nothing


async def test_private_addresses_can_be_allowed(listener: Any) -> None:
    port, _ = listener
    await check_target(f"http://127.0.0.1:{port}/", allow_private=True)
    stream = await GuardedBackend(allow_private=True).connect_tcp("127.0.0.1", port)
    await stream.aclose()


async def test_a_host_that_is_not_found_is_refused() -> None:
    with pytest.raises(InvalidInput, match="looked up"):
        await check_target("https://no-such-host.invalid/", allow_private=False)
    with pytest.raises(httpcore.ConnectError):
        await GuardedBackend(allow_private=False).connect_tcp("no-such-host.invalid", 443)


async def test_a_name_server_that_does_not_answer_holds_up_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, begun = threading.Event(), list[str]()

    def silent(host: str, *_: Any, **__: Any) -> list[Any]:
        begun.append(host)
        answer.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(limits, "LOOKUP_S_MAX", 0.2)
    try:
        asked = [check_target(f"https://{n}.example/", allow_private=False) for n in range(50)]
        for refused in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(refused, InvalidInput)
            assert "no answer within 0.2 s" in refused.detail
        assert len(begun) <= limits.LOOKUPS_AT_ONCE_MAX
        assert await asyncio.to_thread(len, begun) == len(begun), "others' threads are free"
    finally:
        answer.set()


async def test_where_a_private_name_is_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names("10.1.2.3"))
    with pytest.raises(NotPublic) as refused:
        await check_target("https://vault.example/", allow_private=False)
    assert "10.1.2.3" not in str(refused.value.problem())


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_what_no_host_can_be_called_is_refused(host: str) -> None:
    with pytest.raises(InvalidInput, match="can't be a host's name"):
        await check_target(f"https://{host}/", allow_private=False)
