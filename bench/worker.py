"""One of the two programs of a measurement: `python -m bench.worker CORE`.

Reads a JSON command a line, writes a JSON answer a line.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from time import perf_counter
from typing import Any

from bench import loops, peers
from bench.peers.face import Awaited, Channel, Peer

_GREETING = b"?"
Answer = dict[str, Any]


class Worker:
    """Holds the connections of this program and runs its side of each loop. Every public method is a command."""

    def __init__(self) -> None:
        self._peer: Peer | None = None
        self._channels: list[Channel] = []

    def probe(self, peer: str) -> Answer:
        """Whether the peer can be measured here, and what it is."""
        try:
            cls = peers.load(peer)
        except ImportError as error:
            return {"missing": str(error)}
        return {"version": cls.version(), "fds_per_flow": cls.fds_per_flow, "needs_node": cls.needs_node}

    def open(self, peer: str, address: str, serve: bool) -> Answer:
        self._peer = peers.load(peer)(address)
        if serve:
            self._peer.serve()
        return {}

    def accept(self, count: int) -> Answer:
        """Take `count` connections and keep them; each carries one packet each way."""
        peer = self._require_peer()
        for _ in range(count):
            channel = peer.accept()
            channel.send(channel.recv())
            self._channels.append(channel)
        return {}

    def connect(self, count: int) -> Answer:
        """Be the other side of `accept`."""
        peer = self._require_peer()
        start = perf_counter()
        for _ in range(count):
            channel = peer.connect()
            channel.send(_GREETING)
            channel.recv()
            self._channels.append(channel)
        return {"per_second": count / (perf_counter() - start)}

    def accept_and_close(self, count: int) -> Answer:
        peer = self._require_peer()
        for _ in range(count):
            channel = peer.accept()
            channel.send(channel.recv())
            channel.close()
        return {}

    def connect_and_close(self, count: int) -> Answer:
        peer = self._require_peer()
        start = perf_counter()
        for _ in range(count):
            channel = peer.connect()
            channel.send(_GREETING)
            channel.recv()
            channel.close()
        return {"per_second": count / (perf_counter() - start)}

    def ping(self, size: int, count: int) -> Answer:
        channel = self._channels[-1]
        return loops.ping(channel.send, channel.receive_with(size), bytes(size), count).as_dict()

    def echo(self, size: int, count: int) -> Answer:
        channel = self._channels[-1]
        loops.echo(channel.send, channel.receive_with(size), count)
        return {}

    def ping_over(self, size: int, count: int) -> Answer:
        return loops.ping_over(self._ends(size), bytes(size), count).as_dict()

    def echo_over(self, size: int, count: int) -> Answer:
        loops.echo_over(self._ends(size), count)
        return {}

    def push(self, size: int, count: int) -> Answer:
        channel = self._channels[-1]
        loops.push(channel.send, channel.receive_with(size), bytes(size), count)
        return {}

    def pull(self, size: int, count: int) -> Answer:
        channel = self._channels[-1]
        return {"per_second": loops.pull(channel.send, channel.receive_with(size), size, count)}

    def push_over(self, size: int, count: int) -> Answer:
        loops.push_over(self._ends(size), bytes(size), count)
        return {}

    def pull_over(self, size: int, count: int) -> Answer:
        return {"per_second": loops.pull_over(self._ends(size), size, count)}

    def push_many(self, size: int, count: int) -> Answer:
        channel = self._channels[-1]
        if channel.send_many is None:
            raise RuntimeError("this peer has no batches")
        loops.push_many(channel.send_many, channel.send, channel.receive_with(size), bytes(size), count)
        return {}

    def pull_many(self, size: int, count: int) -> Answer:
        channel = self._channels[-1]
        if channel.recv_many is None:
            raise RuntimeError("this peer has no batches")
        return {"per_second": loops.pull_many(channel.recv_many, channel.send, size, count)}

    def flood(self, size: int, count: int) -> Answer:
        channel = self._channels[-1]
        if channel.give_up_sending is None:
            loops.flood(channel.send, bytes(size), count)
            return {"sent": count}
        channel.give_up_sending(loops.START_TIME)
        return {"sent": loops.flood(channel.send, bytes(size), count, channel.silence)}

    def flood_over(self, size: int, count: int) -> Answer:
        loops.flood_over(self._ends(size), bytes(size), count)
        return {}

    def drain(self, size: int, count: int) -> Answer:
        channel = self._channels[-1]
        if channel.give_up is None:
            raise RuntimeError("this peer has no time limit")
        received, per_second = loops.drain(channel.receive_with(size), channel.give_up, count, channel.silence)
        return {"received": received, "per_second": per_second}

    def join(self, count: int) -> Answer:
        """Be so many members of a broadcast layer."""
        self._channels += [self._require_peer().connect() for _ in range(count)]
        return {}

    def drain_all(self, size: int, count: int) -> Answer:
        """Be the other side of `flood` in a broadcast layer, of which each member may get all, or of `flood_over`."""
        members = [(channel.recv_many, channel.give_up) for channel in self._channels]
        received, per_second = loops.drain_all(members, count, self._channels[-1].silence)  # type: ignore[arg-type]
        return {"received": received, "per_second": per_second}

    def has_awaited(self) -> Answer:
        return {"yes": self._channels[-1].awaited is not None}

    def ping_awaited(self, size: int, count: int) -> Answer:
        ends = self._awaited(size)
        trips: loops.RoundTrips = ends.run(loops.ping_awaited(ends.send, ends.recv, bytes(size), count))
        return trips.as_dict()

    def echo_awaited(self, size: int, count: int) -> Answer:
        ends = self._awaited(size)
        ends.run(loops.echo_awaited(ends.send, ends.recv, count))
        return {}

    def push_awaited(self, size: int, count: int) -> Answer:
        ends = self._awaited(size)
        ends.run(loops.push_awaited(ends.send, ends.recv, bytes(size), count))
        return {}

    def pull_awaited(self, size: int, count: int) -> Answer:
        ends = self._awaited(size)
        return {"per_second": ends.run(loops.pull_awaited(ends.send, ends.recv, size, count))}

    def has_batches(self) -> Answer:
        return {"yes": self._channels[-1].send_many is not None}

    def close_all(self) -> Answer:
        count = len(self._channels)
        start = perf_counter()
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        return {"per_second": count / (perf_counter() - start)}

    def shutdown(self) -> Answer:
        if self._peer is not None:
            self._peer.shutdown()
        return {}

    def _require_peer(self) -> Peer:
        if self._peer is None:
            raise RuntimeError("the first command is open")
        return self._peer

    def _awaited(self, size: int) -> Awaited:
        awaited = self._channels[-1].awaited
        if awaited is None:
            raise RuntimeError("this peer has no calls to await")
        return awaited(size)

    def _ends(self, size: int) -> list[loops.Ends]:
        return [(channel.send, channel.receive_with(size)) for channel in self._channels]


def _answer(worker: Worker, line: str) -> Answer:
    command = json.loads(line)
    try:
        answer: Answer = getattr(worker, command.pop("op"))(**command)
    except NotImplementedError as error:
        return {"error": f"not built yet: {error}"}
    except Exception as error:  # noqa: BLE001 - any failure is an answer: the harness decides what it means
        text = traceback.format_exception_only(error)[-1].strip()
        return {"error": text, "traceback": traceback.format_exc()}
    return answer


def _pin(core: str) -> None:
    # Before any library can start a thread: those belong on the program's core as well.
    if core != "any":
        os.sched_setaffinity(0, {int(core)})


def _raise_fd_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Answer commands until there are no more."""
    _pin(sys.argv[1])
    _raise_fd_limit()
    answers = os.fdopen(os.dup(1), "w")
    # Whatever a library prints must not be taken for an answer.
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(worker, line)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
