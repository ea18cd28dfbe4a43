"""Flows where the standard library expects something else: files (`Flow.makefile`), servers, `selectors`, `logging`."""

from __future__ import annotations

import io
import logging
import select
import selectors
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import Background, NodeProcess, Programs, Shell, until

from ouroboros.dev import (
    Flow,
    FlowDownException,
    FlowException,
    FlowNameException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowProperties,
    FlowTimeoutException,
    flow_alloc,
)
from ouroboros.runtime import client
from ouroboros.server import FlowRequestHandler, FlowServer, ThreadingFlowServer
from ouroboros.wire.control import CreateName, ListNames

from .worlds import LONGEST, TOO_MUCH

NON_BLOCKING = FlowProperties.ReadWrite | FlowProperties.NonBlocking


class TestReading:
    def test_packets_become_one_stream(self, near: Flow, far: Shell) -> None:
        far.do("for packet in (b'ab', b'cdef', b'g'): f.write(packet)\nf.dealloc()")
        with near.makefile("rb") as file:
            assert [file.read(3), file.read(1), file.read()] == [b"abc", b"d", b"efg"]
            assert file.read() == b""

    @pytest.mark.parametrize("buffering", [None, 0, 1, 3, 8192])
    @pytest.mark.parametrize("size", [1, 7, 8192, 8193, pytest.param(LONGEST, marks=pytest.mark.needs("long"))])
    @pytest.mark.needs("back-pressure")
    def test_a_packet_that_fills_the_buffer_exactly_is_not_the_end(
        self, near: Flow, far: Shell, size: int, buffering: int | None
    ) -> None:
        far.begin(f"for _ in range(2): f.write(bytes({size}))\nf.dealloc()")
        with near.makefile("rb", buffering) as file:
            assert file.read(size) == bytes(size)
            assert file.read() == bytes(size)
        far.answer()

    def test_lines_are_found_whatever_the_packets(self, near: Flow, far: Shell) -> None:
        far.do("for packet in ('one\\ntw', 'o\\r\\nthr', 'ée'): f.writeline(packet)\nf.dealloc()")
        with near.makefile() as file:
            assert list(file) == ["one\n", "two\n", "thrée"]

    def test_newline_and_encoding_are_those_of_open(self, near: Flow, far: Shell) -> None:
        far.do("f.write('é\\r\\nx'.encode('latin-1')); f.dealloc()")
        with near.makefile("r", encoding="latin-1", newline="") as file:
            assert file.readlines() == ["é\r\n", "x"]

    def test_no_partial_read_is_no_hindrance(self, near: Flow, far: Shell) -> None:
        near.set_flags(FlowProperties.ReadWrite | FlowProperties.NoPartialRead)
        far.do("f.write(b'0123456789'); f.dealloc()")
        with near.makefile("rb", 0) as file:
            assert [file.read(4), file.read(4), file.read(4), file.read(4)] == [b"0123", b"4567", b"89", b""]

    @pytest.mark.parametrize(
        "end",
        [
            pytest.param("kill", marks=pytest.mark.needs("death")),
            pytest.param("down", marks=pytest.mark.needs("shared-flags", "cause")),
        ],
    )
    def test_the_death_of_the_peer_is_no_end_of_the_file(self, near: Flow, far: Shell, end: str) -> None:
        far.do("f.write(b'torn')")
        far.kill() if end == "kill" else far.do("f.set_flags(FlowProperties.Down)")
        with near.makefile("rb", 0) as file:
            assert file.read(9) == b"torn"
            with pytest.raises(FlowPeerException if end == "kill" else FlowDownException):
                file.read(9)

    def test_a_non_blocking_flow_gives_none(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING)
        with near.makefile("rb", 0) as raw:
            assert raw.read(4) is None
            assert raw.read(0) == b""

    @pytest.mark.needs("instant")
    def test_timeouts_of_the_flow_apply(self, near: Flow, far: Shell) -> None:
        near.set_rcv_timeout(0)
        with near.makefile("rb") as file:
            with pytest.raises(FlowTimeoutException):
                file.read(1)
            far.do("f.write(b'late')")
            assert file.read(4) == b"late"


class TestWriting:
    def test_what_is_written_arrives_at_flush(self, near: Flow, far: Shell) -> None:
        with near.makefile("wb") as file:
            file.write(b"one ")
            file.write(b"packet")
            assert far.do("f.get_rx_queue_len()") == 0
            file.flush()
            assert far.do("f.read()") == b"one packet"
            file.write(b"last")
        assert far.do("f.read()") == b"last"

    @pytest.mark.parametrize("buffering", [None, 0])
    @pytest.mark.needs("back-pressure", "long")
    def test_more_than_a_packet_is_split(self, near: Flow, far: Shell, buffering: int | None) -> None:
        far.begin("[len(f.read()) for _ in range(3)]")
        with near.makefile("wb", buffering) as file:
            assert file.write(bytes(2 * near.max_packet + 5)) == 2 * near.max_packet + 5
        assert far.answer() == [near.max_packet, near.max_packet, 5]

    @pytest.mark.needs("back-pressure", "long", "room")
    def test_a_full_flow_takes_a_part_or_none(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING)
        with near.makefile("wb", 0) as raw:
            taken = raw.write(bytes(TOO_MUCH))
            assert taken
            assert taken % near.max_packet == 0
            # Some may go on to the other end meanwhile.
            packet = bytes(near.max_packet)
            taken += sum(iter(lambda: raw.write(packet), None))
        far.do(f"[f.read() for _ in range({taken // near.max_packet})]; None")

    def test_text_with_buffering_1_goes_line_by_line(self, near: Flow, far: Shell) -> None:
        with near.makefile("w", 1) as file:
            print("hé", 7, file=file)
            assert far.do("f.readline()") == "hé 7\n"

    @pytest.mark.needs("instant")
    def test_a_write_to_a_peer_that_is_gone_raises(self, near: Flow, far: Shell) -> None:
        far.do("f.dealloc()")
        with near.makefile("wb", 0) as raw, pytest.raises(FlowDownException):
            raw.write(b"x")


class TestFiles:
    def test_reading_and_writing_in_one(self, near: Flow, far: Shell) -> None:
        far.begin(
            "with f.makefile('rw') as file:\n    for line in file: print(line.upper(), end='', file=file, flush=True)"
        )
        with near.makefile("rw") as file:
            for line in "one\n", "two\n":
                file.write(line)
                file.flush()
                assert file.readline() == line.upper()
        near.dealloc()
        far.answer()

    def test_closing_the_file_leaves_the_flow(self, near: Flow, far: Shell) -> None:
        for mode in "rb", "wb", "rwb", "r", "w", "rw":
            file = near.makefile(mode)
            file.close()
            assert file.closed
        near.write(b"still there")
        assert far.do("f.read()") == b"still there"

    @pytest.mark.parametrize("mode", ["", "b", "a", "rr", "x", "r+", "rbt"])
    def test_other_modes_are_refused(self, near: Flow, mode: str) -> None:
        with pytest.raises(ValueError, match="mode"):
            near.makefile(mode)

    @pytest.mark.parametrize(
        ("mode", "how"), [("rb", {"encoding": "utf-8"}), ("rb", {"newline": ""}), ("r", {"buffering": 0})]
    )
    def test_what_makes_no_sense_is_refused(self, near: Flow, mode: str, how: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"binary|buffer"):
            near.makefile(mode, **how)

    def test_a_file_does_only_what_its_mode_says(self, near: Flow) -> None:
        with near.makefile("rb", 0) as raw, pytest.raises(io.UnsupportedOperation):
            raw.write(b"x")
        with near.makefile("wb", 0) as raw, pytest.raises(io.UnsupportedOperation):
            raw.read(1)

    def test_an_object_without_a_flow_has_no_file(self) -> None:
        with pytest.raises(FlowNotAllocatedException):
            Flow().makefile()

    def test_its_descriptor_is_that_of_the_flow(self, near: Flow, far: Shell) -> None:
        with near.makefile("rb") as file:
            assert not select.select([file], [], [], 0)[0]
            far.do("f.write(b'x')")
            assert select.select([file], [], [])[0]


def test_selectors_take_a_flow(near: Flow, far: Shell) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ, "mine")
        assert selector.select(0) == []
        far.do("f.write(b'x')")
        assert [key.data for key, _ in selector.select()] == ["mine"]
        near.read()
        assert selector.select(0) == []


class Echo(FlowRequestHandler):
    def handle(self) -> None:
        while True:
            packet = self.flow.read()
            if packet == b"end":
                return
            if packet == b"fail":
                raise ZeroDivisionError("on purpose")
            self.flow.write(packet)


@contextmanager
def serving(server: FlowServer) -> Iterator[FlowServer]:
    with server:
        loop = Background(server.serve_forever)
        try:
            yield server
        finally:
            server.shutdown()
            loop.result()


@pytest.fixture(params=[FlowServer, ThreadingFlowServer])
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


def ask(name: str, *packets: bytes) -> list[bytes]:
    with flow_alloc(name) as flow:
        answers = []
        for packet in packets:
            flow.write(packet)
            answers.append(flow.read())
        flow.write(b"end")
        return answers


class TestServer:
    def test_it_serves_one_client_after_the_other(self, node: NodeProcess, make: Any) -> None:
        with serving(make("echo", Echo)):
            for number in range(5):
                assert ask("echo", b"%d" % number, b"more") == [b"%d" % number, b"more"]

    def test_handle_request_serves_one(self, node: NodeProcess) -> None:
        with FlowServer("echo", Echo) as server:
            visitor = Background(lambda: ask("echo", b"x"))
            server.handle_request()
            assert visitor.result() == [b"x"]

    @pytest.mark.parametrize("timeout", [0, 0.01])
    def test_handle_request_ends_at_the_timeout(self, node: NodeProcess, timeout: float) -> None:
        late: list[bool] = []

        class Impatient(FlowServer):
            def handle_timeout(self) -> None:
                late.append(True)

        with Impatient("echo", Echo) as server:
            server.timeout = timeout
            server.handle_request()
            assert late == [True]
            server.timeout = None
            visitor = Background(lambda: ask("echo", b"x"))
            server.handle_request()
            assert visitor.result() == [b"x"]

    def test_setup_handle_and_finish_are_called_in_order(self, node: NodeProcess) -> None:
        calls: list[str] = []

        class Handler(FlowRequestHandler):
            def setup(self) -> None:
                assert isinstance(self.server, FlowServer)
                calls.append("setup")

            def handle(self) -> None:
                calls.append("handle")
                raise ZeroDivisionError

            def finish(self) -> None:
                assert self.flow.flow_id
                calls.append("finish")

        with serving(FlowServer("echo", Handler)), flow_alloc("echo") as flow, pytest.raises(FlowDownException):
            flow.read()
        assert calls == ["setup", "handle", "finish"]

    def test_a_handler_that_fails_is_logged_and_ends_alone(
        self, node: NodeProcess, make: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "ouroboros.server")
        with serving(make("echo", Echo)):
            with flow_alloc("echo") as flow:
                flow.write(b"fail")
                with pytest.raises(FlowDownException):
                    flow.read()
            assert ask("echo", b"x") == [b"x"]
            with flow_alloc("echo"):
                pass
            assert ask("echo", b"x") == [b"x"]
        # All handlers are through.
        levels = {record.levelname: record.getMessage() for record in caplog.records}
        assert "failed" in levels["ERROR"]
        assert "on purpose" in caplog.text
        assert "ended" in levels["INFO"]

    def test_it_is_quiet_by_default(self, node: NodeProcess, programs: Programs) -> None:
        program = programs.start(
            """
            from ouroboros.server import *
            class Fails(FlowRequestHandler):
                def handle(self):
                    raise ZeroDivisionError
            with FlowServer("echo", Fails) as server:
                server.handle_request()
            """
        )
        client.request(CreateName("echo", "spillover"))
        with flow_alloc("echo") as flow, pytest.raises(FlowDownException):
            flow.read()
        assert program.process.wait() == 0
        assert program.errors() == ""

    def test_a_thread_each_serves_clients_at_once(self, node: NodeProcess) -> None:
        with serving(ThreadingFlowServer("echo", Echo)):
            flows = [flow_alloc("echo") for _ in range(10)]
            for flow in flows:
                flow.write(b"x")
            for flow in flows[::-1]:
                assert flow.read() == b"x"
                flow.dealloc()

    def test_server_close_waits_for_handlers_that_run(self, node: NodeProcess) -> None:
        server = ThreadingFlowServer("echo", Echo)
        with serving(server), flow_alloc("echo") as flow:
            flow.write(b"x")
            flow.read()
            server.shutdown()
            closing = Background(server.server_close)
            until(lambda: "echo" not in {name.name for name in client.request(ListNames()) if name.processes})
            flow.write(b"still served")
            assert flow.read() == b"still served"
            flow.write(b"end")
            closing.result()
            assert not server._threads

    def test_a_handler_may_shut_a_threading_server_down(self, node: NodeProcess) -> None:
        class Last(FlowRequestHandler):
            def handle(self) -> None:
                self.server.shutdown()

        with ThreadingFlowServer("echo", Last) as server:
            loop = Background(server.serve_forever)
            flow_alloc("echo").dealloc()
            loop.result()

    def test_shutdown_before_the_loop_ends_it_as_it_begins(self, node: NodeProcess) -> None:
        with FlowServer("echo", Echo) as server:
            server.shutdown()
            server.serve_forever()
            visitor = Background(lambda: ask("echo", b"x"))
            server.handle_request()
            assert visitor.result() == [b"x"]

    def test_a_request_that_is_not_verified_is_deallocated(self, node: NodeProcess, make: Any) -> None:
        class Picky(make):  # type: ignore[misc]
            def verify_request(self, flow: Flow) -> bool:
                return flow.get_qos().reliable

        with serving(Picky("echo", Echo)), flow_alloc("echo") as flow, pytest.raises(FlowDownException):
            flow.read()

    def test_the_name_is_bound_until_the_server_is_closed(self, node: NodeProcess, make: Any) -> None:
        with make("echo", Echo), pytest.raises(FlowTimeoutException):
            flow_alloc("echo", timeo=0)
        # The node knows the name as long as it has room for unused ones.
        with pytest.raises((FlowNameException, FlowTimeoutException), match=r"nobody offers|no program"):
            flow_alloc("echo", timeo=0)
        assert not any(name.processes for name in client.request(ListNames()))

    def test_a_closed_server_refuses_and_can_be_closed_again(self, node: NodeProcess, make: Any) -> None:
        server = make("echo", Echo)
        server.server_close()
        server.server_close()
        calls: list[Callable[[], None]] = [server.serve_forever, server.handle_request]
        for call in calls:
            with pytest.raises(ValueError, match="closed"):
                call()

    def test_a_name_that_is_none_is_refused(self, node: NodeProcess) -> None:
        with pytest.raises(TypeError):
            FlowServer(7, Echo)  # type: ignore[arg-type]
        with pytest.raises(FlowException):
            FlowServer("lone \ud800", Echo)

    def test_threads_are_named_after_their_flow(self, node: NodeProcess) -> None:
        names: list[str] = []

        class Handler(FlowRequestHandler):
            def handle(self) -> None:
                names.append(threading.current_thread().name)

        server = ThreadingFlowServer("echo", Handler)
        with serving(server), flow_alloc("echo") as flow, pytest.raises(FlowDownException):
            flow.read()
        assert len(names) == 1
        assert names[0].startswith("echo: flow ")
