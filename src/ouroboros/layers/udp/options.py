"""What a UDP layer is told at bootstrap, checked: our address, the port, and where names are."""

from __future__ import annotations

import ipaddress

import msgspec

from ouroboros.control.effects import Address
from ouroboros.control.messages import UdpOptions
from ouroboros.control.names import check_name
from ouroboros.errors import IpcpBootstrapError, OuroborosError, UnsupportedError

_EXAMPLES = {"udp4": "192.0.2.1", "udp6": "2001:db8::1"}
_UNSPECIFIED = ("", "0.0.0.0", "::")

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

    def address(self, port: int) -> Address:
        return self.host, port if self.port is None else self.port


class Options(msgspec.Struct, frozen=True):
    """Checked options."""

    ip: str
    port: int
    peers: tuple[Peer, ...] = ()


def written(address: Address) -> str:
    """An address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_options(family: str, options: UdpOptions) -> Options:
    """Check the options of a bootstrap. Raises `IpcpBootstrapError` naming the one that is wrong."""
    if options.dns not in _UNSPECIFIED:
        raise UnsupportedError(
            "dns: names are not registered with a name server. Leave it out, and give the other node's names with "
            "`peer NAME@ADDRESS`, or in /etc/hosts or your DNS zone under the MD5 of the name"
        )
    if options.ip in _UNSPECIFIED:
        raise IpcpBootstrapError(f"ip: give the address of this host in the layer, such as {_EXAMPLES[family]}")
    if not 1 <= options.port <= 65535:
        raise IpcpBootstrapError(f"port: {options.port} is not from 1 to 65535")
    ip = _read_ip(family, "ip", options.ip)
    return Options(ip, options.port, tuple(dict.fromkeys(read_peer(family, text) for text in options.peers)))


def read_peer(family: str, text: str) -> Peer:
    """Read `NAME@ADDRESS` or `NAME@ADDRESS:PORT`, an IPv6 address with a port in brackets."""
    # The name may have an @ in it, the address cannot.
    name, at, where = text.rpartition("@")
    if not at:
        raise IpcpBootstrapError(f"peer: {text!r} is no NAME@ADDRESS, such as clock@{_EXAMPLES[family]}")
    try:
        check_name(name)
    except OuroborosError as error:
        raise IpcpBootstrapError(f"peer: {error}") from error
    host, port = _split_port(family, where)
    return Peer(name, _read_ip(family, "peer", host), port)


def _split_port(family: str, where: str) -> tuple[str, int | None]:
    if family == "udp4":
        host, colon, number = where.partition(":")
    elif where.startswith("["):
        host, _, rest = where[1:].partition("]")
        colon, number = rest[:1], rest[1:]
    else:
        host, colon, number = where, "", ""
    if not colon:
        return host, None
    if not (colon == ":" and number.isascii() and number.isdigit() and 1 <= int(number[:6]) <= 65535):
        raise IpcpBootstrapError(f"peer: {number!r} in {where!r} is no port from 1 to 65535")
    return host, int(number)


def _read_ip(family: str, key: str, text: str) -> str:
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        ip = ipaddress.IPv4Address(text) if family == "udp4" else ipaddress.IPv6Address(text)
    except ValueError:
        raise IpcpBootstrapError(
            f"{key}: {text!r} is no address of type {family}; one is {_EXAMPLES[family]}"
        ) from None
    if ip.is_unspecified or ip.is_multicast or (isinstance(ip, ipaddress.IPv6Address) and ip.is_link_local):
        raise IpcpBootstrapError(
            f"{key}: {text!r} is not the address of one host everywhere; one is {_EXAMPLES[family]}"
        )
    return str(ip)


def usable(family: str, text: str) -> bool:
    """Whether a looked-up address is one that a host of the layer can have."""
    try:
        _read_ip(family, "", text)
    except IpcpBootstrapError:
        return False
    return True
