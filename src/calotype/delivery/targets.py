"""Where this server may send to: public addresses, whatever name or notation they hide behind.

Asked when an address is set up and again for each connection: the name is looked up, every answer
is judged, the connection goes to one that was judged, and the peer it reached is judged before a
byte is sent. So a name that changes its mind in between (DNS rebinding) gains nothing. Proxies of
the environment are never used.

Not public is what ``ipaddress`` doesn't call global, every IPv6 address outside of what IANA gives
out (2000::/3) but NAT64's (RFC 6052), and every one that carries such an IPv4 address: mapped, 6to4
(RFC 3056), Teredo (RFC 4380), NAT64, ISATAP (RFC 5214).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpcore

from calotype.core import limits
from calotype.core.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PUBLIC_V6 = (ipaddress.IPv6Network("2000::/3"), _NAT64)
# Of IANA's special-purpose registries, what not every release of Python calls private.
_SPECIAL = tuple(
    ipaddress.ip_network(each)
    for each in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20", "5f00::/16")
)
_ISATAP = (0x5EFE, 0x200_5EFE)  # bits 64 to 95, before the IPv4 address

# Names are looked up by threads of their own: a name server that doesn't answer holds up nothing
# but other look-ups.
_lookups = ThreadPoolExecutor(limits.LOOKUPS_AT_ONCE_MAX, thread_name_prefix="look-up")


class NotPublic(InvalidInput):
    """An address that this server may not send to."""

    kind = "target-not-public"
    title = "This server doesn't send there"


def is_public(address: Address) -> bool:
    """Whether an address, and each that it carries, belongs to everybody."""
    return all(
        each.is_global
        and (each.version == 4 or any(each in network for network in _PUBLIC_V6))
        and not each.is_multicast
        and not any(each in network for network in _SPECIAL if network.version == each.version)
        for each in _carried(address)
    )


def check_url(url: str, *, allow_private: bool) -> tuple[str, int]:
    """The host and port of an address that may be asked for; looks nothing up.

    Raises InvalidInput for what isn't plain https (``allow_private``: or http), has a user in it,
    or a host that only some would read as one.
    """
    schemes = ("https", "http") if allow_private else ("https",)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _invalid(f"the address can't be read: {error}", "https://HOST/PATH") from error
    if len(url) > limits.WEBHOOK_URL_CHARS_MAX:
        raise _invalid("the address is too long", limits.WEBHOOK_URL_CHARS_MAX)
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _invalid("the address has characters that it may not have", "visible ASCII")
    if parts.scheme not in schemes or not host:
        raise _invalid(f"the address has to begin with {' or '.join(schemes)}://", list(schemes))
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _invalid("the address has a user or a fragment in it", "https://HOST/PATH")
    if "%" in host:
        raise _invalid("the address has an encoded host", "https://HOST/PATH")
    return host, port or (443 if parts.scheme == "https" else 80)


async def check_target(url: str, *, allow_private: bool) -> None:
    """Look the address up, and refuse one that isn't public. Raises InvalidInput, NotPublic."""
    host, port = check_url(url, allow_private=allow_private)
    try:
        await resolve(host, port, allow_private=allow_private)
    except OSError as error:
        raise _invalid(f"{host} can't be looked up: {error}", "a host that can be found") from error


async def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The addresses of a host, all of them judged. Raises OSError, InvalidInput, or NotPublic."""
    loop, look_up = asyncio.get_running_loop(), partial(socket.getaddrinfo, type=socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(limits.LOOKUP_S_MAX):
            found = await loop.run_in_executor(_lookups, look_up, host, port)
    except TimeoutError as error:
        raise OSError(f"no answer within {limits.LOOKUP_S_MAX:g} s") from error
    except UnicodeError as error:  # an empty label, or one too long
        raise _invalid(f"{host[:80]} can't be a host's name", "a host's name") from error
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not allow_private:
        _check_all(host, addresses)
    return addresses


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private, self._real = allow_private, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to an address of the host that was judged; TLS goes by the host's name."""
        try:
            addresses = await resolve(host, port, allow_private=self._allow_private)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        problem: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                stream = await self._real.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
                continue
            await self._check_peer(host, stream)
            return stream
        raise problem

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> Any:
        """There are no such targets."""
        raise NotPublic(f"{path} is no public address", field="url", limit="public addresses")

    async def sleep(self, seconds: float) -> None:
        """Wait, between two tries to connect."""
        await self._real.sleep(seconds)

    async def _check_peer(self, host: str, stream: httpcore.AsyncNetworkStream) -> None:
        peer = stream.get_extra_info("server_addr")
        try:
            if not self._allow_private:
                _check_all(host, [str(peer[0])])
        except NotPublic:
            await stream.aclose()
            raise


def _check_all(host: str, addresses: list[str]) -> None:
    for text in addresses:
        if not is_public(ipaddress.ip_address(text.partition("%")[0])):
            # Where it is instead is nothing to tell a stranger: it may be a name of our network.
            raise NotPublic(f"{host} isn't at a public address", field="url", limit="public")


def _carried(address: Address) -> list[Address]:
    """The address, and the IPv4 addresses that it is a cover for."""
    found: list[Address | None] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        found += [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        last = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        is_isatap = int(address) >> 32 & 0xFFFF_FFFF in _ISATAP
        if is_isatap or address in _NAT64:
            found.append(last)
    # A mapped address is what it carries, and nothing by itself.
    mapped = getattr(address, "ipv4_mapped", None)
    return [each for each in found if each is not None and not (mapped and each is address)]


def _invalid(detail: str, limit: object) -> InvalidInput:
    return InvalidInput(detail, field="url", limit=limit)
