"""Getting flows from a C library whose calls cannot be interrupted and whose errors are numbers."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from native_fake import FakeDev, fake_library
from support import Background, asleep_in, until

from ouroboros.errors import (
    FlowAuthException,
    FlowCryptException,
    FlowException,
    FlowNameException,
    FlowQosException,
    FlowRefusedException,
    FlowTimeoutException,
    NodeError,
    NodeLimitError,
    UnsupportedError,
)
from ouroboros.native import calls
from ouroboros.native import declarations as c
from ouroboros.native.stack import NODE, Stack
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import Accept, Alloc, BindProcess, Join, UnbindProcess


class Host:
    """A program over a fake library."""

    def __init__(self, version: tuple[int, int] = (0, 23)) -> None:
        self.library, self.dev = fake_library(version)
        self.stack = Stack(self.library)

    def alloc(self, name: str = "name", qos: QoSSpec | None = None, timeout: float | None = 20.0) -> Alloc:
        return Alloc(name, qos or QoSSpec(), timeout)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.stack.stop()
    assert host.dev.accidents == []


@pytest.fixture
def dev(host: Host) -> FakeDev:
    return host.dev


def test_two_programs_meet(host: Host) -> None:
    call = host.stack.begin(Accept("clock", None))
    near = host.stack.request_flow(host.alloc("other", QoSSpec(delay=5)))
    until(lambda: readable(call.waits_for().descriptor))
    far = call.poll()
    assert far is not None
    assert near.endpoint.write(b"hello") == 5
    assert far.endpoint.read() == b"hello"
    assert (near.node, near.granted.qos.delay) == (NODE, 5)
    near.endpoint.close()
    far.endpoint.close()


def test_what_the_flow_is_given_is_told_not_what_was_asked_for(host: Host) -> None:
    """The library has no CRC unless it was built for it."""
    grant = host.stack.request_flow(host.alloc(qos=QoSSpec(ber=0)))
    assert grant.granted.qos.ber == 1
    grant.endpoint.close()


def test_a_flow_without_loss_is_asked_for_in_order(host: Host) -> None:
    """There, retransmission needs both."""
    grant = host.stack.request_flow(host.alloc(qos=QoSSpec(loss=0)))
    assert host.dev.end(grant.granted.flow_id).qos["in_order"] == 1
    grant.endpoint.close()


@pytest.mark.parametrize(
    ("result", "kind", "text"),
    [
        (-c.ENAME, FlowNameException, "irm name create"),
        (-c.EIPCP, FlowNameException, "no layer"),
        (-c.ETIMEDOUT, FlowTimeoutException, "in time"),
        (-c.ECRYPT, FlowCryptException, "encryption"),
        (-c.EAUTH, FlowAuthException, "who it is"),
        (-c.EBADF, NodeLimitError, "left"),
        (-c.ENOMEM, NodeLimitError, "left"),
        (-c.EIRMD, NodeError, "does not answer"),
        (-c.EPERM, NodeError, "does not answer"),
        (-77, FlowRefusedException, "error -77"),
    ],
)
def test_errors_have_names(host: Host, dev: FakeDev, result: int, kind: type[Exception], text: str) -> None:
    dev.refusals.append(result)
    with pytest.raises(kind, match=text):
        host.stack.request_flow(host.alloc())


def test_a_layer_that_is_none_has_no_name(host: Host, dev: FakeDev) -> None:
    for result in -c.EIPCP, -c.ENOTALLOC:
        dev.refusals.append(result)
        with pytest.raises(FlowNameException, match="no broadcast layer 'x'"):
            host.stack.request_flow(Join("x", QoSSpec(), 1.0))
    with pytest.raises(FlowQosException):
        host.stack.request_flow(Join("x", QoSSpec(in_order=1), 1.0))


@pytest.mark.parametrize("version", [(0, 21), (0, 23)])
def test_a_layer_is_joined(version: tuple[int, int]) -> None:
    host = Host(version)
    grant = host.stack.request_flow(Join("x", QoSSpec(), 1.0))
    assert grant.granted.qos.timeout == 0
    grant.endpoint.close()
    host.stack.stop()


def test_encryption_is_never_left_out_in_silence(host: Host) -> None:
    with pytest.raises(UnsupportedError, match=r"enc\.conf"):
        host.stack.request_flow(host.alloc(qos=QoSSpec(cypher_s=256)))


def test_the_layer_is_its_own_choice(host: Host) -> None:
    with pytest.raises(UnsupportedError, match="the C Ouroboros chooses the layer of a flow itself"):
        host.stack.request_flow(Alloc("name", QoSSpec(), 20.0, layer="lab"))


@pytest.mark.parametrize("name", ["", "n" * 256, "a\0b"])
def test_names_that_cannot_be_are_refused(host: Host, name: str) -> None:
    with pytest.raises(FlowNameException, match="1 to 255 bytes"):
        host.stack.request_flow(host.alloc(name))


class TestAccept:
    def test_the_library_waits_for_short_times_and_at_least_for_some(self, host: Host, dev: FakeDev) -> None:
        """Without any it would give up a flow that the other end has got (B15); of a long one nobody could let go (B14)."""
        with pytest.raises(FlowTimeoutException, match="in time"):
            host.stack.request_flow(Accept(None, 0.0))
        assert dev.accept_limits == [0.1]

    def test_a_name_is_bound_before_others_can_ask_for_it_as_often_as_one_likes(self, host: Host, dev: FakeDev) -> None:
        irm = host.library.irm
        for _ in range(2):
            call = host.stack.begin(Accept("clock", None))
            assert irm.bound == {(os.getpid(), b"clock")}
            call.withdraw()
        host.stack.request(UnbindProcess(os.getpid(), "clock"))
        host.stack.request(BindProcess(os.getpid(), "clock"))
        assert irm.bound == {(os.getpid(), b"clock")}

    def test_a_flow_tells_the_name_it_was_taken_for(self, host: Host) -> None:
        for name, told in (("clock", "clock"), (None, "")):
            call = host.stack.begin(Accept(name, None))
            near = host.stack.request_flow(host.alloc("asked"))
            until(functools.partial(lambda call: readable(call.waits_for().descriptor), call))
            far = call.poll()
            assert far is not None
            assert (near.granted.name, far.granted.name) == ("asked", told)
            near.endpoint.close()
            far.endpoint.close()

    def test_a_program_accepts_for_one_name_alone(self, host: Host) -> None:
        """The library does not tell which name a flow is for."""
        host.stack.begin(Accept("clock", None)).withdraw()
        for request in (
            lambda: host.stack.begin(Accept("watch", None)),
            lambda: host.stack.request(BindProcess(os.getpid(), "watch")),
        ):
            with pytest.raises(UnsupportedError, match="bound to 'clock' already, and cannot tell flows to 'watch'"):
                request()
        assert host.library.irm.bound == {(os.getpid(), b"clock")}
        host.stack.request(UnbindProcess(os.getpid(), "clock"))
        host.stack.begin(Accept("watch", None)).withdraw()

    def test_a_program_that_is_bound_to_several_names_accepts_for_all_of_them(self, host: Host) -> None:
        for name in ("clock", "watch"):
            host.stack.request(BindProcess(os.getpid(), name))
        host.stack.begin(Accept(None, None)).withdraw()
        with pytest.raises(UnsupportedError, match="accept without one"):
            host.stack.begin(Accept("clock", None))

    def test_a_flow_that_comes_after_the_withdrawal_is_given_back(self, host: Host, dev: FakeDev) -> None:
        """B14"""
        call = host.stack.begin(Accept(None, None))
        until(lambda: bool(dev.accept_limits))
        call.withdraw()
        grant = host.stack.request_flow(host.alloc())
        with pytest.raises(FlowException):
            grant.endpoint.read()
        grant.endpoint.close()
        until(lambda: not calls.under_way)

    def test_a_flow_that_nobody_polled_is_given_back(self, host: Host, dev: FakeDev) -> None:
        grant = host.stack.request_flow(host.alloc())
        call = host.stack.begin(Accept(None, None))
        until(lambda: readable(call.waits_for().descriptor))
        call.withdraw()
        with pytest.raises(FlowException):
            grant.endpoint.read()
        grant.endpoint.close()

    def test_an_interrupted_accept_leaves_nothing_behind(self, host: Host, dev: FakeDev) -> None:
        """The library gives up at a signal, and its request goes on in the daemon (B14): it never sees one."""
        before = signal.signal(signal.SIGUSR1, _interrupt)
        try:
            Background(lambda: _interrupt_when_asleep(threading.main_thread()))
            with pytest.raises(KeyboardInterrupt):
                host.stack.request_flow(Accept(None, None))
        finally:
            signal.signal(signal.SIGUSR1, before)
        until(lambda: not calls.under_way)

    def test_a_program_has_no_flow_to_itself(self, host: Host, dev: FakeDev) -> None:
        """B16"""
        call = host.stack.begin(Accept("clock", None))
        until(lambda: bool(dev.accept_limits))
        with pytest.raises(FlowRefusedException, match="itself"):
            host.stack.request_flow(host.alloc("clock"))
        assert "flow_alloc" not in dev.calls
        call.withdraw()


class TestAlloc:
    def test_who_accepts_late_is_waited_for(self, host: Host, dev: FakeDev, monkeypatch: pytest.MonkeyPatch) -> None:
        """The daemon gives up after two seconds, whatever time it was given."""
        monkeypatch.setattr("ouroboros.native.flows._AT_ONCE", -1.0)
        dev.refusals += [-c.EIPCP, -c.EIPCP]
        grant = host.stack.request_flow(host.alloc())
        assert dev.calls.count("flow_alloc") == 3
        grant.endpoint.close()
        dev.refusals += [-c.EIPCP] * 100
        with pytest.raises(FlowTimeoutException, match="nobody accepted 'name'"):
            host.stack.request_flow(host.alloc(timeout=0.2))

    def test_a_caller_is_not_kept_longer_than_it_said(self, host: Host, dev: FakeDev) -> None:
        """The first second in the daemon has no limit."""
        go_on = threading.Event()
        original = dev.flow_alloc
        dev.flow_alloc = lambda *arguments: (go_on.wait(), original(*arguments))[1]  # type: ignore[method-assign]
        with pytest.raises(FlowTimeoutException, match="did not answer"):
            host.stack.request_flow(host.alloc(timeout=0))
        assert dev._ends == {}
        # The flow that comes of it is given back.
        go_on.set()
        until(lambda: "flow_dealloc" in dev.calls)
        until(lambda: not calls.under_way)

    def test_a_name_that_nobody_offers_is_waited_for_if_asked(self, host: Host, dev: FakeDev) -> None:
        dev.refusals += [-c.ENAME, -c.EIPCP, -c.ENAME]
        grant = host.stack.request_flow(Alloc("name", QoSSpec(), 20.0, wait=True))
        assert dev.calls.count("flow_alloc") == 4
        grant.endpoint.close()
        dev.refusals += [-c.ENAME] * 100
        with pytest.raises(FlowTimeoutException, match="nobody accepted 'name'"):
            host.stack.request_flow(Alloc("name", QoSSpec(), 0.2, wait=True))

    def test_what_time_does_not_cure_is_told_to_who_waits_for_a_name(self, host: Host, dev: FakeDev) -> None:
        dev.refusals.append(-c.ECRYPT)
        with pytest.raises(FlowCryptException):
            host.stack.request_flow(Alloc("name", QoSSpec(), 20.0, wait=True))

    def test_without_a_limit_it_asks_as_long_as_it_takes(self, host: Host, dev: FakeDev) -> None:
        dev.refusals += [-c.ETIMEDOUT, -c.ETIMEDOUT]
        grant = host.stack.request_flow(Alloc("name", QoSSpec(), float("inf")))
        assert dev.calls.count("flow_alloc") == 3
        grant.endpoint.close()


class TestFork:
    def test_a_child_is_told_what_to_do(self, host: Host, dev: FakeDev) -> None:
        host.library.pid = os.getpid() + 1
        for request in host.alloc(), Accept(None, None):
            with pytest.raises(FlowException, match="spawn"):
                host.stack.request_flow(request)
        assert dev.calls == []
        host.library.pid = os.getpid()


def readable(descriptor: int | None) -> bool:
    import select

    assert descriptor is not None
    return bool(select.select([descriptor], [], [], 0)[0])


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _interrupt_when_asleep(thread: threading.Thread) -> None:
    native, ident = thread.native_id, thread.ident
    assert native is not None
    assert ident is not None
    until(lambda: asleep_in(os.getpid(), native, "poll"))
    signal.pthread_kill(ident, signal.SIGUSR1)
