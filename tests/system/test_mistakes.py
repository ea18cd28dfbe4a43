"""Mistakes that show on a flow, at a node, in a command, a file, a directory or a limit: each gets a sentence that says what
is wrong and what to do. Those that need no node are in `tests/unit`."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mistakes import Row, explains, row, scope
from support import Background, NodeProcess

from ouroboros import cli, irm
from ouroboros.dev import Flow, QoSSpec, flow_accept, flow_alloc, flow_join
from ouroboros.errors import (
    BindError,
    FlowAllocatedException,
    FlowAuthException,
    FlowCryptException,
    FlowEventError,
    FlowNameException,
    FlowRefusedException,
    FlowSizeException,
    IpcpBootstrapError,
    IpcpCreateError,
    IpcpEnrollError,
    NameError,
    NodeLimitError,
)
from ouroboros.event import FEventQueue, FlowSet
from ouroboros.irm import IpcpConfig, IpcpType, create_ipcp
from ouroboros.testing.node import ProcessNode
from ouroboros.tools.irm import irm_main
from ouroboros.tools.irmd import irmd
from ouroboros.tools.main import ouroboros
from ouroboros.tools.obc import obc
from ouroboros.tools.ocbr import ocbr
from ouroboros.tools.oecho import oecho
from ouroboros.tools.operf import operf
from ouroboros.tools.oping import oping

COMMANDS = {
    "irmd": irmd,
    "obc": obc,
    "ocbr": ocbr,
    "oecho": oecho,
    "operf": operf,
    "oping": oping,
    "ouroboros": ouroboros,
}

FLOWS = [
    row("f.alloc('kv')", FlowAllocatedException, "holds a flow already", "dealloc()", "new Flow"),
    row("f.write('text')", TypeError, "a packet is bytes, not str", "writeline()"),
    row("f.write(b'x', '1')", TypeError, "count is a whole number or None, not '1'"),
    row("f.write(b'x', 1.5)", TypeError, "count is a whole number or None, not 1.5"),
    row("f.write(b'x', -1)", ValueError, "count must not be negative"),
    row("f.write(bytes(2**20 + 1))", FlowSizeException, "1048577 bytes is too long", "at most 1048576"),
    row("f.writeline(b'x')", TypeError, "a line is a str, not b'x'", "write()"),
    row("f.writeline(5)", TypeError, "a line is a str, not 5"),
    row("f.read('5')", TypeError, "count is a whole number or None, not '5'"),
    row("f.read(1.5)", TypeError, "count is a whole number or None, not 1.5"),
    row("f.read(-1)", ValueError, "count must not be negative"),
    row("f.readline('1')", TypeError, "count is a whole number or None, not '1'"),
    row("f.read_many(-1)", ValueError, "limit must be at least 1 packet, not -1"),
    row("f.read_many(0)", ValueError, "limit must be at least 1 packet"),
    row("f.read_many('1')", TypeError, "limit is a whole number of packets, not '1'"),
    row("f.write_many('ab')", TypeError, "packets is a list of buffers, not 'ab'", "write()"),
    row("f.write_many(b'ab')", TypeError, "packets is a list of buffers, not b'ab'", "write()"),
    row("f.write_many(5)", TypeError, "packets is a list of buffers, not 5"),
    row("f.write_many(None)", TypeError, "packets is a list of buffers, not None"),
    row("f.write_many(['a'])", TypeError, "a packet is bytes, not str"),
    row("f.set_flags('NonBlocking')", TypeError, "flags are those of FlowProperties", "FlowProperties.NonBlocking"),
    row("f.set_flags(None)", TypeError, "flags are those of FlowProperties", "not None"),
    row("f.set_flags(1 << 30)", ValueError, "none of FlowProperties", "NonBlockingRead"),
    row("f.set_flags(-1)", ValueError, "none of FlowProperties"),
    row("f.set_flags(FlowProperties.WriteOnly | FlowProperties.ReadWrite)", ValueError, "exclude each other"),
    row("f.set_frct_flags('x')", TypeError, "FRCT_RESCNTL", "not 'x'"),
    row("f.set_frct_flags(64)", ValueError, "bits other than RETRANSMIT, RESCNTL and LINGER"),
    row("f.set_rcv_timeout('1')", TypeError, "number", "not '1'"),
    row("f.makefile('x')", ValueError, 'mode must be "r", "w" or "rw"', "'x'"),
    row("f.makefile(5)", TypeError, "mode is a str", "not 5"),
    row("f.makefile('r', 'utf-8')", TypeError, "buffering is a whole number of bytes or None, not 'utf-8'"),
    row("f.makefile('rb', encoding='utf-8')", ValueError, "binary file takes no encoding", "leave them"),
    row("f.makefile('r', 0)", ValueError, "text needs a buffer", "leave buffering out"),
    row("fs.add(3)", TypeError, "a member of a FlowSet is a Flow of ouroboros.dev, not 3"),
    row("fs.add(f)", FlowEventError, "is in this set already", "remove() it there first"),
    row("fs.remove('kv')", TypeError, "a member of a FlowSet is a Flow of ouroboros.dev, not 'kv'"),
    row("fs.wait(None)", TypeError, "fq is an FEventQueue, not None", "FEventQueue()"),
    row("fs.wait(1.0)", TypeError, "fq is an FEventQueue, not 1.0"),
]

MANAGEMENT = [
    row("flow_alloc('nobody')", FlowNameException, "nobody offers 'nobody'", "start the program", "irm name create"),
    row("flow_join('nobody')", FlowNameException, "no broadcast layer 'nobody'", "irm ipcp bootstrap type broadcast"),
    row("irm.destroy_name('nobody')", NameError, "there is no name 'nobody'", "irm name list"),
    row("irm.reg_name('nobody', lab0)", NameError, "there is no name 'nobody'"),
    row("irm.reg_name('kv', 5)", NameError, "there is no IPC process 5", "irm ipcp list"),
    row("irm.reg_name('kv', lab0)", NameError, "'lab0' is in no layer yet: bootstrap it first"),
    row("irm.bind_process(99999999, 'kv')", BindError, "no process 99999999 uses this node", "bind its program"),
    row("irm.unbind_program('ls', 'kv')", BindError, "program 'ls' is not bound to 'kv'"),
    row("irm.create_ipcp('lab0', IpcpType.LOCAL)", IpcpCreateError, "'lab0' already", "another name"),
    row("irm.destroy_ipcp(5)", IpcpCreateError, "there is no IPC process 5", "irm ipcp list"),
    row("irm.bootstrap_ipcp(lab0, IpcpConfig(IpcpType.LOCAL))", IpcpBootstrapError, "no layer name: set layer_name"),
    row("irm.bootstrap_ipcp(lab0, IpcpConfig(IpcpType.BROADCAST, 'x'))", IpcpBootstrapError, "is of type local"),
    row(
        "irm.bootstrap_ipcp(lab0, IpcpConfig(IpcpType.LOCAL, 'x', impair='lose=1'))",
        IpcpBootstrapError,
        "unknown key 'lose'",
        "choose from loss",
    ),
    row("irm.impair_ipcp(lab0, 'loss=200%')", IpcpBootstrapError, "loss must be from 0% to 100%, not 200%"),
    row("irm.change_peers(lab0, ['kv@192.0.2.2'])", IpcpBootstrapError, "has no peers", "those over UDP have"),
    row("irm.enroll_ipcp(lab0, 'x')", IpcpEnrollError, "cannot enroll", "unicast and broadcast"),
    row("cli.find_ipcp('nosuch')", cli.NoMatchError, "no IPC process 'nosuch'", "irm ipcp list"),
    row("cli.reg_name('kv', layer='nosuch')", cli.NoMatchError, "no layer called 'nosuch'", "irm ipcp list"),
    row("cli.autoboot('l1', IpcpType.LOCAL, '')", IpcpBootstrapError, "no layer name"),
]


def line(text: str, code: int, *words: str) -> Any:
    return pytest.param(text, code, words, id=text)


LINES = [
    line("oping kv", 2, "'kv' belongs to no option: did you mean -n kv?"),
    line("operf kv", 2, "did you mean -n kv?"),
    line("ocbr kv", 2, "did you mean -n kv?"),
    line("obc hello", 2, "'hello' belongs to no option", "-n", "-m"),
    line("oecho kv", 2, "oecho only", "oping -n kv"),
    line("irmd kv", 2, "'kv' belongs to no option", "irm command"),
    line("oping", 2, "no server given: add -n NAME, or -l"),
    line("operf", 2, "no server given: add -n NAME, or -l"),
    line("ocbr", 2, "no server given: add -n NAME, or -l"),
    line("obc", 2, "no layer given: add -n LAYER"),
    line("obc -n nobody", 2, "add -m TEXT"),
    line("oping -n kv -q gold", 2, "'gold' is not one of 'raw'"),
    line("oping -n kv -i fast", 2, "'fast' is no duration", "such as 250ms"),
    line("operf -n kv -r fast", 2, "'fast' is no rate", "such as 10M"),
    line("oping -n ", 2, "the name is empty"),
    line("oping -n nobody", 2, "nobody offers 'nobody'", "irm name create"),
    line("operf -n nobody", 1, "nobody offers 'nobody'"),
    line("obc -n nobody -m x", 1, "no broadcast layer 'nobody'", "irm ipcp bootstrap type broadcast"),
    line("irm", 2, "begin with ipcp, layer"),
    line("irm foo", 2, "no such object: foo", "ipcp, layer, bind"),
    line("irm name frob", 2, "no verb frob", "create, destroy"),
    line("irm name create", 2, "needs a <name>"),
    line("irm name create ", 1, "the name is empty"),
    line("irm name create kv lb fair", 2, "key 'lb' cannot be fair", "round-robin or spillover"),
    line("irm name create kv sencpath /no/such", 1, "there is no file '/no/such'"),
    line("irm name destroy nobody", 1, "there is no name 'nobody'", "irm name list"),
    line("irm name register kv", 2, "say where: ipcp NAME, layer NAME"),
    line("irm name register kv layer nosuch", 1, "no layer called 'nosuch'", "irm ipcp list"),
    line("irm ipcp create type foo name x", 2, "key 'type' cannot be foo", "unicast, broadcast"),
    line("irm ipcp create name x", 2, "key 'type' is missing"),
    line("irm ipcp bootstrap name x layer l", 1, "no IPC process 'x'", "add 'type TYPE'"),
    line("irm ipcp bootstrap type udp4 name u layer l", 2, "key 'ip' is missing"),
    line("irm ipcp bootstrap type udp4 name u layer l ip nohost", 2, "key 'ip' must be an IP address, not nohost"),
    line("irm ipcp bootstrap type udp4 name u layer l ip 192.0.2.9", 1, "192.0.2.9 port 3435", "address of this host"),
    line("irm ipcp bootstrap type local name l layer l hash MD5", 2, "key 'hash' cannot be MD5", "SHA3_256"),
    line("irm ipcp destroy name nosuch", 1, "no IPC process 'nosuch'", "irm ipcp list"),
    line("irm bind program no-such name kv", 1, "no program 'no-such'", "give the path"),
    line("irm bind process x name kv", 2, "'x' is no process id: give a number"),
    line("irmd --check /no/such", 1, "/no/such: cannot be read: No such file"),
    line("ouroboros cdev --prefix /proc", 1, "cannot install into /proc", "another --prefix"),
    line("ouroboros cert server kv", 1, "no authority in", "ouroboros cert authority"),
    line("ouroboros cert client alice", 2, "--to"),
]

TABLES = [
    line("[name.kv]\nlb =\n", 1, "no TOML", "line 2"),
    line("[name.kv]\nfoo = 1", 1, "[name.kv] foo: unknown key", "known are prog"),
    line("[name.'']", 1, '[name.""] the name is empty'),
    line("[nam.kv]", 1, "[nam] unknown table", "[name.<name>]"),
    line("[name.kv]\nlb = 'fair'", 1, "[name.kv] lb: must be", "round-robin"),
    line("[name.kv]\nprog = 'x'", 1, "[name.kv] prog: must be an array of strings"),
    line("[udp4.u]\nbootstrap = 'n'", 1, "[udp4.u] ip: give the address of this host"),
    line("[local.l]\nbootstrap = 5", 1, "[local.l] bootstrap: must be the name of a layer, not 5"),
    line(
        "[unicast.u]\nbootstrap = 'n'\naddr_size = 2",
        1,
        "[unicast.u] addr: flat addresses have 4 bytes",
        "leave it out",
    ),
    line("[local.l]\nreg = ['kv']", 1, "[local.l] reg: names are registered in a layer; add bootstrap"),
    line("[local.l]\nbootstrap = 'l'\nimpair = 'los=1'", 1, "[local.l] impair: unknown key 'los'", "choose from loss"),
]

SECURITY = [
    pytest.param("enc.conf", "cypher=aes", ("line 1", "'cypher=aes' is none of kex=...", "cipher=..."), id="key"),
    pytest.param("enc.conf", "cipher=rot13", ("line 1", "cipher=rot13 is not known", "aes-256-gcm"), id="cipher"),
    pytest.param("enc.conf", "kex=", ("line 1", "nothing behind kex="), id="value"),
    pytest.param("enc.conf", "# x\n\xff", ("line 2", "not UTF-8"), id="bytes"),
    pytest.param("enc.conf", None, ("no regular file",), id="directory"),
    pytest.param("policy.conf", "require=all", ("line 1", "require=all is not known", "certificate"), id="policy"),
    pytest.param("crt.pem", "x", ("but no", "key.pem"), id="half"),
]


@pytest.fixture(scope="module")
def house() -> Iterator[ProcessNode]:
    """The node of all these mistakes: none of them changes it."""
    node = ProcessNode(Path(__file__).parent)
    with node.use():
        create_ipcp("lab0", IpcpType.LOCAL)
        cli.create_name("kv")
    yield node
    node.stop()
    node.clean_up()


@pytest.fixture
def there(house: ProcessNode, monkeypatch: pytest.MonkeyPatch) -> ProcessNode:
    house.select(monkeypatch)
    return house


@pytest.fixture(scope="class")
def flow(house: ProcessNode) -> Iterator[Flow]:
    """A flow in order, in both directions."""
    with house.use():
        accepting = Background.waiting_for_node(lambda: flow_accept(name="kv"))
        with flow_alloc("kv", QoSSpec(loss=0), timeo=20) as near, accepting.result():
            # No mistake waits; one that did would show by its kind.
            near.set_rcv_timeout(0)
            yield near


class TestFlow:
    @pytest.mark.parametrize("mistake", FLOWS)
    def test_flow_says_what_is_wrong(self, there: ProcessNode, flow: Flow, mistake: Row) -> None:
        with FlowSet([flow]) as flows:
            mistake.check(scope() | {"f": flow, "fs": flows, "fq": FEventQueue()})


@pytest.mark.parametrize("mistake", MANAGEMENT)
def test_node_says_what_is_wrong(there: ProcessNode, mistake: Row) -> None:
    mistake.check(scope() | {"irm": irm, "cli": cli, "lab0": cli.find_ipcp("lab0").pid})


@pytest.mark.parametrize(("text", "code", "words"), LINES)
def test_command_says_what_is_wrong(
    there: ProcessNode,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    code: int,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setenv("OUROBOROS_SECURITY_DIR", str(there.security))
    command, *rest = text.split(" ")
    if command == "irm":
        assert irm_main(rest) == code
        said = capsys.readouterr().err
    else:
        result = CliRunner().invoke(COMMANDS[command], rest)
        assert result.exit_code == code
        said = result.stderr
    explains(" ".join(said.split("\n")).strip(), *words)


@pytest.mark.parametrize(("text", "code", "words"), TABLES)
def test_configuration_file_says_what_is_wrong(tmp_path: Path, text: str, code: int, words: tuple[str, ...]) -> None:
    path = tmp_path / "irmd.toml"
    path.write_text(text)
    result = CliRunner().invoke(irmd, ["--check", str(path)])
    assert result.exit_code == code
    explains(result.stderr.strip(), str(path), *words)


@pytest.mark.parametrize(("name", "content", "words"), SECURITY)
def test_security_file_is_named_by_its_whole_path(
    there: ProcessNode, name: str, content: str | None, words: tuple[str, ...]
) -> None:
    folder = there.security / "client" / "wrong"
    folder.mkdir(parents=True)
    try:
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content.encode("latin-1"))
        accepting = Background.waiting_for_node(lambda: flow_accept(name="wrong"))
        with pytest.raises(FlowRefusedException) as caught:
            flow_alloc("wrong")
    finally:
        shutil.rmtree(folder)
    assert caught.type in (FlowCryptException, FlowAuthException)
    explains(str(caught.value), f"{folder}/{name}", *words)
    # Without the file it is a flow as any other.
    with flow_alloc("wrong"), accepting.result():
        pass


# --- directories and limits

CALL = "from ouroboros.dev import flow_alloc; flow_alloc('kv')"


def words_of(*command: str, before: Callable[[], None] | None = None) -> str:
    """The last line on standard error of a command that fails."""
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=before)
    assert ended.returncode == 1
    return ended.stderr.strip().splitlines()[-1]


def limit(kind: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (most, most))


PROGRAM = (sys.executable, "-c", CALL)
NODE = (sys.executable, "-m", "ouroboros.tools.irmd")


@pytest.mark.slow
@pytest.mark.parametrize("command", [PROGRAM, NODE], ids=["program", "irmd"])
class TestRuntimeDirectoryAndLimits:
    def test_file_size(self, runtime_dir: Path, command: tuple[str, ...]) -> None:
        said = words_of(*command, before=limit(resource.RLIMIT_FSIZE, 0))
        explains(said, str(runtime_dir), "may write no files of that size", "`ulimit -f`")

    @pytest.mark.parametrize("most", [7, 8, 12, 31])
    def test_descriptors(self, runtime_dir: Path, command: tuple[str, ...], most: int) -> None:
        explains(words_of(*command, before=limit(resource.RLIMIT_NOFILE, most)), "descriptors", "`ulimit -n`")

    def test_no_directory(self, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
        path = runtime_dir / "file"
        path.touch()
        monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", str(path))
        explains(words_of(*command), str(path), "is no directory", "OUROBOROS_RUNTIME_DIR")

    def test_path_that_is_too_long(
        self, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
    ) -> None:
        monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", str(runtime_dir / ("x" * 100)))
        explains(words_of(*command), "too long a path for a socket", "OUROBOROS_RUNTIME_DIR")

    @pytest.mark.parametrize(
        ("options", "words"),
        [("ro", "read-only"), ("size=4k", "no space is left"), ("nr_inodes=1", "no space is left")],
    )
    def test_file_system(self, runtime_dir: Path, command: tuple[str, ...], options: str, words: str) -> None:
        script = (
            'mount -t tmpfs -o "$1,mode=700" none "$2" || exit 77;'
            '[ "$1" != size=4k ] || head -c 4096 /dev/zero > "$2/full"; shift 2; exec "$@"'
        )
        within = ("unshare", "-r", "-m", "sh", "-c", script, "sh", options, str(runtime_dir))
        if subprocess.run([*within, "true"], capture_output=True).returncode:
            pytest.skip("no mounts here")
        explains(words_of(*within, *command), str(runtime_dir), words, "OUROBOROS_RUNTIME_DIR")


@pytest.mark.slow
def test_stack_that_does_not_exist(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUROBOROS_BACKEND", "c")
    explains(words_of(*PROGRAM), "OUROBOROS_BACKEND must be node or native, not 'c'")


@pytest.mark.slow
def test_flow_that_is_larger_than_a_file_may_be(make_node: Callable[..., NodeProcess]) -> None:
    make_node(within=("sh", "-c", 'ulimit -f 100; exec "$@"', "sh"))
    irm.bootstrap_ipcp(irm.create_ipcp("b", IpcpType.BROADCAST), IpcpConfig(IpcpType.BROADCAST, "chat"))
    with pytest.raises(NodeLimitError) as caught:
        flow_join("chat")
    explains(str(caught.value), "could not make the flow", "`ulimit -f`")
