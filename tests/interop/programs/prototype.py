"""A program on the prototype's host: calls the prototype's library as a test tells it.

Argument: the library. Says its process id; then each line of its input is a JSON list of a call and its arguments, and is
answered with a line of JSON. Times are seconds, data are hexadecimal, negative numbers are errors of the library.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
import time
from typing import Any

SET_READ_TIMEOUT, SET_WRITE_TIMEOUT = 1, 3
LARGEST = 65536


class Spec(ctypes.Structure):
    """A quality of service, as the library wants it."""

    _fields_ = (
        ("delay", ctypes.c_uint32),
        ("bandwidth", ctypes.c_uint64),
        ("availability", ctypes.c_uint8),
        ("loss", ctypes.c_uint32),
        ("ber", ctypes.c_uint32),
        ("in_order", ctypes.c_uint8),
        ("max_gap", ctypes.c_uint32),
        ("timeout", ctypes.c_uint32),
    )


class Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_long))


def time_of(seconds: float) -> Any:
    whole = int(seconds)
    return ctypes.byref(Time(whole, int((seconds - whole) * 1e9)))


class Calls:
    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.flow_read.restype = self._library.flow_write.restype = ctypes.c_ssize_t
        self._library.flow_read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
        self._library.flow_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
        self._buffer = ctypes.create_string_buffer(LARGEST)

    def accept(self, seconds: float) -> list[Any]:
        end = time.monotonic() + seconds
        while True:
            spec = Spec()
            fd = self._library.flow_accept(ctypes.byref(spec), time_of(max(0.0, end - time.monotonic())))
            # It fails when the layer loses a race over the answer to the request, which will come again.
            if fd >= 0 or time.monotonic() > end:
                return [fd, {name: getattr(spec, name) for name, _ in Spec._fields_}]

    def alloc(self, name: str, spec: dict[str, int], seconds: float) -> int:
        return int(self._library.flow_alloc(name.encode(), ctypes.byref(Spec(**spec)), time_of(seconds)))

    def dealloc(self, fd: int) -> int:
        return int(self._library.flow_dealloc(fd))

    def timeouts(self, fd: int, seconds: float) -> list[int]:
        """Limit what reading and writing wait for."""
        return [self._library.fccntl(fd, what, time_of(seconds)) for what in (SET_READ_TIMEOUT, SET_WRITE_TIMEOUT)]

    def read(self, fd: int) -> str | int:
        count = self._library.flow_read(fd, self._buffer, LARGEST)
        return int(count) if count < 0 else self._buffer.raw[:count].hex()

    def write(self, fd: int, data: str) -> int:
        return int(self._library.flow_write(fd, bytes.fromhex(data), len(data) // 2))

    def receive(self, fd: int, most: int) -> list[Any]:
        """Read up to so many packets: how many came, the digest of all, the error that ended it or 0."""
        digest = hashlib.sha256()
        for number in range(most):
            count = self._library.flow_read(fd, self._buffer, LARGEST)
            if count < 0:
                return [number, digest.hexdigest(), count]
            digest.update(count.to_bytes(4, "big") + ctypes.string_at(self._buffer, count))
        return [most, digest.hexdigest(), 0]

    def send(self, fd: int, count: int, size: int) -> list[Any]:
        """Write so many numbered packets: as `receive`."""
        digest = hashlib.sha256()
        for number in range(count):
            packet = (number.to_bytes(4, "big") * (size // 4 + 1))[:size]
            status = self._library.flow_write(fd, packet, size)
            if status < 0:
                return [number, digest.hexdigest(), status]
            digest.update(size.to_bytes(4, "big") + packet)
        return [count, digest.hexdigest(), 0]

    def echo(self, fd: int, most: int) -> list[int]:
        """Send so many packets back: how many, the error that ended it or 0."""
        for number in range(most):
            count = self._library.flow_read(fd, self._buffer, LARGEST)
            status = count if count < 0 else self._library.flow_write(fd, self._buffer.raw[:count], count)
            if status < 0:
                return [number, status]
        return [most, 0]


def main() -> None:
    calls = Calls(sys.argv[1])
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        call, *arguments = json.loads(line)
        print(json.dumps(getattr(calls, call)(*arguments)), flush=True)


main()
