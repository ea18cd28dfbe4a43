"""The files of a node's figures: whatever is in them, a reader gets what was written, or is told that it cannot be read."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroboros.errors import NodeError, ProtocolError
from ouroboros.layers.base import Ipcp
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime import figures
from ouroboros.runtime.publisher import Publisher
from ouroboros.testing.sim import Network, Node
from ouroboros.wire import counters, listing
from ouroboros.wire.control import DestroyIpcp, FlowEntry, IpcpEntry, LocalDetails, with_counters
from ouroboros.wire.counters import Counters
from ouroboros.wire.listing import FlowGone, FlowRecord, IpcpGone, IpcpRecord, NodeRecord, Record

KINDS = "layer received sent\nflow sent lost frcp_rtt_ns\nlater on"
SLOT, START = 64, 256
words = st.integers(0, 2**64 - 1)
#: Sequence, id, kind, whether it is over, values.
slots = st.tuples(words, words, st.integers(0, 3), st.booleans(), st.lists(words, max_size=5))


def slot(sequence: int, id: int, kind: int, over: bool, values: list[int]) -> bytes:
    about = kind | over << 8 | len(values) << 16
    return struct.pack(f"<3Q{len(values)}Q", sequence, id, about, *values).ljust(SLOT, b"\0")


def counters_file(*of: bytes, missing: int = 0, instance: int = 7) -> bytes:
    names = KINDS.encode()
    header = struct.pack("<8s9Q", counters.MAGIC, 1, START, SLOT, len(of), instance, 4711, 10**18, missing, len(names))
    return (header + names).ljust(START, b"\0") + b"".join(of)


@given(st.lists(slots, max_size=8, unique_by=lambda each: each[1] & 0xFFFF_FFFF))
def test_each_whole_slot_is_found_by_its_names(all: list[tuple[int, int, int, bool, list[int]]]) -> None:
    data = counters_file(*(slot(*each) for each in all))
    found = Counters(data, data)
    assert found.torn == [START + SLOT * number for number, each in enumerate(all) if each[0] % 2]
    for sequence, id, kind, _, values in all:
        if sequence % 2 == 0 and kind < 3:
            name, *names = KINDS.splitlines()[kind].split()
            assert found.of(name, id) == dict(zip(names, values, strict=False))


@given(st.binary(min_size=SLOT, max_size=SLOT), st.binary(min_size=SLOT, max_size=SLOT))
def test_what_is_not_twice_the_same_was_being_written(one: bytes, other: bytes) -> None:
    one, other = bytes([one[0] & 0xFE]) + one[1:], bytes([other[0] & 0xFE]) + other[1:]
    if one != other:
        assert Counters(counters_file(one), counters_file(other)).torn == [START]


@given(st.data(), st.booleans())
def test_bytes_that_anybody_wrote_are_read_or_refused(data: st.DataObject, mutate: bool) -> None:
    if mutate:
        whole = bytearray(counters_file(slot(2, 3, 1, False, [1, 2])))
        for _ in range(data.draw(st.integers(1, 6))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        found = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    else:
        found = data.draw(st.binary(max_size=600))
    try:
        read = Counters(found, found)
    except ProtocolError:
        return
    for kind in read.header.kinds:
        for id in (0, 3, 2**64 - 1):
            read.of(kind, id)


def test_one_that_has_no_slot_yet_has_counted_nothing() -> None:
    data = counters_file(slot(2, (5 << 32) + 1, 1, False, [9, 9]))
    found = Counters(data, data)
    assert found.of("flow", 7) == {"sent": 0, "lost": 0}
    assert found.of("flow", (6 << 32) + 1) == {"sent": 0, "lost": 0}
    # Another has its place by now.
    assert found.of("flow", (4 << 32) + 1) is None
    full = counters_file(missing=1)
    assert Counters(full, full).of("flow", 7) is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: b"", "no file of counters"),
        (lambda data: b"OUROCNTS", "cut short"),
        (lambda data: data[:-1], "cut short: 1 slots"),
        (lambda data: data[:8] + b"\x02" + data[9:], "version 2.* update the older"),
        (lambda data: data[:24] + struct.pack("<Q", 0) + data[32:], "make no sense"),
        (lambda data: data[:80] + b"\xff" + data[81:], "are no text"),
        (lambda data: data[: START + 18] + b"\xff" + data[START + 19 :], "has 255 counters, for which"),
    ],
)
def test_what_is_wrong_with_a_file_of_counters_is_said(change: Callable[[bytes], bytes], complaint: str) -> None:
    data = change(counters_file(slot(2, 3, 1, False, [])))
    with pytest.raises(ProtocolError, match=complaint):
        Counters(data, data)


def test_a_slot_that_was_being_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counters"
    path.write_bytes(counters_file(slot(3, 1, 1, False, [1, 1]), slot(3, 2, 1, False, [2, 2])))
    read = os.pread

    def late(file: int, size: int, at: int) -> bytes:
        data = read(file, size, at)
        if at == START:
            # The engine is done with the first one when it is looked at again.
            path.write_bytes(counters_file(slot(4, 1, 1, False, [7, 7]), slot(3, 2, 1, False, [2, 2])))
        return data

    monkeypatch.setattr(os, "pread", late)
    with path.open("rb") as file:
        found = figures.counters_of(file.fileno())
    assert found.of("flow", 1) == {"sent": 7, "lost": 7}
    # The other one was being written when the engine was killed.
    assert found.of("flow", 2) is None
    assert found.torn == [START + SLOT]


# --- listings

NODE = NodeRecord("1.2", 4711)


def flow(id: int, name: str = "clock") -> FlowRecord:
    return FlowRecord(FlowEntry(id, name, (1, 2), QoSSpec(loss=0)), (7, id))


def ipcp(id: int) -> IpcpRecord:
    return IpcpRecord(IpcpEntry(id, "lab0", "local", "operational", "lab", "MD5", LocalDetails("loss=1%")))


records = st.one_of(
    st.builds(flow, st.integers(0, 5), st.text(max_size=5)),
    st.builds(FlowGone, st.integers(0, 5)),
    st.builds(ipcp, st.integers(0, 3)),
    st.builds(IpcpGone, st.integers(0, 3)),
)


def written(of: list[Record]) -> bytes:
    return listing.MAGIC + b"".join(map(listing.encode, [NODE, *of]))


@given(st.lists(records, max_size=20), st.data())
def test_a_listing_that_is_cut_has_all_that_was_written_before(of: list[Record], data: st.DataObject) -> None:
    whole = written(of)
    cut = data.draw(st.integers(len(written([])), len(whole)))
    count = sum(len(written(of[:number])) <= cut for number in range(1, len(of) + 1))
    assert listing.parse(whole[:cut]) == listing.parse(written(of[:count]))
    flows: dict[int, Record] = {}
    for record in of[:count]:
        if isinstance(record, FlowRecord):
            flows[record.entry.id] = record
        elif isinstance(record, FlowGone):
            flows.pop(record.id, None)
    assert listing.parse(whole[:cut]).flows == flows


@given(st.lists(records, max_size=5), st.data())
def test_a_listing_that_anybody_wrote_is_read_or_refused(of: list[Record], data: st.DataObject) -> None:
    whole = bytearray(written(of))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for found in (bytes(whole), data.draw(st.binary(max_size=200)), listing.MAGIC + data.draw(st.binary(max_size=200))):
        try:
            listing.parse(found)
        except ProtocolError:
            continue


def test_the_counters_of_a_layer_are_where_its_type_shows_them() -> None:
    entry = ipcp(1).entry
    assert with_counters(entry, {"lost": 3, "calls": 5}).lost == 3
    assert with_counters(entry, {"lost": 3, "calls": 5}).counters == {}
    bare = IpcpEntry(1, "net0", "toy", "operational", "net", "MD5", None, {"requests_sent": 1})
    assert with_counters(bare, {"calls": 5}).counters == {"requests_sent": 1, "calls": 5}


# --- the node's side


class Written:
    """A node in virtual time, and what it writes."""

    def __init__(self, directory: Path) -> None:
        self.network = Network(1)
        self.node, self.far = self.network.add_node("near"), self.network.add_node("far")
        self.directory = directory
        self.publisher = Publisher(directory, self.node.irm, self.node._runtime)
        self.node.over_udp(peers=[f"clock@{self.far.address}"])
        self.far.offer("clock", self.far.over_udp())
        self.publisher.begin()

    def figures(self) -> figures.Figures:
        self.publisher.flows()
        self.publisher.ipcps()
        found = figures.read(self.directory)
        assert found is not None
        return found

    def alloc(self, node: Node) -> None:
        program = node.program()
        self.far.program("server").accept("clock")
        program.alloc("clock", QOS_RAW).wait()


@given(st.lists(st.sampled_from(["near", "far", "die", "layer", "gone", "join"]), max_size=25))
def test_what_a_node_writes_is_what_it_has(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = Written(Path(directory))
        irm = world.node.irm
        world.node.add_ipcp("broadcast", "hall")
        for number, step in enumerate(steps):
            processes = [owner for each in irm.flows.flows.values() for owner in each.owners if owner is not None]
            match step:
                case "near" | "far":
                    world.alloc(world.node if step == "near" else world.far)
                case "join":
                    world.node.program().join("hall").wait()
                case "die" if processes:
                    world.node.died(processes[number % len(processes)])  # type: ignore[arg-type]
                case "layer":
                    world.node.add_ipcp("local", f"lab{number}")
                case "gone":
                    world.network.run(1)
            found = world.figures()
            assert (found.running, found.pid) == (True, os.getpid())
            assert {entry.id: entry.name for entry in found.flows} == {id: f.name for id, f in irm.flows.flows.items()}
            assert found.ipcps == [ipcp.entry() for ipcp in irm.ipcps.values()]
        world.publisher.end()
        assert not list(Path(directory).iterdir())


def test_what_is_written_of_a_layer_is_made_when_it_has_changed_and_not_for_each_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have thousands of routes, and anybody can ask for flows."""
    world = Written(tmp_path)
    for number in range(50):
        world.node.add_ipcp("local", f"lab{number}")
    world.publisher.ipcps()
    assert world.node.irm.take_managed()
    made: list[str] = []
    entry = Ipcp.entry

    def noted(ipcp: Ipcp) -> IpcpEntry:
        made.append(ipcp.layer)
        return entry(ipcp)

    monkeypatch.setattr(Ipcp, "entry", noted)
    for _ in range(20):
        world.alloc(world.node)
        world.publisher.flows()
    # The node writes of layers before it answers whoever manages it; of those with many rows each 100 ms else.
    assert (made, world.node.irm.take_managed()) == ([], False)
    with monkeypatch.context() as patched:
        patched.setattr(Ipcp, "rows", 1000)
        world.publisher.answered()
    # Nor of a short one in which only counters have changed.
    world.alloc(world.node)
    world.publisher.answered()
    assert made == []
    world.publisher.ipcps()
    world.publisher.ipcps()
    # That over which they went; no other, and it once.
    assert made == ["net"]
    world.publisher.end()


def test_a_listing_does_not_grow_with_what_is_gone(tmp_path: Path) -> None:
    world = Written(tmp_path)
    for _ in range(1500):
        ipcp = world.node.add_ipcp("local", "x" * 200)
        world.publisher.ipcps()
        world.node.manage(DestroyIpcp(ipcp)).wait()
        world.publisher.ipcps()
    assert (tmp_path / "listing").stat().st_size < 200_000
    assert [entry.name for entry in world.figures().ipcps] == ["net"]
    world.publisher.end()


def test_a_listing_that_cannot_be_written_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = Written(tmp_path)
    write = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 10:
            # A part of it finds room.
            return write(file, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.node.add_ipcp("local", "lab")
    monkeypatch.setattr(os, "write", full)
    world.publisher.ipcps()
    monkeypatch.undo()
    assert figures.read(tmp_path) is None
    assert "No space left on device" in caplog.text
    # Nothing more is tried.
    world.node.add_ipcp("local", "lab2")
    world.publisher.ipcps()
    assert not list(tmp_path.iterdir())


def test_a_file_that_may_be_of_anybody_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "listing")
    with pytest.raises(NodeError, match="is no file of a node of yours"):
        figures.read(tmp_path)


def test_one_that_is_replaced_while_it_is_read_is_of_a_node_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Written(tmp_path)
    flock = fcntl.flock
    begun: list[int] = []

    def slow(file: int, how: int) -> None:
        if not begun:
            begun.append(file)
            world.publisher._write_anew()
        flock(file, how)

    before = world.figures()
    monkeypatch.setattr(fcntl, "flock", slow)
    found = figures.read(tmp_path)
    monkeypatch.undo()
    assert found is not None
    assert found.running
    assert found.ipcps == before.ipcps
    world.publisher.end()
