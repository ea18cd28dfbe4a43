"""Mistakes that need no node to be found: each gets a sentence that names the argument and the remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from mistakes import Row, row, scope

from ouroboros import aio, cli, irm
from ouroboros.errors import (
    BindError,
    FlowEventError,
    FlowNameException,
    FlowNotAllocatedException,
    IpcpCreateError,
    IpcpEnrollError,
    NameError,
)
from ouroboros.security import FlowSecurity
from ouroboros.server import ThreadingFlowServer

LONG = "x" * 256

NAMES = [
    row("flow_alloc('')", FlowNameException, "the name is empty", "1 to 255 bytes"),
    row("flow_alloc(LONG)", FlowNameException, "the name has 256 bytes", "at most 255"),
    row("flow_alloc('ü' * 128)", FlowNameException, "the name has 256 bytes in UTF-8"),
    row("flow_alloc('a\\nb')", FlowNameException, r"'a\nb' has control characters", "line ends included"),
    row("flow_alloc('a\\0b')", FlowNameException, r"'a\x00b' has control characters"),
    row("flow_alloc('\\udc80')", FlowNameException, "not valid UTF-8"),
    row("flow_alloc(b'kv')", TypeError, "a name is a str, not b'kv'"),
    row("flow_alloc(None)", TypeError, "a name is a str, not None"),
    row("flow_alloc(['kv'] * 10**5)", TypeError, "a name is a str, not ['kv'"),
    row("Flow().alloc('')", FlowNameException, "the name is empty"),
    row("flow_accept(name='')", FlowNameException, "the name is empty"),
    row("flow_accept(name='kv\\n')", FlowNameException, "control characters", "line ends included"),
    row("flow_accept(0, name=LONG)", FlowNameException, "at most 255"),
    row("flow_accept(name=5)", TypeError, "a name is a str, not 5"),
    row("flow_accept('kv')", TypeError, "timeo is a number of seconds, not 'kv'", "name='kv'"),
    row("flow_join('')", FlowNameException, "the name is empty"),
    row("flow_join(LONG)", FlowNameException, "at most 255"),
    row("flow_join(None)", TypeError, "a name is a str, not None"),
    row("run(aio.flow_alloc(''))", FlowNameException, "the name is empty"),
    row("run(aio.flow_accept('kv'))", TypeError, "name='kv'"),
    row("run(aio.flow_join('a\\tb'))", FlowNameException, "control characters"),
    row("run(aio.serve('', print))", FlowNameException, "the name is empty"),
    row("FlowServer('', FlowRequestHandler)", FlowNameException, "the name is empty"),
    row("irm.create_name(NameInfo(''))", NameError, "the name is empty"),
    row("irm.create_name(NameInfo(LONG))", NameError, "at most 255"),
    row("irm.create_name(NameInfo('a\\nb'))", NameError, "control characters"),
    row("irm.create_name(NameInfo(5))", TypeError, "NameInfo: name must be a string, not 5"),
    row("irm.create_name('kv')", TypeError, "info is a NameInfo, not 'kv'", "NameInfo('kv')", "ouroboros.cli"),
    row("irm.create_name(None)", TypeError, "info is a NameInfo, not None"),
    row("irm.create_name(NameInfo('kv', server_sec=NameSecPaths(enc='/no/such')))", NameError, "no file '/no/such'"),
    row("irm.destroy_name('')", NameError, "the name is empty"),
    row("irm.destroy_name(5)", TypeError, "the name is a str, not 5"),
    row("irm.reg_name('', 5)", NameError, "the name is empty"),
    row("irm.unreg_name(None, 5)", TypeError, "the name is a str, not None"),
    row("irm.bind_program('ls', '')", BindError, "the name is empty"),
    row("irm.bind_process(5, LONG)", BindError, "at most 255"),
    row("irm.create_ipcp('', IpcpType.LOCAL)", IpcpCreateError, "the name of an IPC process is empty"),
    row("irm.create_ipcp(5, IpcpType.LOCAL)", TypeError, "the name of an IPC process is a str, not 5"),
    row("irm.enroll_ipcp(5, '')", IpcpEnrollError, "the name to enroll with is empty"),
    row("cli.create_name('')", NameError, "the name is empty"),
    row("cli.list_names(5)", TypeError, "the name is a str, not 5"),
    row("cli.list_ipcps(5)", TypeError, "the name of an IPC process is a str, not 5"),
    row("cli.list_ipcps(layer=['lab'])", TypeError, "layer is a str, not ['lab']"),
    row("cli.find_ipcp(5)", TypeError, "the name of an IPC process is a str, not 5"),
]

FLOWS = [
    row("flow_alloc('kv', 'data')", TypeError, "qos is a QoSSpec such as QoSSpec(loss=0), not 'data'"),
    row("flow_alloc('kv', {'loss': 0})", TypeError, "qos is a QoSSpec", "not {'loss': 0}"),
    row("flow_alloc('kv', QoSSpec)", TypeError, "qos is a QoSSpec"),
    row("flow_join('chat', 5)", TypeError, "qos is a QoSSpec", "not 5"),
    row("flow_alloc('kv', timeo='5')", TypeError, "number", "not '5'"),
    row("Flow().read()", FlowNotAllocatedException, "holds no flow", "alloc(), accept() or join()"),
    row("Flow().write(b'x')", FlowNotAllocatedException, "holds no flow", "alloc(), accept() or join()"),
    row("Flow().read(timeout=5)", TypeError, "Flow.read() got an unexpected keyword argument 'timeout'"),
    row("Flow().write(b'x', timeo=5)", TypeError, "Flow.write() got an unexpected keyword argument 'timeo'"),
    row("Flow().readinto()", TypeError, "Flow.readinto() missing 1 required positional argument"),
    row("run(aio.Flow().read(timeout=5))", TypeError, "Flow.read() got an unexpected keyword argument 'timeout'"),
    row("Flow().makefile()", FlowNotAllocatedException, "holds no flow"),
    row("Flow().writeline(b'x')", TypeError, "a line is a str, not b'x'", "write()"),
    row("Flow().writeline(None)", TypeError, "a line is a str, not None"),
    row("Flow().writeline('x', '1')", TypeError, "whole number", "'1'"),
    row("Flow().writeline('x', -1)", ValueError, "count must not be negative"),
    row("run(aio.Flow().writeline(b'x'))", TypeError, "a line is a str, not b'x'", "write()"),
    row("run(aio.Flow().read())", FlowNotAllocatedException, "holds no flow"),
    row("aio.Flow().read('5')", TypeError, "count is a whole number or None, not '5'"),
    row("aio.Flow().write(b'x', 1.5)", TypeError, "count is a whole number or None, not 1.5"),
    row("FlowSet([1])", TypeError, "a member of a FlowSet is a Flow of ouroboros.dev, not 1"),
    row("FlowSet('kv')", TypeError, "a member of a FlowSet is a Flow of ouroboros.dev, not 'k"),
    row("FlowSet(Flow())", TypeError, "made of a list of flows"),
    row("FlowSet(3)", TypeError, "made of a list of flows, not of 3"),
    row("FlowSet([aio.Flow()])", TypeError, "Flow of ouroboros.dev", "give its `sync`"),
    row("FEventQueue().next()", FlowEventError, "no more events", "wait()"),
    row("FlowServer('kv', None)", TypeError, "RequestHandlerClass is a subclass of FlowRequestHandler, not None"),
    row("ThreadingFlowServer('kv', 5)", TypeError, "RequestHandlerClass is a subclass of FlowRequestHandler, not 5"),
    row("run(aio.serve('kv', 5))", TypeError, "handler is an async function", "not 5"),
    row(
        "NoInit().serve_forever()", ValueError, "this NoInit has no name", "super().__init__(name, RequestHandlerClass)"
    ),
    row("NoInit().handle_request()", ValueError, "this NoInit has no name"),
    row("NoInit().shutdown()", ValueError, "this NoInit has no name"),
    row("run(aio.serve('kv', print, limit=0))", ValueError, "limit must be at least 1, not 0"),
    row("run(aio.serve('kv', print, limit='5'))", TypeError, "limit is a whole number, not '5'"),
]

SETTINGS = [
    row("QoSSpec(reliable=True)", TypeError, "QoSSpec: there is no field 'reliable'", "loss", "in_order"),
    row("QoSSpec(lost=0)", TypeError, "QoSSpec: there is no field 'lost'"),
    row("QoSSpec(loss=-1)", ValueError, "QoSSpec: loss must be from 0", "(ppm)", "-1"),
    row("QoSSpec(loss='0')", TypeError, "QoSSpec: loss must be", "(ppm)", "'0'"),
    row("QoSSpec(loss=None)", TypeError, "QoSSpec: loss must be", "None"),
    row("QoSSpec(cypher_s=70000)", ValueError, "QoSSpec: cypher_s must be from 0 to 65535 (bits), not 70000"),
    row("QoSSpec(in_order=2)", ValueError, "QoSSpec: in_order must be", "0 or 1"),
    row("IpcpConfig()", TypeError, "IpcpConfig: ipcp_type is missing"),
    row("IpcpConfig('local')", TypeError, "IpcpConfig: ipcp_type", "not 'local': write IpcpType.LOCAL"),
    row("IpcpConfig(IpcpType.LOCAL, layer='lab')", TypeError, "IpcpConfig: there is no field 'layer'", "layer_name"),
    row("IpcpConfig(IpcpType.LOCAL, 5)", TypeError, "IpcpConfig: layer_name must be a string, not 5"),
    row("IpcpConfig(IpcpType.LOCAL, 'lab', layer_name='x')", TypeError, "IpcpConfig: layer_name was given twice"),
    row("IpcpConfig(IpcpType.LOCAL, udp4=Udp4Config())", ValueError, "udp4 means nothing for type local: leave it out"),
    row("IpcpConfig(IpcpType.UDP4, 'x', udp4='192.0.2.1')", TypeError, "udp4 must be of class Udp4Config"),
    row("Udp4Config('nohost')", ValueError, "Udp4Config: ip_addr must be an IPv4 address, not 'nohost'"),
    row("Udp6Config('192.0.2.1')", ValueError, "Udp6Config: ip_addr must be an IPv6 address, not '192.0.2.1'"),
    row("Udp4Config(ip='192.0.2.1')", TypeError, "Udp4Config: there is no field 'ip'", "ip_addr"),
    row("Udp4Config('192.0.2.1', port=0)", ValueError, "Udp4Config: port must be from 1 to 65535, not 0"),
    row("Udp4Config('192.0.2.1', peers='kv@192.0.2.2')", TypeError, "Udp4Config: peers must be a tuple of strings"),
    row("Udp4Config('192.0.2.1', peers=5)", TypeError, "Udp4Config: peers must be a tuple of strings", "not 5"),
    row("DtConfig(addr_size=9)", ValueError, "DtConfig: addr_size must be from 1 to 8 bytes, not 9"),
    row("DtConfig(1, 2, 3, None, 5, 6)", TypeError, "DtConfig: 6 values were given for 5 fields", "by name"),
    row("DhtConfig(k='16')", TypeError, "DhtConfig: k must be a whole number, not '16'"),
    row("EthConfig('eth0', ethertype=5)", ValueError, "EthConfig: ethertype must be from 0x0600 to 0xFFFE"),
    row("NameInfo('kv', 'spillover')", TypeError, "NameInfo: pol_lb", "write LoadBalancePolicy.SPILL"),
    row("NameInfo('kv', 7)", ValueError, "NameInfo: pol_lb must be one of ROUND_ROBIN (0), SPILL (1), not 7"),
    row("NameInfo('kv', server_sec='enc.conf')", TypeError, "NameInfo: server_sec must be of class NameSecPaths"),
    row("NameSecPaths(enc=5)", TypeError, "NameSecPaths: enc must be a string, not 5"),
]

MANAGEMENT = [
    row("irm.create_ipcp('x', 'local')", TypeError, "ipcp_type", "not 'local': write IpcpType.LOCAL"),
    row("irm.create_ipcp('x', 'eth-llc')", TypeError, "ipcp_type", "write IpcpType.ETH_LLC"),
    row("irm.create_ipcp('x', None)", TypeError, "ipcp_type", "choose from LOCAL"),
    row("irm.create_ipcp('x', 99)", ValueError, "ipcp_type must be one of LOCAL (0)", "not 99"),
    row("irm.destroy_ipcp('lab0')", TypeError, "pid is the number that create_ipcp gave, not 'lab0'", "ouroboros.cli"),
    row("irm.destroy_ipcp(-1)", ValueError, "pid must be at least 0, not -1"),
    row("irm.destroy_ipcp(None)", TypeError, "pid is a whole number, not None"),
    row("irm.reg_name('kv', 'lab0')", TypeError, "pid is the number that create_ipcp gave, not 'lab0'"),
    row("irm.reg_name('kv', 1 << 70)", ValueError, "pid must be at most"),
    row("irm.bootstrap_ipcp(1, {})", TypeError, "conf is an IpcpConfig such as", "not {}"),
    row("irm.bootstrap_ipcp(1, 'lab')", TypeError, "conf is an IpcpConfig such as", "not 'lab'"),
    row("irm.bootstrap_ipcp('lab0', IpcpConfig(IpcpType.LOCAL, 'lab'))", TypeError, "pid is the number", "'lab0'"),
    row("irm.impair_ipcp(1, 5)", TypeError, "impair is a str, not 5"),
    row("irm.change_peers(1, 'kv@192.0.2.2')", TypeError, "add is a list of str", "add=['kv@192.0.2.2']"),
    row("irm.change_peers(1, [5])", TypeError, "each of add is a str, not 5"),
    row("irm.change_peers(1, remove=5)", TypeError, "remove is a list of str, not 5"),
    row("irm.connect_ipcp(1, 'data', 'x')", ValueError, "component must be MGMT_COMP", "DT_COMP", "not 'data'"),
    row("irm.bind_program(5, 'kv')", TypeError, "prog is a str, not 5"),
    row("irm.bind_program('no-such-program', 'kv')", BindError, "no program 'no-such-program'", "give the path"),
    row("irm.bind_program('/etc/passwd', 'kv')", BindError, "/etc/passwd is not executable", "chmod +x"),
    row("irm.bind_program('ls', 'kv', argv=['-l'])", BindError, "bind it with auto"),
    row("irm.bind_program('ls', 'kv', BIND_AUTO, '-l')", TypeError, "argv is a list of str", "argv=['-l']"),
    row("irm.bind_program('ls', 'kv', BIND_AUTO, [1])", TypeError, "each of argv is a str, not 1"),
    row("irm.bind_program('ls', 'kv', 'auto')", ValueError, "opts knows only BIND_AUTO (1), not 'auto'"),
    row("irm.unbind_program(5, 'kv')", TypeError, "prog is a str, not 5"),
    row("irm.bind_process('ls', 'kv')", TypeError, "pid is the number of a process, not 'ls'", "bind_program"),
    row("cli.create_name('kv', 'spillover')", TypeError, "pol_lb", "write LoadBalancePolicy.SPILL"),
    row("cli.create_name('kv', info='x')", TypeError, "info is a NameInfo, not 'x'"),
    row("cli.reg_name('kv')", ValueError, "say where: ipcp, ipcps, layer or layers"),
    row("cli.reg_name('kv', ipcps='lab0')", TypeError, "ipcps is a list of str, not 'lab0'", "ipcp='lab0'"),
    row("cli.reg_name('kv', layers='lab')", TypeError, "layers is a list of str, not 'lab'", "layer='lab'"),
    row("cli.reg_name('kv', layer=5)", TypeError, "layer is a str, not 5"),
    row("cli.bootstrap_ipcp('lab0', 'lab')", TypeError, "conf is an IpcpConfig such as", "not 'lab'"),
    row("cli.autoboot('lab0', 'local', 'lab')", TypeError, "ipcp_type", "write IpcpType.LOCAL"),
    row("cli.autoboot('l', IpcpType.LOCAL, 'lab', IpcpConfig(IpcpType.UDP4))", ValueError, "conf is for type udp4"),
    row("cli.list_ipcps(ipcp_type='local')", TypeError, "ipcp_type", "write IpcpType.LOCAL"),
]


class NoInit(ThreadingFlowServer):
    def __init__(self) -> None:
        """Forgets the one of its base."""


def run(call: Coroutine[Any, Any, object]) -> object:
    return asyncio.run(_awaited(call))


async def _awaited(call: Coroutine[Any, Any, object]) -> object:
    return await call


@pytest.fixture(autouse=True)
def no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks a node all the same is told that there is none."""
    monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", "/nowhere")
    monkeypatch.setenv("OUROBOROS_AUTOSTART", "0")


@pytest.mark.parametrize("mistake", [*NAMES, *FLOWS, *SETTINGS, *MANAGEMENT])
def test_mistake_gets_a_sentence_that_names_the_argument(mistake: Row) -> None:
    mistake.check(scope() | {"aio": aio, "cli": cli, "irm": irm, "run": run, "LONG": LONG, "NoInit": NoInit})


def test_server_without_a_name_is_closed_without_a_word() -> None:
    with NoInit() as server:
        assert server.timeout is None


def test_certificate_of_a_peer_is_not_printed() -> None:
    security = FlowSecurity("x25519, aes-256-gcm, sha256", 256, "kv", b"\x30\x82" * 150)
    assert repr(security) == (
        "FlowSecurity(suite='x25519, aes-256-gcm, sha256', strength=256, peer_name='kv', "
        "peer_certificate=<300 bytes of DER>)"
    )
    assert repr(FlowSecurity("s", 128)) == (
        "FlowSecurity(suite='s', strength=128, peer_name=None, peer_certificate=None)"
    )
