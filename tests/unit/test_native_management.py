"""Managing the C prototype by functions that say little and check nothing."""

from __future__ import annotations

import os
from typing import Any

import pytest
from native_fake import FakeIrm, fake_library

from ouroboros.errors import (
    BindError,
    IpcpBootstrapError,
    IpcpCreateError,
    NameError,
    NodeError,
    UnsupportedError,
)
from ouroboros.ipcp_config import (
    DhtConfig,
    DirConfig,
    DtConfig,
    EthConfig,
    IpcpConfig,
    IpcpType,
    LinkStateConfig,
    LinkStatePolicy,
    RoutingConfig,
    Udp4Config,
    Udp6Config,
    UnicastConfig,
)
from ouroboros.native.library import Library
from ouroboros.native.management import Management
from ouroboros.qos import QOS_DATA
from ouroboros.wire import control as messages

MGMT, DT = "Management", "Data Transfer"


class Daemon:
    """A management of the fake daemon."""

    def __init__(self, version: tuple[int, int]) -> None:
        self.library: Library
        self.library, _ = fake_library(version)
        self.irm: FakeIrm = self.library.irm
        self.management = Management(self.library)
        self.request = self.management.request

    def ipcp(self, kind: str, name: str = "x") -> int:
        pid: int = self.request(messages.CreateIpcp(name, kind))
        return pid


@pytest.fixture(params=[(0, 21), (0, 22), (0, 23)], ids=str)
def any_daemon(request: pytest.FixtureRequest) -> Daemon:
    return Daemon(request.param)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon((0, 23))


class TestIpcps:
    def test_the_pid_of_a_new_one_is_found(self, any_daemon: Daemon) -> None:
        assert any_daemon.ipcp("local", "one") == 1000
        assert any_daemon.ipcp("unicast", "two") == 1001
        entries = any_daemon.request(messages.ListIpcps())
        assert [(entry.id, entry.name, entry.type, entry.layer, entry.state) for entry in entries] == [
            (1000, "one", "local", "", "boot"),
            (1001, "two", "unicast", "", "boot"),
        ]

    def test_names_of_255_bytes_have_no_end_and_are_read(self, daemon: Daemon) -> None:
        daemon.irm.ipcps[7] = (0, b"n" * 255, b"l" * 255)
        (entry,) = daemon.request(messages.ListIpcps())
        assert (entry.name, entry.layer) == ("n" * 255, "l" * 255)

    def test_a_name_that_is_taken_is_refused(self, daemon: Daemon) -> None:
        daemon.ipcp("local", "one")
        with pytest.raises(IpcpCreateError, match="'one' already"):
            daemon.ipcp("local", "one")

    def test_only_ipc_processes_are_destroyed(self, daemon: Daemon) -> None:
        """The daemon signals whatever pid it gets."""
        with pytest.raises(IpcpCreateError, match=f"no IPC process {os.getpid()}"):
            daemon.request(messages.DestroyIpcp(os.getpid()))
        daemon.request(messages.DestroyIpcp(daemon.ipcp("local")))
        assert (daemon.irm.ipcps, daemon.irm.accidents) == ({}, [])

    def test_bootstrapped_it_is_in_its_layer_and_not_again(self, any_daemon: Daemon) -> None:
        pid = any_daemon.ipcp("local")
        any_daemon.management.bootstrap_ipcp(pid, IpcpConfig(IpcpType.LOCAL, "lab"))
        (entry,) = any_daemon.request(messages.ListIpcps())
        assert (entry.layer, entry.state) == ("lab", "operational")
        with pytest.raises(IpcpBootstrapError, match="in layer 'lab' already"):
            any_daemon.management.bootstrap_ipcp(pid, IpcpConfig(IpcpType.LOCAL, "other"))

    def test_a_configuration_of_another_type_is_refused(self, daemon: Daemon) -> None:
        with pytest.raises(IpcpBootstrapError, match="of type local"):
            daemon.management.bootstrap_ipcp(daemon.ipcp("local"), IpcpConfig(IpcpType.BROADCAST, "lab"))

    def configured(self, daemon: Daemon, conf: IpcpConfig) -> Any:
        daemon.management.bootstrap_ipcp(daemon.ipcp(conf.ipcp_type.word), conf)
        return daemon.irm.configurations[-1]

    def test_settings_of_unicast_reach_their_places(self, any_daemon: Daemon) -> None:
        states = LinkStateConfig(LinkStatePolicy.ECMP, 1, 2, 3)
        unicast = UnicastConfig(DtConfig(2, 3, 4, RoutingConfig(ls=states)), DirConfig(dht=DhtConfig(5, 6, 70, 80, 90)))
        config = self.configured(any_daemon, IpcpConfig(IpcpType.UNICAST, "u", unicast=unicast)).unicast
        assert (config.addr_size, config.eid_size, config.max_ttl, config.cong_avoid) == (2, 3, 4, 1)
        if any_daemon.library.version == (0, 21):
            assert config.routing == LinkStatePolicy.ECMP
            return
        routing = config.routing.ls
        assert (routing.pol, routing.t_recalc, routing.t_update, routing.t_timeo) == (2, 1, 2, 3)
        dht = config.dir.dht
        assert (dht.alpha, dht.k, dht.t_expire, dht.t_refresh, dht.t_replicate, dht.peer) == (5, 6, 70, 80, 90, 0)

    @pytest.mark.parametrize("unicast", [UnicastConfig(enroll=("bob",)), UnicastConfig(DtConfig(mtu=1400))])
    def test_settings_of_unicast_that_it_does_not_know_are_refused(
        self, daemon: Daemon, unicast: UnicastConfig
    ) -> None:
        with pytest.raises(UnsupportedError, match=r"leave (enroll|mtu) out"):
            self.configured(daemon, IpcpConfig(IpcpType.UNICAST, "u", unicast=unicast))

    def test_addresses_are_in_the_order_of_the_network(self, any_daemon: Daemon) -> None:
        conf = IpcpConfig(IpcpType.UDP4, "u", udp4=Udp4Config("192.0.2.1", "192.0.2.2", 3436))
        config = self.configured(any_daemon, conf)
        assert bytes(any_daemon.library.ffi.buffer(config))[264:272] == bytes([192, 0, 2, 1, 192, 0, 2, 2])
        assert config.udp4.port == 3436

    def test_ipv6_is_there_from_0_22(self, any_daemon: Daemon) -> None:
        conf = IpcpConfig(IpcpType.UDP6, "u", udp6=Udp6Config("2001:db8::1"))
        if any_daemon.library.version == (0, 21):
            with pytest.raises(UnsupportedError, match="udp6"):
                self.configured(any_daemon, conf)
        else:
            config = self.configured(any_daemon, conf)
            assert bytes(config.udp6.ip_addr)[:4] == bytes([0x20, 1, 0x0D, 0xB8])

    def test_a_network_device_is_given(self, any_daemon: Daemon) -> None:
        conf = IpcpConfig(IpcpType.ETH_DIX, "e", eth=EthConfig("eth0", 0xA001))
        config = self.configured(any_daemon, conf)
        assert (any_daemon.library.ffi.string(config.eth.dev), config.eth.ethertype) == (b"eth0", 0xA001)

    @pytest.mark.parametrize(
        "conf",
        [
            IpcpConfig(IpcpType.LOCAL, "lab", impair="loss=1%"),
            IpcpConfig(IpcpType.UDP4, "lab", udp4=Udp4Config(peers=("x@192.0.2.1",))),
        ],
    )
    def test_what_only_our_node_can_do_is_refused(self, daemon: Daemon, conf: IpcpConfig) -> None:
        with pytest.raises(UnsupportedError):
            self.configured(daemon, conf)

    def test_enroll_and_connect_are_done(self, any_daemon: Daemon) -> None:
        pid, management = any_daemon.ipcp("unicast"), any_daemon.management
        management.enroll_ipcp(pid, "campus")
        management.connect_ipcp(pid, DT, "b", QOS_DATA)
        management.connect_ipcp(pid, MGMT, "b", None)
        management.disconnect_ipcp(pid, DT, "b")
        assert any_daemon.irm.calls == [
            ("enroll", (pid, b"campus")),
            ("connect", (pid, b"b", b"Data Transfer", (0, 0, 1))),
            # None is raw, not a spec of noughts.
            ("connect", (pid, b"b", b"Management", (1_000_000, 1_000_000_000, 0))),
            ("disconnect", (pid, b"b", b"Data Transfer")),
        ]


class TestNames:
    def test_created_listed_destroyed(self, any_daemon: Daemon) -> None:
        any_daemon.request(messages.CreateName("clock", "spillover"))
        any_daemon.request(messages.CreateName("other", "round-robin"))
        entries = any_daemon.request(messages.ListNames())
        assert [(entry.name, entry.policy) for entry in entries] == [("clock", "spillover"), ("other", "round-robin")]
        any_daemon.request(messages.DestroyName("clock"))
        with pytest.raises(NameError, match=r"error -1"):
            any_daemon.request(messages.DestroyName("clock"))

    def test_files_are_handed_on_but_for_those_that_get_lost(self, daemon: Daemon) -> None:
        security = messages.NameSecurity(server_certificate="/crt.pem")
        daemon.request(messages.CreateName("clock", "spillover", security))
        assert daemon.irm.calls == [("create_name", b"/crt.pem")]
        with pytest.raises(UnsupportedError, match=r"enc\.conf"):
            daemon.request(messages.CreateName("x", "spillover", messages.NameSecurity("/enc.conf")))

    @pytest.mark.parametrize("name", ["", "n" * 256, "a\0b"])
    def test_names_that_cannot_be_are_refused(self, daemon: Daemon, name: str) -> None:
        with pytest.raises(NameError):
            daemon.request(messages.CreateName(name, "spillover"))

    def test_registered_in_the_layer_of_an_ipc_process(self, daemon: Daemon) -> None:
        pid = daemon.ipcp("local")
        with pytest.raises(NameError, match="create it first"):
            daemon.request(messages.RegisterName("clock", pid))
        daemon.request(messages.CreateName("clock", "spillover"))
        daemon.request(messages.RegisterName("clock", pid))
        assert daemon.irm.registered == {(b"clock", pid)}
        daemon.request(messages.UnregisterName("clock", pid))
        assert daemon.irm.registered == set()
        with pytest.raises(NameError, match="no IPC process 5"):
            daemon.request(messages.RegisterName("clock", 5))
        with pytest.raises(UnsupportedError, match="broadcast"):
            daemon.request(messages.RegisterName("clock", daemon.ipcp("broadcast", "b")))


class TestBindings:
    def test_a_program_is_bound_by_its_path_with_its_arguments(self, daemon: Daemon) -> None:
        daemon.request(messages.BindProgram("/bin/clock", "clock", True, ["--utc", "-v"]))
        daemon.request(messages.BindProgram("/bin/clock", "other", False, []))
        assert daemon.irm.programs == [
            (b"/bin/clock", b"clock", 1, [b"--utc", b"-v"]),
            (b"/bin/clock", b"other", 0, []),
        ]
        assert daemon.irm.accidents == []
        daemon.request(messages.UnbindProgram("clock", "clock"))

    def test_a_process_is_bound_and_unbound(self, daemon: Daemon) -> None:
        daemon.request(messages.BindProcess(5, "clock"))
        daemon.request(messages.UnbindProcess(5, "clock"))
        with pytest.raises(BindError):
            daemon.request(messages.UnbindProcess(5, "clock"))


def test_a_daemon_that_is_gone_is_a_node_error(daemon: Daemon) -> None:
    daemon.irm.refusal = -1002
    with pytest.raises(NodeError, match="does not answer"):
        daemon.request(messages.ListIpcps())


def test_the_numbers_of_two_errors_differ_in_0_21(daemon: Daemon) -> None:
    old, new = Daemon((0, 21)).library, daemon.library
    assert [old.number(-1007), old.number(-1008)] == [new.number(-1008), new.number(-1007)]


@pytest.mark.parametrize("request_", [messages.ListFlows(), messages.NodeInfo(), messages.ImpairIpcp(1, "none")])
def test_what_the_daemon_cannot_tell_is_unsupported(daemon: Daemon, request_: messages.Request) -> None:
    with pytest.raises(UnsupportedError, match="C Ouroboros"):
        daemon.request(request_)
