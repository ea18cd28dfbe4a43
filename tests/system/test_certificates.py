"""Names that prove who they are, through real nodes and with the files that `ouroboros cert` makes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import pytest
from click.testing import CliRunner
from cryptography import x509
from support import Background, spawn_irmd, until
from udp_nodes import FAR, NEAR, free_port
from warm import Warm

from ouroboros import cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.errors import FlowAuthException, FlowCryptException, IpcpEnrollError
from ouroboros.qos import QoSSpec
from ouroboros.runtime import client
from ouroboros.runtime.embedded import READY
from ouroboros.tools.irm import irm_main
from ouroboros.tools.main import ouroboros

ENCRYPTED = QoSSpec(cypher_s=256)


def cert(directory: Path, *words: str) -> None:
    """Run `ouroboros cert`."""
    result = CliRunner().invoke(ouroboros, ["cert", "-d", str(directory), *words])
    assert result.exit_code == 0, result.output


@dataclass
class Host:
    """An `irmd` with a security directory and a configuration file of its own."""

    directory: Path
    address: str
    warm: Warm
    process: Popen[bytes] | None = None
    config: list[str] = field(default_factory=list)

    @property
    def security(self) -> Path:
        return self.directory / "security"

    @property
    def log(self) -> Path:
        return self.directory / "irmd.log"

    def write(self, path: str, text: str) -> None:
        file = self.security / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @contextmanager
    def use(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OUROBOROS_RUNTIME_DIR", str(self.directory))
            patch.setenv("OUROBOROS_SECURITY_DIR", str(self.security))
            yield

    def start(self) -> bool:
        """Whether it comes up."""
        config = self.directory / "irmd.toml"
        config.write_text("\n".join(self.config))
        ready, child_end = os.pipe()
        with self.use(), self.log.open("ab") as log:
            self.process = spawn_irmd(
                self.directory,
                log,
                "--config",
                str(config),
                "--ready-fd",
                str(child_end),
                keep=child_end,
                warm=self.warm,
            )
        os.close(child_end)
        with os.fdopen(ready, "rb") as pipe:
            up = pipe.read() == READY
        if not up:
            self.process.wait()
        return up

    def until_logged(self, words: str) -> None:
        """Until the node has written so: it may do after the other was answered."""
        until(lambda: words in self.log.read_text())

    def reload(self) -> None:
        assert self.process is not None
        before = self.log.read_text().count("read ")
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.log.read_text().count("read ") > before)

    def stop(self) -> None:
        client.client.disconnect(str(self.directory))
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def accept(self) -> Background[Flow]:
        with self.use():
            return Background.waiting_for_node(lambda: flow_accept(name="clock"))

    def alloc(self, qos: QoSSpec = ENCRYPTED) -> Flow:
        with self.use():
            return flow_alloc("clock", qos)


@pytest.fixture
def hosts(warm_nodes: Warm, runtime_dir: Path) -> Iterator[tuple[Host, Host]]:
    """A client's host and the one where `clock` is, not started yet."""
    port = free_port()
    both = Host(runtime_dir / "near", NEAR, warm_nodes), Host(runtime_dir / "far", FAR, warm_nodes)
    for host, peers, register in zip(both, (f'"clock@{FAR}"', ""), ("", '"clock"'), strict=True):
        host.directory.mkdir(mode=0o700)
        host.config = [
            "[udp4.net0]",
            'bootstrap = "net"',
            f'ip = "{host.address}"',
            f"port = {port}",
            f"peers = [{peers}]",
            f"reg = [{register}]",
        ]
    try:
        yield both
    finally:
        for host in both:
            host.stop()
            print(host.log.read_text() if host.log.exists() else "no log")


@pytest.fixture
def certified(hosts: tuple[Host, Host], tmp_path: Path) -> tuple[Host, Host]:
    """The same with an authority, and certificates of `clock` and of the client `alice`."""
    near, far = hosts
    home = tmp_path / "authority"
    cert(home, "authority")
    cert(home, "server", "clock", "--output", str(far.security))
    cert(home, "client", "alice", "--to", "clock", "--output", str(near.security))
    return hosts


def start(*hosts: Host) -> None:
    for host in hosts:
        assert host.start(), host.log.read_text()


@pytest.mark.slow
def test_both_sides_know_each_other_by_name(certified: tuple[Host, Host]) -> None:
    near, far = certified
    near.write("client/clock/policy.conf", "require=certificate\n")
    far.write("server/clock/policy.conf", "require=certificate\nallow=alice\n")
    start(near, far)
    accepting = far.accept()
    with near.alloc() as flow, accepting.result() as accepted:
        assert flow.security is not None
        assert accepted.security is not None
        assert (flow.security.peer_name, accepted.security.peer_name) == ("clock", "alice")
        certificate = flow.security.peer_certificate
        assert certificate is not None
        assert "CN=clock" in x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
        flow.write(b"who am I?")
        assert accepted.read() == b"who am I?"
    for host in certified:
        assert "PRIVATE KEY" not in host.log.read_text()


@pytest.mark.slow
def test_a_key_that_others_can_read_is_not_used_and_the_owner_hears_what_to_do(certified: tuple[Host, Host]) -> None:
    near, far = certified
    start(near, far)
    accepting = far.accept()
    keys = far.security / "server/clock/key.pem", near.security / "client/clock/key.pem"
    keys[0].chmod(0o644)
    with pytest.raises(FlowAuthException, match="-1009 EAUTH"):
        near.alloc()
    far.until_logged(f"`chmod 600 {keys[0]}`")
    keys[0].chmod(0o600)
    keys[1].chmod(0o640)
    with pytest.raises(FlowAuthException, match=rf"client/clock/key\.pem .*: `chmod 600 {keys[1]}`"):
        near.alloc()
    keys[1].chmod(0o600)
    with near.alloc() as flow, accepting.result():
        assert flow.security is not None


@pytest.mark.slow
def test_who_is_not_on_the_list_is_refused_and_files_count_at_once(certified: tuple[Host, Host]) -> None:
    near, far = certified
    far.write("server/clock/policy.conf", "allow=bob\n")
    start(near, far)
    accepting = far.accept()
    with pytest.raises(FlowAuthException, match="-1009 EAUTH"):
        near.alloc()
    far.until_logged("the client is 'alice'; allowed are 'bob'")
    far.write("server/clock/policy.conf", "allow=bob\nallow=alice\n")
    with near.alloc() as flow, accepting.result() as accepted:
        assert flow.security is not None
        assert accepted.security is not None


@pytest.mark.slow
def test_a_server_that_cannot_prove_its_name_gets_no_client(certified: tuple[Host, Host]) -> None:
    near, far = certified
    near.write("client/clock/policy.conf", "require=certificate\n")
    shutil.rmtree(far.security / "server")
    start(near, far)
    accepting = far.accept()
    with pytest.raises(FlowAuthException, match="the server of 'clock' has no certificate"):
        near.alloc()
    # It thought that it had a client, and was told.
    with accepting.result() as accepted, pytest.raises(ConnectionError):
        accepted.read()


@pytest.mark.slow
def test_an_authority_that_is_installed_later_counts_after_sighup(certified: tuple[Host, Host], tmp_path: Path) -> None:
    near, far = certified
    store = near.security / "cacert"
    store.rename(tmp_path / "kept")
    start(near, far)
    accepting = far.accept()
    with pytest.raises(FlowAuthException, match="its CA store is empty"):
        near.alloc()
    with accepting.result():
        pass
    (tmp_path / "kept").rename(store)
    near.reload()
    accepting = far.accept()
    with near.alloc() as flow, accepting.result():
        assert flow.security is not None
        assert flow.security.peer_name == "clock"


@pytest.mark.slow
def test_a_broken_store_ends_a_node_at_its_start_and_changes_nothing_later(certified: tuple[Host, Host]) -> None:
    near, far = certified
    broken = near.security / "cacert" / "broken.pem"
    broken.write_text("no certificate\n")
    assert not near.start()
    assert "irmd: the CA store cannot be used" in near.log.read_text()
    assert "broken.pem" in near.log.read_text()
    broken.unlink()
    start(near, far)
    broken.write_text("no certificate\n")
    near.reload()
    accepting = far.accept()
    with near.alloc() as flow, accepting.result():
        assert flow.security is not None
        assert flow.security.peer_name == "clock"


@pytest.mark.slow
def test_files_of_a_name_are_those_that_the_command_and_the_configuration_say(
    certified: tuple[Host, Host], tmp_path: Path
) -> None:
    near, far = certified
    (tmp_path / "near.conf").write_text("kex=X25519\ncipher=chacha20-poly1305\n")
    (tmp_path / "far.conf").write_text("kex=X25519\nkdf=sha3-512\n")
    far.config += ["[name.clock]", f'server_enc_file = "{tmp_path / "far.conf"}"']
    start(near, far)
    with near.use():
        assert irm_main(["name", "create", "clock", "cencpath", str(tmp_path / "near.conf")]) == 0
    accepting = far.accept()
    with near.alloc(QoSSpec()) as flow, accepting.result():
        assert flow.security is not None
        assert flow.security.suite == "X25519, chacha20-poly1305, sha3-512"
        assert flow.get_qos().cypher_s == 256
    (tmp_path / "near.conf").unlink()
    with pytest.raises(FlowCryptException, match=r"near\.conf is configured, but there is no such file"):
        near.alloc(QoSSpec())


@pytest.mark.slow
def test_a_layer_that_demands_certificates_admits_nobody_without(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    near, far = hosts
    home = tmp_path / "authority"
    cert(home, "authority")
    cert(home, "server", "campus", "--output", str(far.security))
    cert(home, "client", "bob", "--to", "campus", "--output", str(near.security))
    (near.security / "client").rename(near.security / "aside")
    near.config = [line.replace("clock@", "campus@") for line in near.config]
    far.config = [line for line in far.config if not line.startswith("reg ")]
    far.config += ["[unicast.a]", 'bootstrap = "campus"', "autobind = true", 'enroll = ["alice"]']
    start(near, far)
    with near.use():
        with pytest.raises(
            IpcpEnrollError, match="refused: \"layer 'campus' takes only members that prove who they are"
        ):
            cli.enroll_ipcp("b", "campus", ipcp_type=cli.IpcpType.UNICAST)
        assert cli.list_ipcps("b") == []
    far.until_logged("enrollment in layer 'campus': b may not enroll: layer 'campus' takes only members")
    (near.security / "aside").rename(near.security / "client")
    with near.use(), pytest.raises(IpcpEnrollError, match="'bob' is not one of those who may be members"):
        cli.enroll_ipcp("b", "campus", ipcp_type=cli.IpcpType.UNICAST)
    shutil.rmtree(near.security / "client")
    cert(home, "client", "alice", "--to", "campus", "--output", str(near.security))
    with near.use():
        cli.enroll_ipcp("b", "campus", autobind=True, ipcp_type=cli.IpcpType.UNICAST)
        member = cli.find_ipcp("b")
        assert member.enroll == ("alice",)
        assert {(each.component, each.state) for each in member.connections} == {
            ("Management", "up"),
            ("Data Transfer", "up"),
        }
        assert '[unicast.b]\nenrol = "campus"\nautobind = true\n' in irm.save_configuration()
    with far.use():
        assert '[unicast.a]\nbootstrap = "campus"\nenroll = ["alice"]\nautobind = true\n' in irm.save_configuration()
    # A member knows the rule as well.
    with near.use():
        pid = irm.create_ipcp("c", cli.IpcpType.UNICAST)
        with pytest.raises(IpcpEnrollError, match="'c' is not one of those who may be members of layer 'campus'"):
            irm.enroll_ipcp(pid, "b")
        irm.destroy_ipcp(pid)
