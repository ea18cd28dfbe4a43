"""Two network namespaces with a bad link between them. Needs root."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from ouroboros.testing.link import NamespacePair

_LACKS = NamespacePair.lacks()
pytestmark = pytest.mark.skipif(_LACKS is not None, reason=str(_LACKS))

#: Prints the number of bytes that a connection brings.
_COUNT = """
import socket, sys
with socket.create_server((sys.argv[1], 5000), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    print(sum(map(len, iter(lambda: connection.recv(65536), b""))))
"""
#: Sends so many, by TCP.
_SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 5000)) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
"""


def transfer(pair: NamespacePair, address: str, count: int) -> int:
    """Send bytes from host 0 to host 1, and return how many arrived."""
    with subprocess.Popen(
        pair.command(1, sys.executable, "-c", _COUNT, address), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        pair.run(0, sys.executable, "-c", _SEND, address, str(count))
        return int(server.stdout.read())


def keepers(pair: NamespacePair) -> list[int]:
    """The processes that keep the namespaces."""
    return [int(pair.command(host)[1].partition("=")[2]) for host in (0, 1)]


@pytest.mark.parametrize("ethernet", [False, True])
def test_tcp_of_the_kernel_copes_with_the_link(ethernet: bool) -> None:
    with NamespacePair("loss=2%,delay=1ms", seed=3, ethernet=ethernet) as pair:
        assert transfer(pair, pair.addresses[1], 1_000_000) == 1_000_000
        delivered, lost, *_ = pair.link.counters
    assert delivered > 1_000_000 / 1500
    assert lost > 0


def test_there_is_ipv6_too() -> None:
    with NamespacePair() as pair:
        assert transfer(pair, pair.addresses6[1], 10_000) == 10_000


def test_hosts_may_be_joined_directly() -> None:
    with NamespacePair(None) as pair:
        for address in (pair.addresses[1], pair.addresses6[1]):
            assert transfer(pair, address, 10_000) == 10_000
        with pytest.raises(ValueError, match="no link"):
            pair.link.partition()


def test_the_hosts_reach_only_each_other() -> None:
    with NamespacePair() as pair:
        for host in (0, 1):
            routes = pair.run(host, "ip", "-4", "route")
            assert routes.split()[0] == "10.9.0.0/24"
            assert len(routes.splitlines()) == 1


def test_a_command_that_fails_tells_why() -> None:
    with NamespacePair() as pair, pytest.raises(subprocess.CalledProcessError) as raised:
        pair.run(0, "ip", "link", "show", "dev", "nothing")
    assert "nothing" in raised.value.__notes__[0]


def test_nothing_is_left_of_a_pair_that_failed() -> None:
    pair = NamespacePair()
    with contextlib.suppress(ZeroDivisionError), pair:
        pids = keepers(pair)
        raise ZeroDivisionError
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_nothing_is_left_of_a_pair_whose_process_was_killed() -> None:
    program = """
from ouroboros.testing.link import NamespacePair

with NamespacePair() as pair:
    print(*(pair.command(host)[1].partition("=")[2] for host in (0, 1)), flush=True)
    input()
"""
    with (
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
        ExitStack() as stack,
    ):
        assert process.stdout is not None
        pidfds = [os.pidfd_open(int(keeper)) for keeper in process.stdout.readline().split()]
        for pidfd in pidfds:
            stack.callback(os.close, pidfd)
        process.kill()
        for pidfd in pidfds:
            select.select([pidfd], [], [])
