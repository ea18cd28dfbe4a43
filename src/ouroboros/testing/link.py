"""Bad links outside of a layer: between two descriptors, two UDP addresses, or two network namespaces.

What packets meet on them is written as for an impaired layer, `loss=1%,delay=5ms,seed=42`, and is done by a thread of this
process, so that the kernel need not know how.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import msgspec

from ouroboros._owned import Uncopied
from ouroboros.dataplane import LinkSettings, LinkWorker
from ouroboros.layers import impairment
from ouroboros.testing.impaired import Counters, with_seed

_DEVICES = Path("/dev/net/tun")
#: From linux/if_tun.h and asm-generic/socket.h, the same on all machines that we know. Devices for packets of IP, and for
#: frames of an Ethernet.
TUN, TAP = 0x0001, 0x0002
_TUNSETIFF = 0x400454CA
_IFF_NO_PI = 0x1000
_SO_RCVBUFFORCE = 33
#: Packets that may wait in the kernel for the thread. The default of 500 is less than a burst of a fast sender.
QUEUE = 10_000
#: The same for sockets, bytes.
_BUFFER = 16 << 20
_TOOLS = ("ip", "unshare", "nsenter")

Address = tuple[str, int]


class Link(Uncopied):
    """Passes packets between two descriptors, in both directions. Use as a context manager, or call `close`.

    The descriptors, which it takes over, are TUN or TAP devices, or connected datagram sockets. `back`: what packets from
    the second meet, if that is something else. Raises `IpcpBootstrapError` naming the word of `impair` that is wrong.
    A link that failed by itself lets nothing through, and raises a `RuntimeError` with the reason when it is used or
    closed.
    """

    def __init__(
        self, one: int, other: int, impair: str = "none", back: str | None = None, *, seed: int | None = None
    ) -> None:
        self._ways = _ways(with_seed(impair, seed), None if back is None else with_seed(back, seed))
        self._worker = LinkWorker(one, other, *map(_settings, self._ways))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def impair(self, text: str, back: str | None = None) -> None:
        """Treat packets in another way from now on. A seed in `text` means nothing: random numbers go on as they are."""
        self._set(_ways(text, back))

    def partition(self) -> None:
        """Let nothing through, in either direction, until `heal`. What is under way arrives."""
        self._set([msgspec.structs.replace(way, partition=True) for way in self._ways])

    def heal(self) -> None:
        """End the partition; all else is as before."""
        self._set([msgspec.structs.replace(way, partition=False) for way in self._ways])

    @property
    def counters(self) -> Counters:
        """Counters of packets so far, both directions together."""
        self._check()
        return Counters(*self._worker.counters)

    def close(self) -> None:
        """End the link, and close its descriptors. What is under way is lost."""
        self._worker.stop()
        self._check()

    def _check(self) -> None:
        if (reason := self._worker.failure) is not None:
            raise RuntimeError(f"the link failed by itself, please report it: {reason}")

    def _set(self, ways: Sequence[impairment.Impairment]) -> None:
        self._check()
        self._worker.impair(*map(_settings, ways))
        self._ways = ways


def _ways(text: str, back: str | None) -> Sequence[impairment.Impairment]:
    """What packets meet in either direction."""
    return [impairment.parse(each) for each in (text, text if back is None else back)]


def _settings(way: impairment.Impairment) -> LinkSettings:
    return LinkSettings(**msgspec.structs.asdict(way))


def datagram_link(
    hosts: tuple[Address, Address], faces: tuple[Address, Address], impair: str = "none", *, seed: int | None = None
) -> Link:
    """A link between two UDP addresses that needs no privileges.

    `faces`: addresses of this machine that are free. What the first host sends to the first face arrives at the second host
    from the second face, and the other way round: to either host, its face is the other host.
    """
    # First: for words that are wrong nothing is opened.
    text = with_seed(impair, seed)
    with ExitStack() as stack:
        sockets = [stack.enter_context(_face(face, host)) for host, face in zip(hosts, faces, strict=True)]
        one, other = (os.dup(each.fileno()) for each in sockets)
    return Link(one, other, text)


class NamespacePair(Uncopied):
    """Two hosts with a network stack of the kernel each, joined by a bad link: network namespaces and a pair of TUN devices.

    With `ethernet=True` these are TAP devices, which carry frames of any kind. With `impair=None` the hosts are joined
    directly, by a pair of veth devices, and there is no `link`.

    Needs root, and raises an `OSError` that says so. Use as a context manager. The namespaces are gone when the block ends
    and nothing runs in them any more, also when this process is killed.
    """

    #: The addresses of the two hosts.
    addresses = ("10.9.0.1", "10.9.0.2")
    addresses6 = ("fd09::1", "fd09::2")

    #: The device of each of them that leads to the other.
    device = "veth0"

    def __init__(
        self, impair: str | None = "none", *, seed: int | None = None, mtu: int = 1500, ethernet: bool = False
    ) -> None:
        self._impair = None if impair is None else with_seed(impair, seed)
        self._mtu = mtu
        self._kind = TAP if ethernet else TUN
        self._link: Link | None = None

    @staticmethod
    def lacks() -> str | None:
        """Why there can be none here, None when there can."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        if not _DEVICES.exists():
            return f"there is no {_DEVICES}"
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        return f"there is no command {', '.join(missing)}" if missing else None

    def __enter__(self) -> Self:
        if reason := self.lacks():
            raise OSError(reason)
        with ExitStack() as stack:
            self._hosts = [stack.enter_context(_Namespace()) for _ in range(2)]
            if self._impair is None:
                _join(self._hosts, self.device)
            else:
                ends = [stack.enter_context(_Device(self._kind)) for _ in self._hosts]
                for end, host in zip(ends, self._hosts, strict=True):
                    end.move(host, self.device)
            for host, address, address6 in zip(self._hosts, self.addresses, self.addresses6, strict=True):
                _set_up(host, self.device, address, address6, self._mtu)
            if self._impair is not None:
                self._link = stack.enter_context(Link(ends[0].release(), ends[1].release(), self._impair))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        self._stack.close()

    @property
    def link(self) -> Link:
        """The link between the hosts."""
        if self._link is None:
            raise ValueError("the hosts are joined directly, so there is no link to impair or to count")
        return self._link

    def command(self, host: int, *words: str) -> list[str]:
        """The command line that runs `words` on host 0 or 1, in the same process."""
        return self._hosts[host].command(words)

    def run(self, host: int, *words: str) -> str:
        """Run a command on host 0 or 1, and return what it prints. Raises `subprocess.CalledProcessError` when it fails."""
        return _output(self.command(host, *words))


class _Namespace:
    """A network namespace that lasts as long as this process and what runs in it."""

    def __enter__(self) -> Self:
        # It ends at the end of its input. Ctrl-C is for us, not for it.
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        if not self._keeper.stdout.readline():
            raise OSError(f"no network namespace: {self._keeper.communicate()[1].strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.communicate()

    def command(self, words: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self._keeper.pid}", "--net", "--", *words]

    @property
    def pid(self) -> int:
        return self._keeper.pid


def _join(hosts: Sequence[_Namespace], device: str) -> None:
    """Make a cable between two hosts, with that name at both ends."""
    one, other = (f"netns {host.pid}" for host in hosts)
    _output(["ip", *f"link add {device} {one} type veth peer name {device} {other}".split()])


def _set_up(host: _Namespace, device: str, address: str, address6: str, mtu: int) -> None:
    words = [
        "link set dev lo up",
        f"link set dev {device} mtu {mtu} txqueuelen {QUEUE} up",
        f"address add {address}/24 dev {device}",
    ]
    if Path("/proc/net/if_inet6").exists():
        words.append(f"-6 address add {address6}/64 dev {device} nodad")
    for each in words:
        _output(host.command(["ip", *each.split()]))


def lacks_devices() -> str | None:
    """Why this process can open no device of its own, None when it can if it has the rights for one."""
    return None if os.access(_DEVICES, os.R_OK | os.W_OK) else f"there is no {_DEVICES} that can be opened"


def open_device(kind: int, name: str = "") -> tuple[int, str]:
    """A new device, `TUN` or `TAP`, in the network namespace of this thread, gone with its last descriptor: that, and its
    name, which the kernel chooses if none is given. Raises `OSError`."""
    descriptor = os.open(_DEVICES, os.O_RDWR | os.O_CLOEXEC)
    try:
        request = fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), kind | _IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, request[:16].rstrip(b"\0").decode()


class _Device:
    """A device of `open_device`, with a name that is free here."""

    def __init__(self, kind: int) -> None:
        self._kind = kind

    def __enter__(self) -> Self:
        self._descriptor, self._name = open_device(self._kind)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def move(self, host: _Namespace, name: str) -> None:
        """Let the other end of the device be in the host, with that name."""
        _output(["ip", *f"link set dev {self._name} name {name} netns {host.pid}".split()])

    def release(self) -> int:
        """The descriptor, which now belongs to the caller."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor


def _face(face: Address, host: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in face[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        if os.geteuid() == 0:
            # Beyond the limit of the system.
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        sock.bind(face)
        sock.connect(host)
    except OSError:
        sock.close()
        raise
    return sock


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        error.add_note(done.stderr.strip())
        raise error
    return done.stdout
