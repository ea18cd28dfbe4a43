"""Network devices that layers use: whether they are on, carry frames, and are there."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

# From the kernel's headers.
_NETLINK_ROUTE, _RTMGRP_LINK = 0, 1
_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_RUNNING = 0x1, 0x40


class Device(NamedTuple):
    """`on`: somebody switched it on. `carries`: it is, and has a carrier: a cable, and another device at its end."""

    on: bool
    carries: bool


def trouble_of(name: str, device: Device) -> str:
    """Why it carries nothing, and what to do about it; "" if it carries frames."""
    if device.carries:
        return ""
    if device.on:
        return f"the device {name} has no carrier: look at its cable, and at the device at the other end"
    return f"the device {name} is off; `ip link set dev {name} up` turns it on"


#: Is told the device from then on; None: it is gone, and never comes back.
Told = Callable[[Device | None], None]


class Devices:
    """Watches devices, each for somebody. The kernel says that some device has changed (rtnetlink, without privilege); then
    all that are watched are looked at, so that no message has to be understood, and none can be missed."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        #: By whom they are watched: their number in the kernel, and as they were.
        self._watched: dict[object, tuple[int, Device | None, Told]] = {}

    def watch(self, who: object, name: str, told: Told) -> None:
        """`told`: is called when the device is not on and carrying at present, and at each change, in the running loop.
        Raises `OSError`, and watches nothing, when there is no such device."""
        index = socket.if_nametoindex(name)
        if self._netlink is None:
            self._netlink = self._listen()
        self._watched[who] = index, Device(on=True, carries=True), told
        asyncio.get_running_loop().call_soon(self._look)

    def unwatch(self, who: object) -> None:
        """No error when nothing is watched for it."""
        self._watched.pop(who, None)
        if not self._watched:
            self.close()

    def close(self) -> None:
        self._watched.clear()
        netlink, self._netlink = self._netlink, None
        if netlink is not None:
            asyncio.get_running_loop().remove_reader(netlink)
            netlink.close()

    def _listen(self) -> socket.socket:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
        try:
            netlink.bind((0, _RTMGRP_LINK))
            asyncio.get_running_loop().add_reader(netlink, self._heard)
        except BaseException:
            netlink.close()
            raise
        return netlink

    def _heard(self) -> None:
        assert self._netlink is not None
        with contextlib.suppress(OSError):
            # Until there is nothing more, or to say that there was more than there was room for.
            while self._netlink.recv(1):
                pass
        self._look()

    def _look(self) -> None:
        for who, (index, before, told) in list(self._watched.items()):
            now = self._state(index)
            # Whoever was told may have let go of others.
            if now != before and self._watched.get(who) == (index, before, told):
                self._watched[who] = index, now, told
                told(now)

    def _state(self, index: int) -> Device | None:
        if self._netlink is None:
            return None
        try:
            request = struct.pack("16sH22x", socket.if_indextoname(index).encode(), 0)
            _, flags = struct.unpack("16sH22x", fcntl.ioctl(self._netlink, _SIOCGIFFLAGS, request))
        except OSError:
            return None
        on = bool(flags & _IFF_UP)
        return Device(on, on and bool(flags & _IFF_RUNNING))
