"""One run of the benchmark: which peers, how often, how long, and the order of the repetitions."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from bench import prototype
from bench.harness import BenchError, Host, Pair, Program, open_network_pair, open_pair
from bench.proc import two_cores
from bench.report import COLUMNS
from bench.results import Results

#: Descriptors that a program needs beside its connections.
_SPARE_FDS = 64
#: Peers that share a column with another.
_VARIANTS = (
    "zmq-router",
    "ours-aio",
    "ours-encrypted",
    "ours-udp",
    "ours-udp-reliable",
    "ours-udp-encrypted",
    "ours-udp-x25519",
    "ours-udp-reliable-encrypted",
    "broadcast",
)
#: Row and value.
Sample = tuple[str, float]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a worker found out about a peer."""

    version: str
    fds_per_flow: int
    needs_node: bool


@dataclass(slots=True)
class Run:
    """What every measure needs."""

    quick: bool
    results: Results = field(default_factory=Results)
    cores: tuple[int | None, int | None] = field(default_factory=two_cores)
    probes: dict[str, Probe] = field(default_factory=dict)

    @property
    def repetitions(self) -> int:
        return 2 if self.quick else 5

    @property
    def seconds(self) -> float:
        """How long one sample takes."""
        return 0.1 if self.quick else 0.5

    @property
    def columns(self) -> list[str]:
        """The peers on one machine that can be measured here, but for those that only the measure `aio` knows."""
        return self.known("seqpacket", "pipe", "zmq", "limit", "ours")

    def known(self, *columns: str) -> list[str]:
        """Those of the columns that can be measured here."""
        return [column for column in columns if column in self.probes]

    def probe(self) -> None:
        """Find out which peers can be measured here."""
        for peer in [*COLUMNS, *_VARIANTS]:
            if peer == "prototype":
                self._probe_prototype()
                continue
            with Program(None) as program:
                found = program.call("probe", peer=peer)
            if "missing" not in found:
                self.probes[peer] = Probe(**found)
            elif peer in COLUMNS:
                self.results.skip("everything", peer, found["missing"])

    def pair(
        self,
        peer: str,
        cores: tuple[int | None, int | None] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Pair]:
        """Start two programs that talk through `peer`."""
        return open_pair(peer, cores or self.cores, self.probes[peer].needs_node, env)

    def network_pair(
        self, peer: str, hosts: tuple[Host, Host] | None = None, env: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Pair]:
        """Start two programs, on two loopback addresses if nothing else is said, that talk through `peer`."""
        return open_network_pair(peer, hosts or self.loopback, self.probes[peer].needs_node, env)

    @property
    def loopback(self) -> tuple[Host, Host]:
        """Two addresses of this machine."""
        return Host("127.0.0.1"), Host("127.0.0.2")

    def interleave(self, measure: str, columns: Iterable[str], sample: Callable[[str], Iterable[Sample]]) -> None:
        """Take a sample of each column in turn, as often as the run repeats, so that drift hits all alike."""
        for repetition in range(self.repetitions):
            for column in columns:
                if self.results.is_skipped(measure, column):
                    continue
                _say(f"{measure} {repetition + 1}/{self.repetitions}: {column}")
                self._take(measure, column, sample)

    def lacks_descriptors(self, peer: str, flows: int) -> str | None:
        """Return why that many connections of a peer cannot be open at once, None when they can."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        need = flows * self.probes[peer].fds_per_flow + _SPARE_FDS
        if hard == resource.RLIM_INFINITY or need <= hard:
            return None
        return f"{flows} flows need {need} descriptors in a program, RLIMIT_NOFILE allows {hard}"

    def _probe_prototype(self) -> None:
        if reason := prototype.lacks():
            self.results.skip("everything", "prototype", reason)
        else:
            self.probes["prototype"] = Probe(prototype.version(), fds_per_flow=0, needs_node=False)

    def _take(self, measure: str, column: str, sample: Callable[[str], Iterable[Sample]]) -> None:
        try:
            for row, value in sample(column):
                self.results.add(row, column, value)
        except BenchError as error:
            self.results.skip(measure, column, str(error))


def packets_for(seconds: float, each: float, least: int, most: int) -> int:
    """Return how many packets of `each` seconds fill `seconds`, within limits."""
    return max(least, min(most, int(seconds / each)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
