"""What happens at the limits: descriptors, names, processes, flows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from support import NodeProcess, Programs, Shell, descriptor_limit, descriptors, node_info, until

from ouroboros import errors
from ouroboros.dataplane import create_channel
from ouroboros.dev import FlowNameException, FlowPeerException, flow_accept, flow_alloc, flow_join
from ouroboros.errors import NodeError, NodeLimitError
from ouroboros.layers.effects import Attach, CloseMember, OpenPort
from ouroboros.layers.udp.directory import UdpEnd
from ouroboros.oap import Session
from ouroboros.qos import QoSSpec
from ouroboros.runtime import client
from ouroboros.runtime.engine import EngineRuntime
from ouroboros.runtime.machine import RealMachine
from ouroboros.wire.control import BindProcess, CreateName, ListFlows, RegisterName

#: Accepts for the name "server" in a thread, for as long as the program lives, and keeps every flow in `kept`.
SERVE = """
kept = []

def serve():
    while True:
        kept.append(flow_accept(name="server"))

threading.Thread(target=serve, daemon=True).start()
"""


def start_server(programs: Programs) -> Shell:
    server = programs.shell("server")
    client.request(CreateName("server", "spillover"))
    server.do(SERVE)
    return server


class TestDescriptorsOfAProgram:
    def test_a_program_without_descriptors_gets_a_clear_error_and_recovers(
        self, node: NodeProcess, programs: Programs
    ) -> None:
        server = start_server(programs)
        small = programs.shell("small", limit=40)
        small.do("flows = []")
        with pytest.raises(NodeLimitError, match="ulimit -n"):
            small.do("while True: flows.append(flow_alloc('server'))")
        count = small.do("len(flows)")
        assert 20 < count < 40
        # The others still work, and so does the program once it gave some back.
        small.do("flows[0].write(b'works')")
        small.do("flows.pop().dealloc(); flows.pop().dealloc()")
        small.do("flows.append(flow_alloc('server')); flows[-1].write(b'again')")
        # The thread of the server may be behind, and its last flow still one that is gone.
        until(lambda: server.do("kept[-1].get_rx_queue_len()") == 1)
        assert server.do("kept[0].read(), kept[-1].read()") == (b"works", b"again")
        small.do("for flow in flows: flow.dealloc()")
        small.do("flows = [flow_alloc('server') for _ in range(10)]")
        small.do("for flow in flows: flow.dealloc()")

        def all_gone() -> bool:
            server.do("for flow in kept: flow.dealloc()")
            return not client.request(ListFlows())

        until(all_gone)

    def test_the_peer_of_a_flow_that_could_not_be_taken_is_told(self, node: NodeProcess, programs: Programs) -> None:
        server = start_server(programs)
        small = programs.shell("small", limit=40)
        small.do("flows = []")
        with pytest.raises(NodeLimitError):
            small.do("while True: flows.append(flow_alloc('server'))")
        count = small.do("len(flows)")
        until(lambda: bool(server.do(f"len(kept) > {count}")))
        with pytest.raises(FlowPeerException):
            server.do(f"kept[{count}].read()")

    def test_a_program_that_cannot_open_a_socket_gets_a_clear_error(
        self, node: NodeProcess, programs: Programs
    ) -> None:
        small = programs.shell("small", limit=30)
        small.do(
            """
            files = []
            try:
                while True: files.append(os.open("/dev/null", os.O_RDONLY))
            except OSError: pass
            """
        )
        with pytest.raises(NodeLimitError, match="socket"):
            small.do("flow_alloc('server')")
        small.do("for file in files: os.close(file)")
        with pytest.raises(FlowNameException):
            small.do("flow_alloc('server')")

    def test_the_soft_limit_is_raised_before_it_is_reached(self, node: NodeProcess, programs: Programs) -> None:
        start_server(programs)
        shell = programs.shell()
        shell.do("import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]")
        shell.do("resource.setrlimit(resource.RLIMIT_NOFILE, (80, hard))")
        assert shell.do("flows = [flow_alloc('server') for _ in range(200)]; len(flows)") == 200


class TestLimitsOfANode:
    def test_a_node_with_all_its_flows_refuses_one_more_and_recovers(
        self, make_node: Callable[..., NodeProcess], programs: Programs
    ) -> None:
        make_node(limit=64)
        server = start_server(programs)
        shell = programs.shell()
        shell.do("flows = []")
        counts = []
        for _ in range(3):
            with pytest.raises(NodeLimitError, match="limit"):
                shell.do("while True: flows.append(flow_alloc('server'))")
            counts.append(shell.do("len(flows)"))
            shell.do("while flows: flows.pop().dealloc()")
            server.do("while kept: kept.pop().dealloc()")
            until(lambda: client.request(ListFlows()) == [])
        assert len(set(counts)) == 1
        assert counts[0] > 10

    def test_a_node_without_descriptors_turns_programs_away_and_recovers(
        self, make_node: Callable[..., NodeProcess], programs: Programs
    ) -> None:
        node = make_node(limit=64)
        # Before there are too few.
        shell, late = programs.shell(), programs.shell("late")
        shell.begin_blocked("f = flow_accept(name='shell')", "node")
        node_info()
        with contextlib.ExitStack() as stack:
            for _ in range(80):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(str(node.directory / "irm.sock"))
            # Programs of root come by another socket, and wait for none of those.
            until(lambda: "turned away" in node.log())
            with pytest.raises(NodeError):
                late.do("flow_accept(timeo=0)")
            # No room for the memory of a flow: both sides are told.
            with pytest.raises(NodeLimitError, match="ulimit -n"):
                flow_alloc("shell")
            with pytest.raises(NodeLimitError, match="ulimit -n"):
                shell.answer()
            assert node_info().flows == 0
        shell.begin_blocked("f = flow_accept(name='shell')", "node")
        late.do("f = flow_alloc('shell'); f.write(b'recovered')")
        shell.answer()
        assert shell.do("f.read()") == b"recovered"

    def test_a_program_that_was_turned_away_halfway_is_not_remembered(
        self, make_node: Callable[..., NodeProcess], programs: Programs
    ) -> None:
        node = make_node(limit=64)
        late = programs.shell("late")
        late.do("1")
        node_info()
        strangers: list[socket.socket] = []
        try:
            # Until one is turned away.
            while True:
                sock = socket.socket(socket.AF_UNIX)
                strangers.append(sock)
                sock.connect(str(node.directory / "irm.sock"))
                node_info()
                if "turned away" in node.log():
                    break
            # Room for one connection, but for nothing to watch its process with.
            before = descriptors(node.pid).total()
            strangers.pop(0).close()
            until(lambda: descriptors(node.pid).total() < before)
            with pytest.raises(NodeError):
                late.do("flow_accept(timeo=0, name='late')")
            late.kill()
        finally:
            for sock in strangers:
                sock.close()
        assert node_info().processes == 1


class TestNames:
    def test_the_longest_name_works(self, node: NodeProcess, programs: Programs) -> None:
        name = "é" * 127 + "x"
        assert len(name.encode()) == 255
        shell = programs.shell()
        shell.begin_blocked(f"f = flow_accept(name={name!r})", "node")
        with flow_alloc(name) as flow:
            shell.answer()
            flow.write(b"works")
            assert shell.do("f.read()") == b"works"

    @pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "lone \ud800 surrogate", "new\nline", "nul\0"])
    def test_what_cannot_be_a_name_is_refused_everywhere(self, node: NodeProcess, name: str) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: flow_accept(timeo=0, name=name),
            lambda: client.request(CreateName(name, "spillover")),
            lambda: client.request(BindProcess(os.getpid(), name)),
        ]
        node_info()
        for call in calls:
            with pytest.raises((errors.NameError, FlowNameException, UnicodeEncodeError)):
                call()
        for call in (lambda: flow_alloc(name, timeo=0), lambda: flow_join(name)):
            with pytest.raises(FlowNameException):
                call()
        assert node_info().names == 0

    @pytest.mark.parametrize("name", [None, 7, b"bytes"])
    def test_a_name_that_is_no_text_is_refused(self, node: NodeProcess, name: Any) -> None:
        with pytest.raises(TypeError):
            flow_alloc(name)
        with pytest.raises(TypeError):
            flow_join(name)
        if name is not None:
            with pytest.raises(TypeError):
                flow_accept(timeo=0, name=name)

    def test_a_refused_name_leaves_the_connection_usable(self, node: NodeProcess) -> None:
        node_info()
        sockets = descriptors()["socket"]
        for _ in range(100):
            with pytest.raises(FlowNameException):
                flow_alloc("", timeo=0)
            assert descriptors()["socket"] == sockets

    def test_a_name_that_is_not_there_cannot_be_registered(self, node: NodeProcess) -> None:
        with pytest.raises(errors.NameError, match="nobody"):
            client.request(RegisterName("nobody", 1))


class TestMany:
    def test_a_thousand_processes_allocate_at_once(self, node: NodeProcess, programs: Programs) -> None:
        count = 1000
        client.request(CreateName("server", "spillover"))
        crowd = programs.start(
            f"""
            import gc
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
            gc.collect()
            gc.freeze()
            gate, opener = os.pipe()
            children = []
            for number in range({count}):
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        os.close(opener)
                        os.read(gate, 1)
                        with flow_alloc("server", timeo=300) as f:
                            f.writeline(str(number))
                            status = 0 if f.readline() == str(number) else 2
                    finally:
                        os._exit(status)
                children.append(pid)
            say("ready")
            hear()
            os.close(opener)
            statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
            say([statuses.count(0), sorted(set(statuses))])
            """
        )
        assert crowd.line() == "ready"
        server = programs.start(
            f"""
            numbers = set()
            for _ in range({count}):
                with flow_accept(name="server") as f:
                    line = f.readline()
                    numbers.add(int(line))
                    f.writeline(line)
                    try:
                        f.read()
                    except FlowDownException:
                        pass
            say(numbers == set(range({count})))
            """
        )
        crowd.tell("go")
        assert crowd.line() == [count, [0]]
        assert server.line() is True

    # The node keeps one descriptor for each flow, and as many as it can spare for connections.
    COUNT = 10_000 if descriptor_limit() >= 14_500 else min(3000, descriptor_limit() // 3)

    @pytest.mark.slow
    @pytest.mark.timeout(180)
    def test_thousands_of_flows_are_open_at_once(self, node: NodeProcess, programs: Programs) -> None:
        server, shell = programs.shell("server"), programs.shell()
        server.begin(f"kept = [flow_accept(name='server') for _ in range({self.COUNT})]")
        until(lambda: node_info().names == 1)
        shell.do(f"flows = [flow_alloc('server') for _ in range({self.COUNT})]")
        server.answer()
        assert node_info().flows == self.COUNT
        shell.do("for number, flow in enumerate(flows): flow.write(b'%d' % number)")
        assert server.do("got = [flow.read() for flow in kept]; got == [b'%d' % n for n in range(len(kept))]")
        server.do("for number, flow in enumerate(kept): flow.write(b'%d' % number)")
        assert shell.do("[flow.read() for flow in flows] == [b'%d' % n for n in range(len(flows))]")
        shell.do("while flows: flows.pop().dealloc()")
        server.do(
            """
            down = 0
            for flow in kept:
                try: flow.read()
                except FlowDownException: down += 1
            """
        )
        assert server.do("down") == self.COUNT
        server.do("while kept: kept.pop().dealloc()")
        until(lambda: client.request(ListFlows()) == [])
        assert descriptors(node.pid)["flow memory"] == 0

    def test_flows_are_set_up_and_released_over_and_over(self, node: NodeProcess, programs: Programs) -> None:
        server = programs.shell("server")
        server.begin(
            """
            for _ in range(2000):
                with flow_accept(name="server") as f:
                    f.write(f.read())
            """
        )
        until(lambda: node_info().names == 1)
        before, ours_before = descriptors(node.pid), descriptors()
        for number in range(2000):
            with flow_alloc("server") as flow:
                flow.write(b"%d" % number)
                assert flow.read() == b"%d" % number
        server.answer()
        until(lambda: client.request(ListFlows()) == [])
        until(lambda: not descriptors(node.pid) - before)
        assert not descriptors() - ours_before


def test_a_flow_without_a_way_to_its_peer_keeps_no_descriptors() -> None:
    irm = Mock()
    runtime = EngineRuntime(irm, lambda: None, RealMachine())

    async def attach() -> None:
        runtime.open_port(OpenPort(1, "udp4", "127.0.0.1", 0))
        assert not irm.member_failed.called
        memory, bell, far_bell = create_channel()
        before = descriptors(os.getpid())
        # The kernel lets nobody have this peer.
        end = UdpEnd(
            ipcp=1,
            qos=QoSSpec(),
            session=Session(),
            eid=70,
            peer_eid=71,
            address=("255.255.255.255", 1),
            extension=None,
        )
        with pytest.raises(PermissionError):
            runtime.flows.attach(Attach(64, "server", 1, 0, end), (memory, far_bell, 1))
        assert descriptors(os.getpid()) == before
        runtime.handlers[CloseMember](CloseMember(1))
        for descriptor in (memory, bell, far_bell):
            os.close(descriptor)

    asyncio.run(attach())
