"""Fixtures with real processes. A test that uses one of them also proves that nothing is left behind."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hypothesis
import pytest
from support import (
    NodeProcess,
    Programs,
    children,
    ended,
    holds_nothing,
    lasting_descriptors,
    logged_no_bug,
    mapped_flows,
    users_of,
)
from udp_nodes import Nodes, join
from warm import NODE, PROGRAM, Warm

from ouroboros import dev
from ouroboros.runtime import client
from ouroboros.testing.node import Node, ProcessNode

# A busy machine is no fault of an example.
hypothesis.settings.register_profile("project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("project")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Many tests look for garbage when they are over: not among all that pytest knows of ten thousand of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored. Programs that tests start would inherit that, but
    not a handler that does nothing."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda _number, _frame: None)


@pytest.fixture(scope="session")
def warm_programs() -> Iterator[Warm]:
    """Forks programs of tests."""
    warm = Warm(PROGRAM)
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def warm_nodes() -> Iterator[Warm]:
    """Forks nodes of tests."""
    warm = Warm(NODE)
    yield warm
    warm.close()


@pytest.fixture(scope="session", autouse=True)
def _private_nodes(request: pytest.FixtureRequest, _interruptible: None) -> Iterator[None]:
    """Fork the nodes of the plugin, if a test has one. This is before any test counts processes and descriptors."""
    fixtures = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    if not fixtures & {"ouroboros_node", "make_node", "make_pair"}:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessNode, "_popen", request.getfixturevalue("warm_nodes").popen)
        yield


@pytest.fixture(autouse=True)
def _our_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is installed; and a process that has used a C library would go on with it. What it remembers is in its
    runtime directory, each of which is of one node."""
    monkeypatch.setenv("OUROBOROS_BACKEND", "node")
    monkeypatch.delenv("OUROBOROS_STATE_DIR", raising=False)


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private runtime directory, empty of processes and sockets at the end."""
    # Not tmp_path, which is too long for the path of a socket.
    directory = Path(tempfile.mkdtemp(prefix="o-"))
    monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", str(directory))
    # Whatever this user has configured.
    monkeypatch.setenv("OUROBOROS_SECURITY_DIR", str(directory / "security"))
    monkeypatch.delenv("OUROBOROS_AUTOSTART", raising=False)
    open_before, flows_before, children_before = lasting_descriptors(), mapped_flows(), children()
    yield directory
    gc.collect()
    kept = list(dev._flows)
    for flow in kept:
        flow.dealloc()
    # The connections that are kept for the next call lead to a node that is gone.
    client.client.forget()
    left = users_of(directory)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    sockets = [path.name for path in directory.iterdir() if path.is_socket()]
    shutil.rmtree(directory)
    assert not kept, "the test has not deallocated these"
    assert not left, "these processes survived the test"
    assert not sockets, "these sockets are left"
    # What an earlier test left to the garbage collector may be gone by now.
    assert not lasting_descriptors() - open_before, "these descriptors are left"
    assert mapped_flows() <= flows_before
    assert children() == children_before


@pytest.fixture
def nodes(ouroboros_inproc_node: Callable[[], Node]) -> Nodes:
    """Two nodes of this process, joined by a layer over UDP."""
    return join(ouroboros_inproc_node(), ouroboros_inproc_node())


@pytest.fixture
def programs(warm_programs: Warm, runtime_dir: Path, tmp_path: Path) -> Iterator[Programs]:
    """Starts programs; ends them at the end."""
    started = Programs(tmp_path, warm_programs)
    yield started
    started.end()


@pytest.fixture
def make_node(
    warm_nodes: Warm, runtime_dir: Path, tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., NodeProcess]]:
    """Makes the explicit node of a test; `limit` is its limit of descriptors, `within` a command that runs it, `directory`
    that of another node than the programs of the test use.

    When the test is over and its programs are ended, the node must hold no flow, end at SIGTERM and have logged no bug.
    """
    # A node that dies must not be replaced behind the test's back.
    monkeypatch.setenv("OUROBOROS_AUTOSTART", "0")
    nodes: list[NodeProcess] = []

    def make(
        *options: str, limit: int | None = None, within: Sequence[str] = (), directory: Path | None = None
    ) -> NodeProcess:
        place, log = (runtime_dir, "irmd.log") if directory is None else (directory, f"{directory.name}.log")
        nodes.append(NodeProcess(place, tmp_path / log, *options, limit=limit, within=within, warm=warm_nodes))
        return nodes[-1]

    yield make
    programs.end()
    for node in nodes:
        if node.process.poll() is None:
            for flow in list(dev._flows):
                flow.dealloc()
            monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", str(node.directory))
            try:
                holds_nothing(node.pid, lingers=node.lingers)
                assert node.stop() == 0
            finally:
                node.kill()
        print(node.log())
        assert logged_no_bug(node.log())


@pytest.fixture
def node(make_node: Callable[..., NodeProcess]) -> NodeProcess:
    """An explicit node."""
    return make_node()


@pytest.fixture
def embedded(runtime_dir: Path, programs: Programs) -> Iterator[Path]:
    """No node: the first call starts one. It is told to end when the test is over."""
    yield runtime_dir
    programs.end()
    for flow in list(dev._flows):
        flow.dealloc()
    client.client.forget()
    lock = runtime_dir / "irmd.lock"
    if (runtime_dir / "irm.sock").exists():
        pid = int(lock.read_text())
        os.kill(pid, signal.SIGTERM)
        ended(pid)
    log = runtime_dir / "irmd.log"
    if log.exists():
        print(log.read_text())
        assert logged_no_bug(log.read_text())
