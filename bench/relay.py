"""A loop of sockets that passes datagrams on in runs, as near to what the kernel needs as Python can be: three hosts in a
line, the first of which sends, the second of which passes on, and the last of which counts.

`python -m bench.relay send|pass|count ADDRESS`: one of them; each ends with the last packet.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack

from bench.harness import PATIENCE, ROOT, Host

#: Bytes of a datagram: a packet of 1400, behind the headers of a unicast layer and of a flow over UDP.
_SIZE = 1419
#: Datagrams that UDP carries at once, and runs of so many that may be under way: as much as a flow of ours has there.
_RUN = 45
_UNDER_WAY = 8
_PORT = 9000
#: linux/udp.h, and SO_RCVBUFFORCE of asm-generic/socket.h, which Python does not name.
_UDP_SEGMENT, _UDP_GRO, _RCVBUFFORCE = 103, 104, 33
_SEGMENT = struct.pack("=H", _SIZE)
_END = b"end"


def nanoseconds(hosts: list[Host], count: int) -> float:
    """Processor time of the thread that passes on, for each of about so many datagrams. `hosts`: the last one first.
    subprocess.TimeoutExpired: one of the three failed, or a datagram was lost."""
    counting, passing, sending = hosts
    with ExitStack() as stack:
        programs = [
            stack.enter_context(_start(host, *words))
            for host, words in (
                (counting, ("count", sending.address)),
                (passing, ("pass", counting.address)),
                (sending, ("send", passing.address, str(count))),
            )
        ]
        try:
            answers = [program.communicate(timeout=PATIENCE)[0] for program in programs]
        finally:
            for program in programs:
                program.kill()
    return float(json.loads(answers[1]))


def _start(host: Host, role: str, *words: str) -> subprocess.Popen[str]:
    """One of the three. It has its socket when this returns."""
    command = [*host.prefix, sys.executable, "-m", "bench.relay", role, host.address, *words]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert program.stdout is not None
    program.stdout.readline()
    return program


def _open(address: str) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 4 << 20)
    opened.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
    opened.bind((address, _PORT))
    print(flush=True)
    return opened


def _send(here: socket.socket, there: str, words: str) -> None:
    run, counted, sent = bytes(_SIZE * _RUN), 0, 0
    while sent < int(words):
        while sent - counted > _UNDER_WAY * _RUN:
            (counted,) = struct.unpack("=Q", here.recv(8))
        here.sendmsg([run], [(socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT)], 0, (there, _PORT))
        sent += _RUN
    while counted < sent:
        (counted,) = struct.unpack("=Q", here.recv(8))
    here.sendto(_END, (there, _PORT))


def _pass(here: socket.socket, there: str) -> None:
    buffer = bytearray(1 << 16)
    view, to, count, start = memoryview(buffer), (there, _PORT), 0, 0
    segment = [(socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT)]
    while (length := here.recvmsg_into([buffer], 64)[0]) > len(_END):
        start = start or time.thread_time_ns()
        here.sendmsg([view[:length]], segment if length > _SIZE else [], 0, to)
        count += -(-length // _SIZE)
    print(json.dumps((time.thread_time_ns() - start) / count), flush=True)
    here.sendto(_END, to)


def _count(here: socket.socket, there: str) -> None:
    buffer, count = bytearray(1 << 16), 0
    while (length := here.recvmsg_into([buffer], 64)[0]) > len(_END):
        count += -(-length // _SIZE)
        here.sendto(struct.pack("=Q", count), (there, _PORT))


if __name__ == "__main__":
    {"send": _send, "pass": _pass, "count": _count}[sys.argv[1]](_open(sys.argv[2]), *sys.argv[3:])
