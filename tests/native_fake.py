"""The C prototype without C: the functions of its libraries as it has them, defects included (`flows.md` 15).

Both ends of each flow are in this process. What would damage a real process is an `Accident` here; `accidents` has those
that happened in threads of the code under test.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import cffi

from ouroboros.native import declarations as c
from ouroboros.native.library import Library

FIRST_FD, EVENTS = 64, 1024
PKT, DOWN, UP, DEALLOC, PEER = 1, 2, 4, 16, 32
KEEPALIVE = b""


class Accident(AssertionError):
    """What the C library would have answered with a crash, or by hanging for ever."""


class End:
    """One end of a flow, as the library keeps it."""

    def __init__(self, qos: dict[str, int]) -> None:
        self.qos = qos
        self.received: deque[bytes] = deque()
        self.receive_limit: float | None = None
        self.send_limit: float | None = None
        self.flags = 0o20002
        self.refused = self.down = self.dead = self.end_mark = False
        self.other: End
        self.set: Set | None = None


class Set:
    """A flow set, with the area of its events."""

    def __init__(self) -> None:
        self.events: deque[tuple[End, int]] = deque()


class Queue:
    def __init__(self) -> None:
        self.events: deque[tuple[End, int]] = deque()
        self.kind = -1


class FakeDev:
    """`libouroboros-dev`."""

    def __init__(self, ffi: Any) -> None:
        self._ffi = ffi
        self._changed = threading.Condition()
        self._ends: dict[int, End] = {}
        self._handles: dict[Any, Any] = {}
        self._requests: deque[tuple[End, threading.Event]] = deque()
        self.accidents: list[str] = []
        self.calls: list[str] = []
        self.block_bytes = 1048260
        self.blocks_left = 10_000
        #: What the next calls to get a flow return instead of one.
        self.refusals: deque[int] = deque()
        #: Called in the place of a wait for an acceptor.
        self.accept_limits: list[float | None] = []

    # --- for tests

    def pair(self, **qos: int) -> tuple[int, int]:
        """Two ends of a new flow."""
        spec = {"loss": 1, "ber": 1, "timeout": 120_000, **qos}
        one, other = End(spec), End(spec)
        one.other, other.other = other, one
        with self._changed:
            return self._place(one), self._place(other)

    def end(self, fd: int) -> End:
        return self._ends[fd]

    def put(self, fd: int, *packets: bytes) -> None:
        """Let packets arrive at this end. An empty one is a keepalive."""
        with self._changed:
            end = self._ends[fd]
            for packet in packets:
                end.received.append(packet)
                self._post(end, PKT)
            self._changed.notify_all()

    def take(self, fd: int) -> list[bytes]:
        """What the other end has written to this one."""
        with self._changed:
            packets = list(self._ends[fd].received)
            self._ends[fd].received.clear()
            self._changed.notify_all()
            return packets

    def end_by_peer(self, fd: int) -> None:
        """The peer gives its end back. Nobody who waits to read is woken (B5)."""
        with self._changed:
            end = self._ends[fd]
            end.down = end.other.down = True
            self._post(end, DEALLOC)

    def time_out(self, fd: int) -> None:
        """The peer has not been heard of."""
        with self._changed:
            end = self._ends[fd]
            end.dead = True
            self._post(end, PEER)

    def set_down(self, fd: int, down: bool) -> None:
        """The peer sets the flow down, or up again."""
        with self._changed:
            end = self._ends[fd]
            end.down = end.other.down = down
            self._post(end, DOWN if down else UP)

    # --- flows

    def flow_alloc(self, name: Any, qos: Any, limit: Any) -> int:
        self.calls.append("flow_alloc")
        with self._changed:
            if self.refusals:
                return self.refusals.popleft()
            fd, other = self.pair_of(qos)
            self._requests.append((self._ends.pop(other), threading.Event()))
            self._changed.notify_all()
            return fd

    def pair_of(self, qos: Any) -> tuple[int, int]:
        qos.ber = 1
        return self.pair(loss=qos.loss, ber=qos.ber, in_order=qos.in_order, timeout=qos.timeout)

    def flow_accept(self, qos: Any, limit: Any) -> int:
        self.calls.append("flow_accept")
        seconds = self._seconds(limit)
        self.accept_limits.append(seconds)
        with self._changed:
            if self.refusals:
                return self.refusals.popleft()
            if not self._changed.wait_for(lambda: self._requests, seconds):
                return -c.ETIMEDOUT
            end, _ = self._requests.popleft()
            for field, value in end.qos.items():
                setattr(qos, field, value)
            return self._place(end)

    def flow_join(self, *arguments: Any) -> int:
        self.calls.append("flow_join")
        return self.refusals.popleft() if self.refusals else self.pair()[0]

    def flow_dealloc(self, fd: int) -> int:
        self.calls.append("flow_dealloc")
        with self._changed:
            end = self._ends.get(fd)
            if end is None:
                return -c.ENOTALLOC
            if end.other.received and not end.down:
                self._accident("dealloc waits for ever, and no other thread gets into the library (B6, B7)")
            if end.set is not None:
                self._accident("the number stays in its set (B9)")
            del self._ends[fd]
            end.down = end.other.down = True
            self._post(end.other, DEALLOC)
            return 0

    def flow_read(self, fd: int, buffer: Any, count: int) -> int:
        with self._changed:
            end = self._ends.get(fd)
            if end is None:
                return -c.ENOTALLOC
            if end.end_mark:
                end.end_mark = False
                return 0
            end.dead = end.dead and not end.received
            while True:
                while end.received:
                    packet = end.received.popleft()
                    if packet != KEEPALIVE:
                        return self._deliver(end, packet, buffer, count)
                if end.down:
                    return -c.EFLOWDOWN
                if end.dead:
                    return -c.EFLOWPEER
                limit = end.receive_limit
                # Woken by packets only: what ends the flow goes unnoticed until the time is over (B5).
                if not self._changed.wait_for(lambda: end.received, None if limit is None else max(0.0, limit)):
                    return -c.ETIMEDOUT

    def _deliver(self, end: End, packet: bytes, buffer: Any, count: int) -> int:
        taken = packet[:count]
        self._ffi.buffer(buffer, count)[: len(taken)] = taken
        # The rest is gone (B2).
        end.end_mark = len(taken) == count
        return len(taken)

    def flow_write(self, fd: int, source: Any, count: int) -> int:
        with self._changed:
            end = self._ends.get(fd)
            if end is None:
                return -c.ENOTALLOC
            if count > self.block_bytes:
                return -c.EMSGSIZE
            if self.blocks_left <= 0:
                return -c.ETIMEDOUT
            if end.send_limit is None or end.send_limit > 0:
                self._accident("a write that may wait keeps all threads out of the library (B7)")
            packet = source[:count] if isinstance(source, bytes) else bytes(self._ffi.buffer(source, count))
            if len(end.other.received) >= c.RING or end.down or end.other.refused:
                # Dropped, with success (B1).
                return count
            end.other.received.append(packet)
            self._post(end.other, PKT)
            self._changed.notify_all()
            return count

    def fccntl(self, fd: int, command: int, argument: Any) -> int:
        with self._changed:
            end = self._ends.get(fd)
            if end is None:
                return -c.ENOTALLOC
            match command:
                case c.RECEIVE_TIMEOUT:
                    end.receive_limit = self._seconds(argument)
                case c.SEND_TIMEOUT:
                    end.send_limit = self._seconds(argument)
                case c.RECEIVE_QUEUE:
                    argument[0] = len(end.received)
                case c.TRANSMIT_QUEUE:
                    argument[0] = len(end.other.received)
                case c.SET_FLAGS:
                    self._set_flags(end, int(argument))
                case _:
                    return -95
            return 0

    def _set_flags(self, end: End, flags: int) -> None:
        end.flags = flags
        if flags & 3 == 1:
            # For ever (B18).
            end.refused = True
        end.down = end.other.down = bool(flags & 4)
        self._post(end.other, DOWN if end.down else UP)

    # --- sets

    def fset_create(self) -> Any:
        return self._handle(Set())

    def fset_add(self, handle: Any, fd: int) -> int:
        with self._changed:
            end, flows = self._ends[fd], self._handles[handle]
            if end.set is not None:
                return -c.EPERM
            end.set = flows
            if end.received:
                self._post(end, PKT)
            return 0

    def fset_del(self, handle: Any, fd: int) -> None:
        with self._changed:
            end = self._ends.get(fd)
            if end is not None and end.set is self._handles[handle]:
                # What was posted stays.
                end.set = None

    def fqueue_create(self) -> Any:
        return self._handle(Queue())

    def fevent(self, handle: Any, queue: Any, limit: Any) -> int:
        with self._changed:
            flows, found = self._handles[handle], self._handles[queue]
            if not self._changed.wait_for(lambda: flows.events, self._seconds(limit)):
                return -c.ETIMEDOUT
            found.events, flows.events = flows.events, deque()
            return 1

    def fqueue_next(self, queue: Any) -> int:
        found = self._handles[queue]
        if not found.events:
            return -c.EPERM
        end, found.kind = found.events.popleft()
        # Of a flow that was given back it looks like the end.
        return next((fd for fd, each in self._ends.items() if each is end), -1)

    def fqueue_type(self, queue: Any) -> int:
        kind: int = self._handles[queue].kind
        return kind

    # --- helpers

    def _place(self, end: End) -> int:
        # The lowest free number is used again at once.
        fd = next(number for number in range(FIRST_FD, 4096) if number not in self._ends)
        self._ends[fd] = end
        return fd

    def _post(self, end: End, kind: int) -> None:
        if end.set is not None:
            end.set.events.append((end, kind))
            if len(end.set.events) > EVENTS:
                self._accident("events are written past the end of their memory (B8)")
            self._changed.notify_all()

    def _accident(self, what: str) -> None:
        self.accidents.append(what)
        raise Accident(what)

    def _handle(self, what: Any) -> Any:
        handle = self._ffi.cast("void *", 0x1000 + 16 * len(self._handles))
        self._handles[handle] = what
        return handle

    def _seconds(self, limit: Any) -> float | None:
        return None if limit == self._ffi.NULL else limit.tv_sec + limit.tv_nsec / 1e9


class FakeIrm:
    """`libouroboros-irm`, and the daemon behind it."""

    def __init__(self, ffi: Any, libc: Any) -> None:
        self._ffi, self._libc = ffi, libc
        self.names: dict[bytes, int] = {}
        self.ipcps: dict[int, tuple[int, bytes, bytes]] = {}
        self.bound: set[tuple[int, bytes]] = set()
        self.programs: list[tuple[bytes, bytes, int, list[bytes]]] = []
        self.registered: set[tuple[bytes, int]] = set()
        self.calls: list[tuple[str, Any]] = []
        self.accidents: list[str] = []
        self.configurations: list[Any] = []
        #: What every call returns instead, such as -1002 when there is no daemon.
        self.refusal = 0

    def irm_create_ipcp(self, name: bytes, kind: int) -> int:
        if self.refusal:
            return self.refusal
        self.ipcps[1000 + len(self.ipcps)] = (kind, name, b"Not enrolled.")
        # Not the pid that its type promises.
        return 0

    def irm_destroy_ipcp(self, pid: int) -> int:
        if pid not in self.ipcps:
            self.accidents.append(f"process {pid} gets SIGTERM from root")
        del self.ipcps[pid]
        return 0

    def irm_list_ipcps(self, found: Any) -> int:
        if self.refusal:
            return self.refusal
        entries = self._array("struct ipcp_list_info", len(self.ipcps))
        for index, (pid, (kind, name, layer)) in enumerate(sorted(self.ipcps.items())):
            entry = entries[index]
            entry.pid, entry.type, entry.name, entry.layer = pid, kind, name, layer
        found[0] = entries
        return len(self.ipcps)

    def irm_bootstrap_ipcp(self, pid: int, config: Any) -> int:
        kind, name, _ = self.ipcps[pid]
        if self.refusal:
            return self.refusal
        self.configurations.append(self._copy("struct ipcp_config", config))
        self.ipcps[pid] = (kind, name, self._ffi.string(config.layer))
        return 0

    def irm_enroll_ipcp(self, pid: int, dst: bytes) -> int:
        return self._note("enroll", pid, dst)

    def irm_connect_ipcp(self, pid: int, dst: bytes, component: bytes, qos: Any) -> int:
        return self._note("connect", pid, dst, component, (qos.loss, qos.ber, qos.in_order))

    def irm_disconnect_ipcp(self, pid: int, dst: bytes, component: bytes) -> int:
        return self._note("disconnect", pid, dst, component)

    def irm_create_name(self, info: Any, policy: int = -1) -> int:
        if self.refusal:
            return self.refusal
        if isinstance(info, bytes):
            self.names.setdefault(info, policy)
        else:
            self.names.setdefault(self._ffi.string(info.name), info.pol_lb)
            self.calls.append(("create_name", self._ffi.string(info.server_crt)))
        return 0

    def irm_destroy_name(self, name: bytes) -> int:
        return 0 if self.names.pop(name, None) is not None else -1

    def irm_list_names(self, found: Any) -> int:
        entries = self._array("struct name_info", len(self.names))
        # Only two fields are filled in.
        for index, (name, policy) in enumerate(self.names.items()):
            entry = entries[index]
            entry.name, entry.pol_lb = name, policy
        found[0] = entries
        return len(self.names)

    def irm_reg_name(self, name: bytes, pid: int) -> int:
        if name not in self.names:
            return -c.ENAME
        self.registered.add((name, pid))
        return 0

    def irm_unreg_name(self, name: bytes, pid: int) -> int:
        self.registered.discard((name, pid))
        return 0

    def irm_bind_process(self, pid: int, name: bytes) -> int:
        if (pid, name) in self.bound:
            return -1
        self.bound.add((pid, name))
        self.names.setdefault(name, 1)
        return 0

    def irm_unbind_process(self, pid: int, name: bytes) -> int:
        if (pid, name) not in self.bound:
            return -1
        self.bound.discard((pid, name))
        return 0

    def irm_bind_program(self, program: bytes, name: bytes, options: int, count: int, arguments: Any) -> int:
        if not program.startswith(b"/"):
            self.accidents.append("PATH of the process is cut off after its first entry")
        self.programs.append((program, name, options, [self._ffi.string(arguments[index]) for index in range(count)]))
        return 0

    def irm_unbind_program(self, program: bytes, name: bytes) -> int:
        return self._note("unbind_program", program, name)

    def _note(self, what: str, *arguments: Any) -> int:
        self.calls.append((what, arguments))
        return self.refusal

    def _array(self, kind: str, length: int) -> Any:
        # As C gives it: memory that was used for something else, and that the caller frees.
        size = self._ffi.sizeof(kind)
        memory = self._libc.malloc(max(1, length * size))
        self._ffi.buffer(memory, length * size)[:] = b"\xff" * (length * size)
        return self._ffi.cast(f"{kind} *", memory)

    def _copy(self, kind: str, pointer: Any) -> Any:
        copy = self._ffi.new(f"{kind} *")
        self._ffi.buffer(copy)[:] = bytes(self._ffi.buffer(pointer, self._ffi.sizeof(kind)))
        return copy


def fake_library(version: tuple[int, int] = (0, 23)) -> tuple[Library, FakeDev]:
    """A library with nothing behind it."""
    ffi = cffi.FFI()
    ffi.cdef(c.declarations(version) + "ssize_t read(int, void *, size_t); void * malloc(size_t);")
    dev = FakeDev(ffi)
    library = Library(ffi, dev, version)
    library._irm = FakeIrm(ffi, ffi.dlopen(None))
    return library, dev


__all__ = ["Accident", "FakeDev", "FakeIrm", "fake_library"]
