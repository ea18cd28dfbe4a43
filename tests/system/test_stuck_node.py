"""A node that does not answer: stopped, in a debugger, in a frozen container, or mad. Calls keep their time limit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner
from stuck_node import StuckNode, piecemeal, polite, polite_piecemeal, requests, silent
from support import NodeProcess, Programs, asleep_in, node_info, until

from ouroboros import aio, dev
from ouroboros.dev import FlowDownException
from ouroboros.errors import NodeError
from ouroboros.irm import list_names
from ouroboros.runtime import client
from ouroboros.server import FlowRequestHandler, FlowServer, ThreadingFlowServer
from ouroboros.tools.info import info
from ouroboros.wire.control import Dealloc, Hello, ListFlows, ListNames, Request

pytestmark = pytest.mark.slow

#: Seconds, as the time limit of a call.
SHORT = 0.2

BEHAVIOURS = {
    "lets nobody in": None,
    "is silent": silent,
    "answers the hello alone": polite,
    "answers byte by byte": piecemeal,
    "answers all but the hello byte by byte": polite_piecemeal,
}

FLOWS: dict[str, tuple[Callable[..., Any], Callable[..., Coroutine[Any, Any, Any]]]] = {
    "alloc": (dev.flow_alloc, aio.flow_alloc),
    "accept": (lambda _, **limit: dev.flow_accept(**limit), lambda _, **limit: aio.flow_accept(**limit)),
    "accept a name": (
        lambda name, **limit: dev.flow_accept(name=name, **limit),
        lambda name, **limit: aio.flow_accept(name=name, **limit),
    ),
    "join": (dev.flow_join, aio.flow_join),
}


@pytest.fixture(autouse=True)
def _only_the_limit_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but its own limit ends a call within the time of a test."""
    monkeypatch.setattr(client, "_PATIENCE", 1e6)
    monkeypatch.setattr(client, "_GRACE", SHORT)


@pytest.fixture(params=BEHAVIOURS)
def stuck(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[StuckNode]:
    behave = BEHAVIOURS[request.param]
    node = StuckNode(runtime_dir, behave, backlog=100 if behave else 0)
    if behave is None:
        node.fill()
    yield node
    client.client.forget()
    node.close()


@pytest.fixture
def stopped(node: NodeProcess) -> Iterator[NodeProcess]:
    """A node that is stopped, until the end of the test."""
    os.kill(node.pid, signal.SIGSTOP)
    yield node
    os.kill(node.pid, signal.SIGCONT)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def stop(node: NodeProcess) -> None:
    os.kill(node.pid, signal.SIGSTOP)
    until(lambda: "State:\tT" in Path(f"/proc/{node.pid}/status").read_text())


class TestBlocking:
    @pytest.mark.parametrize("verb", FLOWS)
    def test_a_call_for_a_flow_keeps_its_time_limit(self, stuck: StuckNode, verb: str) -> None:
        with pytest.raises(NodeError, match=f"does not answer: its process {os.getpid()} is stuck"):
            FLOWS[verb][0]("x", timeo=SHORT)

    def test_a_call_of_management_has_a_limit_of_its_own(
        self, stuck: StuckNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "_PATIENCE", SHORT)
        with pytest.raises(NodeError, match="does not answer"):
            list_names()

    @pytest.mark.parametrize("stuck", ["lets nobody in", "is silent", "answers byte by byte"], indirect=True)
    def test_a_call_without_limit_ends_when_the_node_does_not_let_it_in(
        self, stuck: StuckNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "_PATIENCE", SHORT)
        with pytest.raises(NodeError, match="does not answer"):
            dev.flow_accept()

    @pytest.mark.parametrize("warm", [False, True], ids=["first call", "later call"])
    def test_it_is_told_that_the_node_is_stopped_and_what_to_do(
        self, node: NodeProcess, warm: bool, runtime_dir: Path
    ) -> None:
        if warm:
            node_info()
        stop(node)
        try:
            with pytest.raises(NodeError) as caught:
                dev.flow_alloc("x", timeo=SHORT)
        finally:
            os.kill(node.pid, signal.SIGCONT)
        assert str(runtime_dir) in str(caught.value)
        assert f"its process {node.pid} is stopped" in str(caught.value)
        assert f"kill -CONT {node.pid}" in str(caught.value)

    def test_a_node_that_answers_before_the_time_is_over_is_in_time(
        self, node: NodeProcess, programs: Programs
    ) -> None:
        shell = programs.shell()
        shell.do("1")
        stop(node)
        shell.begin("from ouroboros.irm import list_names; list_names()")
        until(lambda: asleep_in(shell.pid, shell.pid, "node"))
        os.kill(node.pid, signal.SIGCONT)
        assert shell.answer() == []

    def test_a_request_that_was_given_up_takes_no_acceptor(self, node: NodeProcess, programs: Programs) -> None:
        server = programs.shell("late")
        server.begin_blocked("f = flow_accept(name='late')", "node")
        node_info()
        stop(node)
        try:
            with pytest.raises(NodeError, match="stopped"):
                dev.flow_alloc("late", timeo=SHORT)
        finally:
            os.kill(node.pid, signal.SIGCONT)
        # The node finds the request, and that nobody waits for it any more: the server is there for the next client.
        with dev.flow_alloc("late") as flow:
            server.answer()
            flow.write(b"in time")
            assert server.do("f.read()") == b"in time"
        server.do("f.dealloc()")
        until(lambda: client.request(ListFlows()) == [])

    @pytest.mark.parametrize("call", ["flow_alloc('x')", "flow_accept()", "client.request(NodeInfo())"])
    def test_ctrl_c_ends_it(self, stuck: StuckNode, programs: Programs, call: str) -> None:
        shell = programs.shell()
        shell.do("from ouroboros.wire.control import NodeInfo; client._PATIENCE = 1e6")
        shell.begin(call)
        until(lambda: asleep_in(shell.pid, shell.pid, "node") or asleep_in(shell.pid, shell.pid, "room"))
        shell.signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            shell.answer()


class TestAwaited:
    pytestmark = pytest.mark.anyio

    @pytest.mark.parametrize("verb", FLOWS)
    async def test_a_call_for_a_flow_keeps_its_time_limit(self, stuck: StuckNode, verb: str) -> None:
        with pytest.raises(NodeError, match="does not answer"):
            await FLOWS[verb][1]("x", timeo=SHORT)

    @pytest.mark.parametrize("verb", [*FLOWS, "serve"])
    async def test_other_tasks_go_on_and_can_cancel_it(self, stuck: StuckNode, verb: str) -> None:
        call = partial(aio.serve, "x", aio.Flow.read) if verb == "serve" else partial(FLOWS[verb][1], "x")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            # This is reached: the loop is not kept from going on.
            tasks.cancel_scope.cancel()
        assert tasks.cancel_scope.cancelled_caught

    async def test_a_stopped_node_keeps_no_loop_from_going_on(self, stopped: NodeProcess) -> None:
        with anyio.move_on_after(SHORT) as scope:
            await aio.flow_alloc("x")
        assert scope.cancelled_caught
        with pytest.raises(NodeError, match="is stopped"):
            await aio.flow_alloc("x", timeo=SHORT)

    async def test_cancelling_withdraws(self, node: NodeProcess) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(aio.flow_accept, name="withdrawn"))
            await anyio.wait_all_tasks_blocked()
            node_info()
            tasks.cancel_scope.cancel()
        # Nobody accepts any more, so nobody is given to it.
        with pytest.raises(dev.FlowTimeoutException):
            await aio.flow_alloc("withdrawn", timeo=SHORT)


class TestDealloc:
    def test_it_never_waits_and_the_peer_is_told(self, node: NodeProcess, programs: Programs) -> None:
        near, far = programs.shell("near"), programs.shell("far")
        far.begin_blocked("f = flow_accept(name='far')", "node")
        near.do("f = flow_alloc('far'); None")
        far.answer()
        stop(node)
        try:
            near.do("f.dealloc()")
            with pytest.raises(FlowDownException):
                far.do("f.read()")
            far.do("f.dealloc()")
        finally:
            os.kill(node.pid, signal.SIGCONT)
        until(lambda: client.request(ListFlows()) == [])

    @pytest.mark.parametrize("how", ["sys.exit()", "del f"])
    def test_the_end_of_a_program_never_waits(self, node: NodeProcess, programs: Programs, how: str) -> None:
        far = programs.shell("far")
        far.begin_blocked("f = flow_accept(name='far')", "node")
        program = programs.start(f"f = flow_alloc('far'); say(1); hear(); {how}", name="near")
        assert program.line() == 1
        far.answer()
        stop(node)
        try:
            program.tell("go")
            program.process.wait()
            with pytest.raises(FlowDownException):
                far.do("f.read()")
        finally:
            os.kill(node.pid, signal.SIGCONT)

    @pytest.mark.parametrize("make", [FlowServer, ThreadingFlowServer])
    def test_closing_a_server_waits_a_moment_and_the_node_is_told(self, node: NodeProcess, make: Any) -> None:
        server = make("closed", FlowRequestHandler)
        stop(node)
        try:
            # Its limit, or this would not end.
            server.server_close()
        finally:
            os.kill(node.pid, signal.SIGCONT)
        until(lambda: not any(entry.processes for entry in client.request(ListNames())))

    def test_info_says_that_it_does_not_answer(self, node: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "_PATIENCE", SHORT)
        stop(node)
        try:
            result = CliRunner().invoke(info)
        finally:
            os.kill(node.pid, signal.SIGCONT)
        assert result.exit_code == 1
        assert "cannot be used" in result.output
        assert "is stopped" in result.output
        assert "does not run" not in result.output

    @pytest.mark.parametrize("full", [False, True], ids=["it takes no more bytes", "it takes no connections"])
    def test_a_node_that_is_behind_is_told_when_it_goes_on(self, runtime_dir: Path, full: bool) -> None:
        node = StuckNode(runtime_dir, None, backlog=0 if full else 100)
        ours = client.Client()
        connection = ours._connect()
        assert connection is not None
        connection.close()
        if full:
            node.fill()
        # More than a socket holds.
        count = 20_000
        for flow in range(count):
            ours.release(flow, 0, connection.node)
        assert ours._is_behind()
        node.empty()
        found: list[Request] = []

        def read() -> None:
            while not found:
                found.extend(requests(node.accept()))

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        # And no other call is made.
        until(lambda: not ours._is_behind())
        ours.forget()
        reading.join()
        assert isinstance(found[0], Hello)
        assert [each.flow_id for each in found if isinstance(each, Dealloc)] == list(range(count))
        node.close()

    def test_a_program_without_threads_tells_it_with_the_next_call(
        self, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node = StuckNode(runtime_dir, None, backlog=0)
        ours = client.Client()
        connection = ours._connect()
        assert connection is not None
        connection.close()
        node.fill()

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        ours.release(1, 0, connection.node)
        assert ours._is_behind()
        node.empty()
        node.accept()
        ours.release(2, 0, connection.node)
        assert not ours._is_behind()
        ours.forget()
        found: list[Request] = []
        while not found:
            found = requests(node.accept())
        assert [each.flow_id for each in found if isinstance(each, Dealloc)] == [1, 2]
        node.close()
