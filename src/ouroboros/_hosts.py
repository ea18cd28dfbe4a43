"""Hosts of a layer over UDP, and entries of its table of peers, as people write them."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

import msgspec

from ouroboros._arguments import as_name
from ouroboros._checks import whole
from ouroboros.errors import IpcpBootstrapError, NameError

#: Addresses for the texts of errors, by type.
EXAMPLES = {"udp4": "192.0.2.1", "udp6": "2001:db8::1"}
#: Addresses that stand for none.
UNSPECIFIED = ("0.0.0.0", "::")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")

#: Ports of UDP.
PORT = whole(1, 65535)

#: The most entries of a peer table.
PEERS = 10_000


class Peer(msgspec.Struct, frozen=True):
    """A name, and the node where it is. `port` None: that of the layer."""

    name: str
    host: str
    port: int | None = None

    @property
    def text(self) -> str:
        """As `read_peer` takes it."""
        if self.port is None:
            return f"{self.name}@{self.host}"
        return f"{self.name}@{written((self.host, self.port))}"

    def address(self, port: int) -> tuple[str, int]:
        return self.host, port if self.port is None else self.port


def written(address: tuple[str, int]) -> str:
    """An address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_peer(family: str, text: str) -> Peer:
    """Read `NAME@ADDRESS` or `NAME@ADDRESS:PORT`, an IPv6 address with a port in brackets."""
    # The name may have an @ in it, the address cannot.
    name, at, where = text.rpartition("@")
    if not at:
        raise IpcpBootstrapError(f"peer: {text!r} is no NAME@ADDRESS, such as clock@{EXAMPLES[family]}")
    try:
        as_name(name, "name", NameError)
    except NameError as error:
        raise IpcpBootstrapError(f"peer: {error}") from error
    host, port = _split_port(family, where)
    return Peer(name, read_host(family, "peer", host), port)


def _split_port(family: str, where: str) -> tuple[str, int | None]:
    if family == "udp4":
        # Of an IPv6 address is said that it is none of that type.
        host, colon, number = (where, "", "") if where.count(":") > 1 else where.partition(":")
    elif where.startswith("["):
        host, _, rest = where[1:].partition("]")
        colon, number = rest[:1], rest[1:]
    else:
        host, colon, number = where, "", ""
    if not colon:
        return host, None
    if colon == ":":
        with suppress(ValueError):
            return host, PORT(PORT.read(number))
    raise IpcpBootstrapError(f"peer: {number!r} in {where!r} is no port from {PORT.range}")


def read_host(family: str, key: str, text: str) -> str:
    """The address of a host. Raises `IpcpBootstrapError` naming the key."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        ip = ipaddress.IPv4Address(text) if family == "udp4" else ipaddress.IPv6Address(text)
    except ValueError:
        raise IpcpBootstrapError(f"{key}: {text!r} is no address of type {family}; one is {EXAMPLES[family]}") from None
    if not _is_of_one_host(ip):
        raise IpcpBootstrapError(
            f"{key}: {text!r} is not the address of one host everywhere; one is {EXAMPLES[family]}"
        )
    return str(ip)


def _is_of_one_host(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Which addresses are the broadcast ones of a network is not known here: the host says so when the layer is opened."""
    if isinstance(ip, ipaddress.IPv4Address):
        return not (ip.is_multicast or ip == _BROADCAST or ip in _THIS_NETWORK)
    return not (ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.ipv4_mapped or ip.scope_id)


def usable(family: str, text: str) -> bool:
    """Whether a looked-up address is one that a host of the layer can have."""
    try:
        read_host(family, "", text)
    except IpcpBootstrapError:
        return False
    return True
