"""Sockets of layers over UDP and on Ethernet segments, the MTU of a path, name resolution."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ouroboros.layers.effects import Address, OpenPort, Resolve
from ouroboros.runtime import rawsock

#: For look-ups that users other than the owner of the node caused: one takes as long as the DNS likes.
_THREADS_APART = 4
_FAMILIES = {"udp4": socket.AF_INET, "udp6": socket.AF_INET6}
#: From the kernel's headers; the socket module has no names for them.
_IP_MTU_DISCOVER, _IP_PMTUDISC_WANT, _IP_MTU = 10, 1, 14
_IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _IPV6_MTU = 23, 62, 24

# Remedies for a socket that cannot be had.
_REMEDIES = {
    errno.EADDRNOTAVAIL: "; give an address of this host (`ip address` shows them)",
    errno.EADDRINUSE: "; give another port or address, or end the program that has it",
    errno.EACCES: "; give a port from 1024 on",
}

_REMEDIES_OF_DEVICES = {
    errno.ENODEV: "; `ip link` shows those of this host",
    errno.ENETDOWN: "; `ip link set dev DEVICE up` turns it on",
}

# Of packet sockets, from the kernel's headers.
_ETH_P_802_2 = 4
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SIOCGIFMTU = 0x8921
_SO_ATTACH_FILTER = 26
#: A filter. Load whether there is a tag, and for whom the frame is: the kernel takes off the tag of a VLAN that it has no
#: device for, and says that the frame is for another host. If there is none, and it is not, take all of it, else nothing.
_TAGGED, _PACKET_TYPE, _OTHER_HOST = 48, 4, 3
_UNTAGGED = [
    (0x30, 0, 0, 0xFFFFF000 + _TAGGED),
    (0x15, 0, 3, 0),
    (0x30, 0, 0, 0xFFFFF000 + _PACKET_TYPE),
    (0x15, 1, 0, _OTHER_HOST),
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
]


class Ports(Protocol):
    """The engine, for members with ports."""

    def open_port(self, socket: int, mac: bytes | None = None, ethertype: int | None = None) -> int:
        """A member, by a bound socket that is taken over. Raises `OSError`."""

    def close(self, member: int, died: bool) -> None: ...


def open_port(effect: OpenPort, ports: Ports) -> tuple[int, int]:
    """A member with a bound socket, and the MTU of its device, 0 over UDP. Raises `OSError` when the address or the port
    cannot be had, and nothing is left of it; `why_not` gives its text."""
    if effect.family not in _FAMILIES:
        return _open_segment(effect, ports)
    return _open_udp(effect, ports), 0


def _open_udp(effect: OpenPort, ports: Ports) -> int:
    with socket.socket(_FAMILIES[effect.family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        if effect.family == "udp6":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((effect.address, effect.port))
        if _is_broadcast(effect.family, effect.address):
            raise OSError(0, "it is the broadcast address of a network")
        member = ports.open_port(os.dup(sock.fileno()))
        try:
            _allow_fragments(effect.family, sock)
        except BaseException:
            ports.close(member, False)
            raise
    return member


def _open_segment(effect: OpenPort, ports: Ports) -> tuple[int, int]:
    """On an Ethernet segment."""
    is_dix = effect.family == "eth-dix"
    try:
        made = _packet_socket(effect.address, effect.port if is_dix else _ETH_P_802_2)
    except PermissionError:
        made = rawsock.open_socket(effect.address, f"{effect.port:04x}" if is_dix else "llc")
    with made as sock:
        _, _, _, kind, mac = sock.getsockname()
        if kind not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK):
            raise OSError(0, "it is no Ethernet device")
        request = struct.pack("16si12x", effect.address.encode(), 0)
        _, mtu = struct.unpack("16si12x", fcntl.ioctl(sock, _SIOCGIFMTU, request))
        return ports.open_port(os.dup(sock.fileno()), mac, effect.port if is_dix else None), mtu


def _packet_socket(device: str, protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        _take_untagged(sock)
        sock.bind((device, protocol))
    except BaseException:
        sock.close()
        raise
    return sock


def _take_untagged(sock: socket.socket) -> None:
    """Frames with a VLAN tag are those of another segment; the kernel takes the tag off before the socket."""
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _UNTAGGED)
    buffer = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_UNTAGGED), ctypes.addressof(buffer)))


def why_not(effect: OpenPort, error: OSError) -> str:
    """Why there is no port, and what to do about it."""
    if effect.family not in _FAMILIES:
        why = f"{error.strerror or error}{_REMEDIES_OF_DEVICES.get(error.errno or 0, '')}"
        return f"cannot use the device {effect.address} for a layer of type {effect.family}: {why}"
    why = f"{error.strerror or error}{_REMEDIES.get(error.errno or 0, '')}"
    return f"cannot use {effect.address} port {effect.port} for a UDP layer: {why}"


def _allow_fragments(family: str, sock: socket.socket) -> None:
    """The engine's socket forbids them, but a datagram of the C prototype may be longer than a path carries whole."""
    if family == "udp6":
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_WANT)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_WANT)


def _is_broadcast(family: str, address: str) -> bool:
    """Whether the kernel takes it for the broadcast address of a network of this host, to which it binds as to any other."""
    with socket.socket(_FAMILIES[family], socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))
        except PermissionError:
            return True
        except OSError:
            # An address that has no route is one all the same.
            return False
    return False


def path_mtu(family: str, address: Address) -> int:
    """The MTU of a path, as the kernel knows it: of the route, or less when a router said so."""
    with socket.socket(_FAMILIES[family], socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        if family == "udp6":
            return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)


class Resolver:
    """Looks host names up."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        #: For those that are apart; all others have the threads of the loop.
        self._apart = ThreadPoolExecutor(_THREADS_APART, "ouroboros-lookups")

    def resolve(self, effect: Resolve, found: Callable[[list[str]], None], *, apart: bool) -> None:
        """`found`: is told the addresses, none when there are none. `apart`: by threads that wait for nothing else."""
        lookup = self._resolve(effect, found, self._apart if apart else None)
        task = asyncio.get_running_loop().create_task(lookup, name=f"resolve {effect.host}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolve(
        self, effect: Resolve, found: Callable[[list[str]], None], threads: ThreadPoolExecutor | None
    ) -> None:
        what = effect.host, None, _FAMILIES[effect.family], socket.SOCK_DGRAM, socket.IPPROTO_UDP
        try:
            addresses = await asyncio.get_running_loop().run_in_executor(threads, socket.getaddrinfo, *what)
        except (OSError, UnicodeError):
            # The second for what cannot be a host name.
            addresses = []
        found(list(dict.fromkeys(str(address[0]) for *_, address in addresses)))

    def shut_down(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._apart.shutdown(wait=False, cancel_futures=True)
