"""Services and their names: each gets the flows to its own name alone, and clients wait for a name, or do not."""

from __future__ import annotations

import functools
import math
from collections import Counter
from contextlib import ExitStack
from typing import Any

import anyio
import pytest
from support import Background, NodeProcess, Programs, Shell, until

from ouroboros import aio, cli
from ouroboros.dev import (
    Flow,
    FlowNameException,
    FlowNotAllocatedException,
    FlowTimeoutException,
    flow_accept,
    flow_alloc,
    flow_join,
)
from ouroboros.event import FEventQueue, FlowSet
from ouroboros.irm import IpcpType
from ouroboros.runtime import client
from ouroboros.server import FlowRequestHandler, FlowServer, ThreadingFlowServer
from ouroboros.wire.control import ListNames

from .test_bridges import serving

NAMES = ("alpha", "beta", "alpha", "alpha", "beta", "beta") * 3


class Alpha(FlowRequestHandler):
    def handle(self) -> None:
        self.flow.writeline(f"alpha for {self.flow.name}")


class Beta(FlowRequestHandler):
    def handle(self) -> None:
        self.flow.writeline(f"beta for {self.flow.name}")


def answers() -> Counter[str]:
    """What clients of the two names hear."""
    heard: Counter[str] = Counter()
    for name in NAMES:
        with flow_alloc(name) as flow:
            assert flow.name == name
            heard[flow.readline()] += 1
    return heard


EACH_ITS_OWN = Counter({"alpha for alpha": 9, "beta for beta": 9})


def test_both_ends_know_the_name(near: Flow, far: Shell) -> None:
    assert (near.name, far.do("f.name")) == ("pair", "pair")
    near.dealloc()
    with pytest.raises(FlowNotAllocatedException):
        _ = near.name


def test_a_joined_flow_has_the_name_of_its_layer(node: NodeProcess) -> None:
    cli.autoboot("lab0", IpcpType.BROADCAST, "lab")
    with flow_join("lab") as flow:
        assert flow.name == "lab"


class TestAccept:
    def test_each_thread_takes_flows_to_its_name_alone(self, node: NodeProcess) -> None:
        waiting = {
            name: Background.waiting_for_node(lambda name=name: flow_accept(name=name))  # type: ignore[misc]
            for name in ("alpha", "beta")
        }
        for name in ("beta", "alpha"):
            with flow_alloc(name) as near, waiting[name].result() as far:
                assert near.name == far.name == name
                near.write(b"x")
                assert far.read() == b"x"

    def test_without_a_name_it_takes_flows_to_all_names_and_tells_which(self, node: NodeProcess) -> None:
        for name in ("alpha", "beta"):
            with pytest.raises(FlowTimeoutException):
                flow_accept(0, name=name)
        for name in ("beta", "alpha"):
            waiting = Background.waiting_for_node(flow_accept)
            with flow_alloc(name), waiting.result() as far:
                assert far.name == name

    def test_a_flow_that_nobody_waits_for_is_queued_for_its_name(self, node: NodeProcess) -> None:
        with pytest.raises(FlowTimeoutException):
            flow_accept(0, name="beta")
        client_of_beta = Background.waiting_for_node(lambda: flow_alloc("beta"))
        with pytest.raises(FlowTimeoutException):
            flow_accept(0, name="alpha")
        with flow_accept(0, name="beta") as far, client_of_beta.result() as near:
            assert near.name == far.name == "beta"

    def test_it_ends_when_its_name_is_destroyed(self, node: NodeProcess) -> None:
        waiting = Background.waiting_for_node(lambda: flow_accept(name="alpha"))
        cli.destroy_name("alpha")
        with pytest.raises(FlowNameException, match="'alpha' was destroyed while it waited"):
            waiting.result()

    def test_events_of_a_set_come_with_flows_that_tell_their_name(self, node: NodeProcess) -> None:
        with ExitStack() as stack:
            flows = FlowSet()
            stack.callback(flows.destroy)
            near = {}
            for name in ("alpha", "beta"):
                waiting = Background.waiting_for_node(lambda name=name: flow_accept(name=name))  # type: ignore[misc]
                near[name] = stack.enter_context(flow_alloc(name))
                flows.add(stack.enter_context(waiting.result()))
            queue = FEventQueue()
            for name in ("beta", "alpha"):
                near[name].write(b"x")
                flows.wait(queue)
                flow, _ = queue.next()
                assert flow.name == name
                flow.read()


class TestWaiting:
    def test_a_client_waits_for_a_name_that_nobody_has_made(self, node: NodeProcess) -> None:
        with pytest.raises(FlowNameException, match="nobody offers 'later'"):
            flow_alloc("later")
        flow = Flow()
        one = Background.waiting_for_node(lambda: flow_alloc("later", wait=True))
        other = Background.waiting_for_node(lambda: flow.alloc("later", timeo=math.inf, wait=True))
        assert client.request(ListNames()) == []
        with flow_accept(name="later"), flow_accept(name="later"), flow, one.result():
            other.result()
            assert flow.name == "later"

    def test_a_client_that_outlives_its_server_waits_for_the_next(self, node: NodeProcess, programs: Programs) -> None:
        for number in range(3):
            server = programs.shell()
            server.begin(f"with flow_accept(name='oracle') as f: f.writeline(f'{number}: {{f.readline()}}')")
            with flow_alloc("oracle", wait=True) as flow:
                flow.writeline("why?")
                assert flow.readline() == f"{number}: why?"
            server.answer()
            server.kill()
            until(lambda: not any(entry.processes for entry in client.request(ListNames())))
            with pytest.raises(FlowNameException, match="nobody serves 'oracle' any more"):
                flow_alloc("oracle")

    def test_a_server_that_is_closed_sends_its_clients_away(self, node: NodeProcess) -> None:
        with FlowServer("alpha", Alpha) as server:
            asking = Background.waiting_for_node(lambda: flow_alloc("alpha"))
            server.handle_request()
            asking.result().dealloc()
            asking = Background.waiting_for_node(lambda: flow_alloc("alpha"))
        with pytest.raises(FlowNameException, match="nobody serves 'alpha' any more"):
            asking.result()

    def test_it_ends_at_the_time_limit_and_says_what_was_missing(self, node: NodeProcess) -> None:
        with pytest.raises(FlowTimeoutException, match="'later' in time: nobody offers it"):
            flow_alloc("later", timeo=0.01, wait=True)

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_task_waits_and_can_be_cancelled(self, node: NodeProcess, backend: str) -> None:
        async def serve() -> None:
            async with await aio.flow_accept(name="later") as flow:
                await flow.writeline(flow.name)

        async def main() -> None:
            with pytest.raises(TimeoutError), anyio.fail_after(0.01):
                await aio.flow_alloc("later", wait=True)
            async with anyio.create_task_group() as tasks:
                flow = aio.Flow()
                tasks.start_soon(functools.partial(flow.alloc, "later", wait=True))
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(serve)
            async with flow:
                assert await flow.readline() == "later"

        anyio.run(main, backend=backend)
        with pytest.raises(FlowTimeoutException):
            flow_accept(0, name="later")


@pytest.mark.parametrize("make", [FlowServer, ThreadingFlowServer])
class TestServers:
    def test_two_in_one_process_get_flows_to_their_own_name(self, node: NodeProcess, make: Any) -> None:
        with serving(make("alpha", Alpha)), serving(make("beta", Beta)):
            assert answers() == EACH_ITS_OWN

    def test_one_that_is_closed_leaves_another_of_that_name(self, node: NodeProcess, make: Any) -> None:
        with serving(make("alpha", Alpha)):
            with serving(make("alpha", Alpha)):
                pass
            with flow_alloc("alpha") as flow:
                assert flow.readline() == "alpha for alpha"
        assert not any(entry.processes for entry in client.request(ListNames()))

    def test_closing_it_ends_its_loop_in_another_thread(self, node: NodeProcess, make: Any) -> None:
        server = make("alpha", Alpha)
        loop = Background.waiting_for_node(server.serve_forever)
        server.server_close()
        loop.result()

    def test_a_loop_whose_name_somebody_destroys_says_so(self, node: NodeProcess, make: Any) -> None:
        with make("alpha", Alpha) as server:
            loop = Background.waiting_for_node(server.serve_forever)
            cli.destroy_name("alpha")
            with pytest.raises(FlowNameException, match="destroyed"):
                loop.result()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_services_of_a_loop_get_flows_to_their_own_name(node: NodeProcess, backend: str) -> None:
    async def alpha(flow: aio.Flow) -> None:
        await flow.writeline(f"alpha for {flow.name}")

    async def beta(flow: aio.Flow) -> None:
        await flow.writeline(f"beta for {flow.name}")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(aio.serve, "alpha", alpha)
            await tasks.start(aio.serve, "beta", beta)
            assert await anyio.to_thread.run_sync(answers) == EACH_ITS_OWN
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)


def test_a_service_of_a_loop_and_a_server_of_a_thread_do_not_mix(node: NodeProcess) -> None:
    async def beta(flow: aio.Flow) -> None:
        await flow.writeline(f"beta for {flow.name}")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(aio.serve, "beta", beta)
            assert await anyio.to_thread.run_sync(answers) == EACH_ITS_OWN
            tasks.cancel_scope.cancel()

    with serving(FlowServer("alpha", Alpha)):
        anyio.run(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_server_that_is_closed_leaves_the_name_to_a_service_of_a_loop(node: NodeProcess, backend: str) -> None:
    async def alpha(flow: aio.Flow) -> None:
        await flow.writeline(f"loop for {flow.name}")

    def ask() -> str:
        with flow_alloc("alpha") as flow:
            return flow.readline()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(aio.serve, "alpha", alpha)
            await anyio.to_thread.run_sync(FlowServer("alpha", Alpha).server_close)
            assert await anyio.to_thread.run_sync(ask) == "loop for alpha"
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    FlowServer("alpha", Alpha).server_close()
    assert not any(entry.processes for entry in client.request(ListNames()))
