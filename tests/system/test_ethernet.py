"""Layers on an Ethernet segment: two nodes with a network stack of the kernel each, joined by a veth pair. Needs root."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Background, NodeProcess, until
from unicast_nodes import at, reaches

from ouroboros import cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc, flow_join
from ouroboros.errors import FlowCryptException, FlowDownException, FlowPeerException
from ouroboros.event import FEventQueue, FEventType, FlowSet
from ouroboros.qos import QOS_DATA, QOS_RAW, QoSSpec
from ouroboros.testing.link import NamespacePair
from ouroboros.tools.irm import irm_main

_LACKS = NamespacePair.lacks()
pytestmark = pytest.mark.skipif(_LACKS is not None, reason=str(_LACKS))
TYPES = ("eth-dix", "eth-llc")


@pytest.fixture
def segment() -> Iterator[NamespacePair]:
    with NamespacePair(None) as pair:
        yield pair


class Station:
    """A node on the segment."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(node.directory)}

    def tool(self, tool: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name(tool)), *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)

    def irm(self, *words: str) -> None:
        """The command, in this process, which is quicker."""
        with at(self.node.directory):
            assert irm_main(" ".join(words).split()) == 0, (words, self.node.log())

    def bootstrap(self, kind: str, *options: str) -> None:
        self.irm("ipcp", "bootstrap", "type", kind, "name", "e", "layer", "segment", "dev", "veth0", *options)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Answer `oping` there."""
        program = str(Path(sys.executable).with_name("oping"))
        self.irm("bind", "program", program, "name", "oping")
        self.irm("name", "register", "oping", "layer", "segment")
        with subprocess.Popen([program, "-l"], env=self.environment, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert "erver" in server.stdout.readline()
            yield
            server.terminate()
            server.stdout.read()


@pytest.fixture
def stations(segment: NamespacePair, make_node: Callable[..., NodeProcess], tmp_path: Path) -> tuple[Station, Station]:
    near, far = (
        Station(make_node(within=segment.command(host), directory=tmp_path / f"node{host}")) for host in (0, 1)
    )
    return near, far


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("qos", ["raw", "data"])
def test_programs_of_two_stations_reach_each_other(stations: tuple[Station, Station], kind: str, qos: str) -> None:
    near, far = stations
    for station in stations:
        station.bootstrap(kind)
    with far.serving():
        done = near.tool("oping", "-n", "oping", "-c", "20", "-i", "1", "-s", "1400", "-q", qos)
    assert "20 packets transmitted, 20 received" in done.stdout, done.stderr


def test_ethertypes_are_layers_of_their_own(stations: tuple[Station, Station]) -> None:
    near, far = stations
    near.bootstrap("eth-dix", "ethertype", "a001")
    far.bootstrap("eth-dix")
    with far.serving():
        done = near.tool("oping", "-n", "oping", "-c", "1")
    assert done.returncode == 2
    assert "no station on the segment has it" in done.stderr


def test_a_device_that_is_not_there_is_named(stations: tuple[Station, Station]) -> None:
    near, _ = stations
    done = near.tool("irm", "ipcp", "bootstrap", "type", "eth-dix", "name", "e", "layer", "segment", "dev", "veth9")
    assert done.returncode != 0
    assert "cannot use the device veth9 for a layer of type eth-dix: No such device; `ip link` shows" in done.stderr


def connect(stations: tuple[Station, Station], qos: QoSSpec = QOS_RAW, name: str = "clock") -> tuple[Flow, Flow]:
    """Both ends of a flow from the first station to a name at the second."""
    near, far = stations
    with at(far.node.directory):
        accepting = Background.waiting_for_node(lambda: flow_accept(name=name))
    with at(near.node.directory):
        client = flow_alloc(name, qos, 20)
    return client, accepting.result()


def talk(client: Flow, server: Flow) -> None:
    for writer, reader in ((client, server), (server, client)):
        writer.write(b"noon")
        assert reader.read() == b"noon"


@pytest.mark.parametrize("kind", TYPES)
def test_a_reliable_flow_over_a_bad_segment_loses_nothing(
    make_node: Callable[..., NodeProcess], tmp_path: Path, kind: str
) -> None:
    with NamespacePair("loss=5%,duplicate=5%,reorder=5%,delay=1ms", seed=3, ethernet=True) as bad:
        near, far = (
            Station(make_node(within=bad.command(host), directory=tmp_path / f"node{host}")) for host in (0, 1)
        )
        for station in (near, far):
            station.bootstrap(kind)
        far.irm("name register clock layer segment")
        client, server = connect((near, far), QOS_DATA)
        with client, server:
            packets = [number.to_bytes(4) * 300 for number in range(200)]
            for packet in packets:
                client.write(packet)
            assert [server.read() for _ in packets] == packets
        assert min(bad.link.counters) > 0


def switch(segment: NamespacePair, host: int, device: str, state: str) -> None:
    segment.run(host, "ip", "link", "set", "dev", device, state)


@pytest.mark.parametrize("kind", TYPES)
def test_a_device_that_is_off_is_told_to_flows_which_go_on_afterwards(
    segment: NamespacePair, stations: tuple[Station, Station], kind: str
) -> None:
    near, far = stations
    for station in stations:
        station.bootstrap(kind)
    far.irm("name", "register", "clock", "layer", "segment")
    client, server = connect(stations)
    queue = FEventQueue()
    with client, server, FlowSet() as events:
        talk(client, server)
        events.add(client)
        reading = Background(client.read)
        reading.until_asleep("poll")
        switch(segment, 0, "veth0", "down")
        with pytest.raises(FlowDownException):
            reading.result()
        events.wait(queue)
        assert queue.next()[1] == FEventType.FlowDown
        said = near.tool("oping", "-n", "clock", "-c", "1").stderr
        assert "the device veth0 is off; `ip link set dev veth0 up` turns it on" in said
        switch(segment, 0, "veth0", "up")
        events.wait(queue)
        assert queue.next()[1] == FEventType.FlowUp
        talk(client, server)


def test_a_device_that_goes_away_ends_its_layer_which_says_why(
    segment: NamespacePair, stations: tuple[Station, Station]
) -> None:
    near, far = stations
    for station in stations:
        station.bootstrap("eth-dix")
    far.irm("name", "register", "clock", "layer", "segment")
    client, server = connect(stations)
    with client, server:
        segment.run(0, "ip", "link", "delete", "dev", "veth0")
        for end in (client, server):
            # Both ends of the cable are gone.
            with pytest.raises(FlowPeerException):
                end.read()
    with at(near.node.directory):
        (ipcp,) = irm.list_ipcps()
        assert (ipcp.state, ipcp.reason) == ("failed", "the device veth0 is gone")


def second_cable(segment: NamespacePair) -> None:
    """The IP network is on a cable of its own."""
    ends = [f"netns {segment.command(host)[1].partition('=')[2]}" for host in (0, 1)]
    subprocess.run(f"ip link add veth1 {ends[0]} type veth peer name veth1 {ends[1]}".split(), check=True)
    for host, address in enumerate(segment.addresses):
        segment.run(host, "ip", "address", "flush", "dev", "veth0")
        segment.run(host, "ip", "address", "add", f"{address}/24", "dev", "veth1")
        switch(segment, host, "veth1", "up")


def test_a_unicast_layer_over_ethernet_and_udp_outlives_a_cut_of_either(
    segment: NamespacePair, stations: tuple[Station, Station]
) -> None:
    """The flow goes on over the other one within a second, and nothing of it is lost."""
    second_cable(segment)
    for station, address in zip(stations, segment.addresses, strict=True):
        station.bootstrap("eth-dix")
        udp = "ipcp bootstrap type udp4 name u layer net ip"
        station.irm(
            *udp.split(), address, "peer", f"campus@{segment.addresses[1]}", "peer", f"b@{segment.addresses[1]}"
        )
    near, far = stations
    far.irm("ipcp bootstrap type unicast name b layer campus autobind")
    near.irm("ipcp create name a type unicast")
    near.irm("ipcp keepalive name a every 0.1")
    near.irm("ipcp enroll name a layer campus autobind")
    far.irm("name", "register", "clock", "layer", "campus")
    client, server = connect(stations, QOS_DATA)
    with client, server:
        talk(client, server)
        for cut in "veth0", "veth1":
            switch(segment, 0, cut, "down")
            talk(client, server)
            switch(segment, 0, cut, "up")
            with at(near.node.directory):
                until(lambda: reaches(1))
    for station, name in (near, "a"), (far, "b"):
        station.irm("ipcp", "destroy", "name", name)


@pytest.mark.parametrize("kind", TYPES)
def test_a_node_joins_a_layer_of_which_it_knows_nothing(stations: tuple[Station, Station], kind: str) -> None:
    """By the command, and from Python. Of two layers, one has to be said."""
    near, far = stations
    for station in stations:
        station.bootstrap(kind)
    done = near.tool("irm", "ipcp", "enroll", "name", "n", "any")
    assert (done.returncode, "no node offers a layer to newcomers" in done.stderr) == (1, True)
    far.irm("ipcp bootstrap type broadcast name b0 layer hall autobind")
    done = near.tool("irm", "ipcp", "enroll", "name", "n", "any", "autobind")
    assert done.returncode == 0, done.stderr
    assert "n is a member of broadcast layer 'hall' by 'hall' at " in done.stdout
    with at(far.node.directory):
        there = flow_join("hall")
    with at(near.node.directory):
        here = flow_join("hall")
    with there, here:
        talk(here, there)
    far.irm("ipcp bootstrap type unicast name a0 layer campus autobind")
    with at(near.node.directory):
        with pytest.raises(irm.IpcpEnrollError, match=r"several layers answer: .*'hall'.*'campus'"):
            cli.enroll_any("u")
        assert cli.enroll_any("u", layer="campus").member == "campus"
        assert {ipcp.name: ipcp.layer for ipcp in irm.list_ipcps()} == {"e": "segment", "n": "hall", "u": "campus"}
    for station, names in (near, ("u", "n")), (far, ("a0", "b0")):
        for name in names:
            station.irm("ipcp", "destroy", "name", name)


@pytest.mark.parametrize("kind", TYPES)
def test_a_program_joins_a_broadcast_layer_of_the_segment_by_its_name(
    stations: tuple[Station, Station], kind: str
) -> None:
    near, far = stations
    for station in stations:
        station.bootstrap(kind)
    far.irm("ipcp bootstrap type broadcast name b0 layer hall autobind")
    with at(near.node.directory):
        here = flow_join("hall")
    with at(far.node.directory):
        there = flow_join("hall")
    with here, there:
        talk(here, there)
    near.irm("ipcp destroy name hall.joined")
    far.irm("ipcp destroy name b0")


# --- frames

#: Sends frames, given as lists of lines, each so many times.
_SEND = """
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("veth0", 0))
times, *frames = sys.stdin.read().split()
for _ in range(int(times)):
    for frame in frames:
        sock.send(bytes.fromhex(frame))
"""
#: Behind the addresses, by type of layer. `%` stands for the sender's end of a flow, where a frame says it.
_HOSTILE = {
    "eth-dix": {
        "nothing behind the ethertype": "a000",
        "half an endpoint id": "a000 00",
        "no length": "a000 0000",
        "a length beyond the frame": "a000 0000 ffff 00",
        "a message of nothing": "a000 0000 0000",
        "a message cut short": "a000 0000 0026" + 38 * "00",
        "a message of no kind": "a000 0000 0027" + 37 * "00" + "ee00",
        "a message of all ones": "a000 0000 05d8" + 1496 * "ff",
        "a request for an unknown name": "a000 0000 0047" + 71 * "00",
        "an answer that nobody asked for": "a000 0000 0047" + 37 * "00" + "0300" + 32 * "ff",
        "a flow reply to nobody": "a000 0000 0027" + 37 * "00" + "0100",
        "an end of no flow": "a000 0000 0027" + 37 * "00" + "7100",
    },
    "eth-llc": {
        "no length": "0000",
        "a length of less than the header": "0002 80 80 03",
        "a length beyond the frame": "05dc 80 80 03",
        "an ethertype": "05ff 80 80 03",
        "a frame of another protocol": "0026 42 42 03" + 35 * "00",
        "SNAP": "0008 aa aa 03 000000 0800",
        "no unnumbered information": "0003 80 80 ff",
        "a SAP of nobody": "0008 00 c0 03 0102030405",
        "from the SAP of nobody": "0008 c0 00 03 0102030405",
        "data from the SAP of messages": "0008 c0 80 03 0102030405",
        "a message of nothing": "0003 80 80 03",
        "a message cut short": "0027 80 80 03" + 36 * "00",
        "a message of no kind": "0028 80 80 03 0000 ee" + 34 * "00",
        "a message of all ones": "05dc 80 80 03" + 1497 * "ff",
        "an answer that nobody asked for": "0048 80 80 03 0000 03" + 34 * "00" + 32 * "ff",
        "an end of no flow": "0028 80 80 03 0000 71" + 34 * "00",
    },
}


def address_of(segment: NamespacePair, host: int) -> str:
    return segment.run(host, "ip", "-br", "link", "show", "dev", "veth0").split()[2].replace(":", "")


def send(segment: NamespacePair, times: int, frames: list[str]) -> None:
    """Host 1 sends frames."""
    command = segment.command(1, sys.executable, "-c", _SEND)
    lines = "\n".join([str(times), *(frame.replace(" ", "") for frame in frames)])
    subprocess.run(command, input=lines, text=True, check=True)


def counters(station: Station) -> dict[str, int]:
    with at(station.node.directory):
        (ipcp,) = irm.list_ipcps()
    return dict(ipcp.counters)


@pytest.mark.parametrize("kind", TYPES)
def test_hostile_frames_cost_nobody_anything(
    segment: NamespacePair, stations: tuple[Station, Station], kind: str
) -> None:
    """From the peer, from nobody, from us, from a group; to us, and to all. Then data for each endpoint id that there is."""
    near, far = stations
    for station in stations:
        station.bootstrap(kind)
    far.irm("name register clock layer segment")
    us, peer = address_of(segment, 0), address_of(segment, 1)
    client, server = connect(stations)
    with client, server:
        talk(client, server)
        ends = [
            to + source
            for to in (us, "ffffffffffff")
            for source in (peer, "020000000666", us, "000000000000", "010000000666")
        ]
        send(segment, 20, [each + frame for each in ends for frame in _HOSTILE[kind].values()])
        forged = us + "020000000666"
        saps = [f"{sap:02x}" for sap in range(256)]
        data = {
            "eth-dix": [f"{forged} a000 {eid:04x} 0004 deadbeef" for eid in range(1, 1 << 16)],
            "eth-llc": [f"{forged} 0007 {to} {source} 03 deadbeef" for to in saps for source in saps],
        }
        send(segment, 1, data[kind])
        talk(client, server)
        counted = counters(near)
        assert counted["messages_malformed"] > 100
        assert counted["messages_unknown"] > 0
        assert counted["wrong_source"] > 0
    another, there = connect(stations)
    with another, there:
        talk(another, there)


def test_a_burst_waits_in_the_kernel_and_tagged_frames_are_those_of_another_segment(
    segment: NamespacePair, stations: tuple[Station, Station]
) -> None:
    """The node stands still meanwhile: nothing but the queue of its socket can take the frames."""
    near, _ = stations
    near.bootstrap("eth-dix")
    ends = address_of(segment, 0) + address_of(segment, 1)
    before = counters(near)["unknown"]
    os.kill(near.node.pid, signal.SIGSTOP)
    try:
        send(segment, 100, [ends + tag + "a000 0040 0004 deadbeef" for tag in ("8100 0007", "88a8 0007")])
        # A tag for a priority is of no other segment.
        send(segment, 500, [ends + tag + "a000 0040 0578" + 1400 * "00" for tag in ("", "8100 a000")])
    finally:
        os.kill(near.node.pid, signal.SIGCONT)
    until(lambda: counters(near)["unknown"] >= before + 1000)
    assert counters(near)["unknown"] == before + 1000


def test_jumbo_frames_carry_long_packets_and_long_handshakes(
    segment: NamespacePair, stations: tuple[Station, Station], runtime_dir: Path
) -> None:
    near, far = stations
    folder = runtime_dir / "security/client/clock"
    folder.mkdir(parents=True)
    (folder / "enc.conf").write_text("kex=X448MLKEM1024")
    for station in stations:
        station.bootstrap("eth-dix")
    far.irm("name register clock layer segment")
    with (
        at(near.node.directory),
        pytest.raises(
            FlowCryptException,
            match=r"the request for a flow to 'clock' has \d+ bytes of certificate and keys; 1425 fit",
        ),
    ):
        flow_alloc("clock")
    for host, station in enumerate(stations):
        station.irm("ipcp destroy name e")
        segment.run(host, "ip", "link", "set", "dev", "veth0", "mtu", "9000")
        station.bootstrap("eth-dix")
    far.irm("name register clock layer segment")
    # Encrypted, a packet has a number and a tag.
    for longest in 8996 - 28, 8996:
        client, server = connect(stations)
        with client, server:
            assert client.max_packet == longest
            client.write(bytes(longest))
            assert server.read() == bytes(longest)
        (folder / "enc.conf").unlink(missing_ok=True)


def test_layers_of_several_ethertypes_are_on_one_device(
    segment: NamespacePair, stations: tuple[Station, Station]
) -> None:
    _, far = stations
    for kind in "a000", "a001":
        for station in stations:
            station.irm(f"ipcp bootstrap type eth-dix name {kind} layer {kind} dev veth0 ethertype {kind}")
        far.irm(f"name register {kind} layer {kind}")
    for kind in "a000", "a001":
        client, server = connect(stations, name=kind)
        with client, server:
            assert client.layer == kind
            talk(client, server)


# --- without privilege

#: Runs a command without any privilege, where /etc and /usr/local may be changed and nobody else sees it. First, root does
#: what $2 says; $1 is an empty directory.
_UNPRIVILEGED = """
set -e
for place in etc usr/local; do
    mkdir -p $1/$place
    mount --bind /$place $1/$place
    mount -t tmpfs -o mode=0755 tmpfs /$place
    ln -s $1/$place/* /$place/
done
rm -f /etc/ouroboros /usr/local/libexec
sh -ec "$2"
shift 2
exec setpriv --securebits=+noroot --inh-caps=-all "$@"
"""


def unprivileged(place: Path, setup: str) -> list[str]:
    """A command line that runs another one without privilege, after `setup`."""
    place.mkdir()
    return ["unshare", "--mount", "sh", "-c", _UNPRIVILEGED, "sh", str(place), setup]


def installing(*kinds: str) -> str:
    """Install the helper as `ouroboros setup` says, but for the group. Root allows those kinds."""
    words = ["setup", "ethernet", "--group", "root", "veth0", kinds[0]]
    said = subprocess.run(
        [sys.executable, "-m", "ouroboros.tools.main", *words], capture_output=True, text=True, check=True
    )
    commands = [line for line in said.stdout.splitlines() if "usermod" not in line]
    return "\n".join([*commands, *(f"echo veth0 {kind} >> /etc/ouroboros/ethernet" for kind in kinds[1:])])


def test_a_node_without_privilege_uses_the_devices_that_root_allows(
    segment: NamespacePair, make_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    within = unprivileged(tmp_path / "places", installing("a001"))
    near = Station(make_node(within=[*segment.command(0), *within], directory=tmp_path / "near"))
    far = Station(make_node(within=segment.command(1), directory=tmp_path / "far"))
    status = Path(f"/proc/{near.node.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    words = "ipcp bootstrap type eth-dix name e layer segment dev veth0"
    refused = near.tool("irm", *words.split())
    assert "/etc/ouroboros/ethernet has no line that allows a000 on veth0" in refused.stderr
    for station in near, far:
        station.bootstrap("eth-dix", "ethertype", "a001")
    far.irm("name register clock layer segment")
    client, server = connect((near, far))
    with client, server:
        talk(client, server)


@pytest.mark.parametrize(
    ("setup", "why"),
    [
        (
            "true",
            "there is no /usr/local/libexec/ouroboros-rawsock, which has it in the place of the node: `ouroboros setup",
        ),
        ("setcap -r /usr/local/libexec/ouroboros-rawsock", "has lost it: `setcap cap_net_raw=ep /usr/local/libexec/"),
        (
            "chmod 0050 /usr/local/libexec/ouroboros-rawsock",
            "only the group root may use /usr/local/libexec/ouroboros-raw",
        ),
        ("rm /etc/ouroboros/ethernet", "there is no /etc/ouroboros/ethernet, in which root allows devices"),
        (
            "chmod 0646 /etc/ouroboros/ethernet",
            "/etc/ouroboros/ethernet has to be a file of root's that nobody else can",
        ),
    ],
)
def test_a_node_without_privilege_says_what_is_missing(tmp_path: Path, setup: str, why: str) -> None:
    before = "true" if setup == "true" else installing("a000")
    program = """
from ouroboros.layers.effects import OpenPort
from ouroboros.runtime.ports import open_port, why_not
effect = OpenPort(1, "eth-dix", "lo", 0xa000)
try:
    open_port(effect, None)
except OSError as error:
    print(why_not(effect, error))
"""
    command = unprivileged(tmp_path / "places", f"{before}\n{setup}")
    done = subprocess.run([*command, sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot use the device lo for a layer of type eth-dix: " in done.stdout
    assert why in done.stdout


@pytest.mark.parametrize(("kind", "gets"), [("a000", "a00001"), ("llc", "00100606")])
def test_a_socket_of_the_helper_gets_frames_of_its_kind_only(
    segment: NamespacePair, tmp_path: Path, kind: str, gets: str
) -> None:
    """Wherever it is bound to, and nobody takes the filter away. IPv4, ARP and IPv6 are refused whatever the file says."""
    setup = installing("a000", "llc", "0800", "0806", "86dd", "8100", "88a8", "05ff")
    program = """
import socket, sys
from ouroboros.runtime import rawsock
for kind in ("0800", "800", "0806", "86dd", "8100", "88a8", "05ff", "1a000", "LLC", ""):
    try:
        rawsock.open_socket("veth0", kind)
    except OSError as error:
        assert "neither llc nor an ethertype that can be given away" in str(error), error
    else:
        sys.exit(f"got one for {kind}")
sock = rawsock.open_socket("veth0", sys.argv[1])
for change in (lambda: sock.setsockopt(socket.SOL_SOCKET, 27, 0), lambda: sock.setsockopt(socket.SOL_SOCKET, 44, 0)):
    try:
        change()
    except PermissionError:
        pass
    else:
        sys.exit("the filter is not locked")
sock.bind(("veth0", 3))
print("bound", flush=True)
sock.setblocking(True)
print(sock.recv(100)[12:].hex())
"""
    sending = """
import socket
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("veth0", 0))
for kind in ("0800", "86dd", "a001", "8100 0007 a000", "8100 0007 0010 06", "0010 aaaa", "0010 0606", "a000 01"):
    sock.send(bytes(6 * [255]) + bytes(6) + bytes.fromhex(kind) + bytes(46))
"""
    command = [*segment.command(0), *unprivileged(tmp_path / "places", setup), sys.executable, "-c", program, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "bound\n"
        segment.run(1, sys.executable, "-c", sending)
        assert receiver.stdout.read().startswith(gets)
    assert receiver.returncode == 0
