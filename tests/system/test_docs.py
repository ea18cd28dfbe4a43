"""Every example of the documentation runs, as shown.

Each fenced block of README.md and `docs` is taken by a test, which says by `shows` which ones it runs, or is listed below
with the reason why it cannot be run; then it is at least read. A block that is in neither place fails a test, so that a page
does not get one that nobody has tried.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
from c_support import cannot_build
from support import until
from unicast_nodes import at

from ouroboros import irm
from ouroboros.testing.link import NamespacePair

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "protocol").glob("*.md")])
#: The build fills it from docstrings, as it says.
GENERATED = ROOT / "docs" / "api.md"

pytestmark = pytest.mark.slow

_T = TypeVar("_T", bound=Callable[..., object])


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.M):
        yield Block(page.name, text[: match.start()].count("\n") + 1, match[1], match[2])


BLOCKS = [block for page in PAGES if page != GENERATED for block in blocks_of(page)]

#: Page, a piece of the block, and why it is not run.
NOT_RUN = [
    ("README.md", "pip install .", "builds for minutes"),
    ("README.md", "layer net", "two machines; tests/system/test_udp.py has what it does"),
    ("start.md", "git clone", "needs a network, and builds for minutes"),
    ("node.md", "systemctl --user", "needs systemd"),
    ("commands.md", "irm completion", "a line for each of three shells; tests/unit/test_irm_grammar.py runs them"),
    ("udp.md", "/etc/hosts", "changes the host"),
    ("ethernet.md", "oping --listen", "needs root and a device; tests/system/test_ethernet.py has what it does"),
    ("ethernet.md", "oping -n oping", "as before"),
    ("ethernet.md", "name b any", "as before"),
    ("ethernet.md", "any = true", "tests/unit/test_configuration.py has it"),
    ("ethernet.md", "unshare", "opens a shell"),
    ("ethernet.md", "ouroboros setup", "changes the host; tests/system/test_ethernet.py runs what it says"),
    ("ethernet.md", "name u layer net ip", "needs root and two hosts; tests/system/test_ethernet.py has what it does"),
    (
        "capture.md",
        "ouroboros capture net",
        "needs Wireshark, and has no end; tests/system/test_capture.py has what it does",
    ),
    ("capture.md", "layer campus:", "a line of a capture"),
    ("capture.md", "packet.comment", "has no end; tests/system/test_capture.py has what it does"),
    ("broadcast.md", "name a layer hall", "two machines; tests/system/test_broadcast_hosts.py has what it does"),
    ("broadcast.md", "peer hall@", "as before"),
    ("broadcast.md", "layer hall dst b", "as before"),
    ("broadcast.md", "timeo=5", "as before"),
    ("broadcast.md", "connect name b dst c", "as before"),
    ("lab.md", "from mininet.net", "another program"),
    ("lab.md", "OUROBOROS_REFERENCE=", "needs the prototype: tests/interop has it"),
    ("lab.md", "containerlab deploy", "another program"),
    ("lab.md", "ShimEthDIF", "another program"),
]
#: Ends a node in the background, and waits for that.
END = "node=$(cat $OUROBOROS_RUNTIME_DIR/irmd.lock)\nkill $node\ntail -s 0.05 --pid=$node -f /dev/null\n"

_SHOWN: list[tuple[str, str]] = []


def shows(*pieces: tuple[str, str]) -> Callable[[_T], _T]:
    """The test runs the blocks of these pages that have these pieces in them."""
    _SHOWN.extend(pieces)
    return lambda test: test


def block(page: str, piece: str) -> str:
    """The text of the one block."""
    assert (page, piece) in _SHOWN, "the test does not say that it shows this one"
    (found,) = [each for each in BLOCKS if each.page == page and piece in each.text]
    return found.text


# --- how they are run


class Reader:
    """Somebody who reads a page and types what it shows, in a folder of his own."""

    def __init__(self, folder: Path, directory: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "HOME": str(folder),
            "OUROBOROS_RUNTIME_DIR": str(directory),
            "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        self._running: list[subprocess.Popen[str]] = []

    def save(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *command: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._running.append(started)
        return started

    def start_python(self, text: str, name: str) -> subprocess.Popen[str]:
        return self.start("python", str(self.save(name, text)))

    def run(self, *command: str, status: int = 0) -> str:
        """What it prints."""
        return ended(self.start(*command), status)

    def python(self, text: str, name: str = "example.py") -> str:
        return self.run("python", str(self.save(name, text)))

    def sh(self, text: str) -> str:
        return self.run("bash", "-e", "-c", typed(text))

    def end(self) -> None:
        """End all that runs, and what that has in its background."""
        while self._running:
            process = self._running.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            if process.stdout is not None and not process.stdout.closed:
                # To its end, which is that of the last one who could write to it.
                print(process.stdout.read())
                process.stdout.close()
            process.wait()


def typed(text: str) -> str:
    """The lines as somebody types them, one after the other: behind one that goes on in the background, its node runs."""
    runs = "until irm name list > /dev/null 2>&1; do :; done"
    return "".join(
        f"{line}\n{runs}\n" if re.search(r"&\s*(#.*)?$", line) else f"{line}\n" for line in text.splitlines()
    )


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    said, _ = process.communicate()
    assert process.returncode == status, said
    return said


def served(*names: str) -> None:
    """Until somebody accepts flows for each of them."""

    def is_so() -> bool:
        return set(names) <= {info.name for info in irm.list_names() if info.processes}

    until(is_so)


@pytest.fixture
def reader(embedded: Path, tmp_path: Path) -> Iterator[Reader]:
    """Somebody whose first program starts the node."""
    found = Reader(tmp_path, embedded)
    yield found
    found.end()


#: Answers each line with itself. `NAME` is the only argument.
ECHO = """
import sys
from ouroboros.dev import FlowException
from ouroboros.server import FlowRequestHandler, ThreadingFlowServer

class Echo(FlowRequestHandler):
    def handle(self):
        for line in sys.argv[2:]:
            self.flow.writeline(line)
        try:
            while len(sys.argv) == 2:
                self.flow.write(self.flow.read())
        except FlowException:
            pass

with ThreadingFlowServer(sys.argv[1], Echo) as server:
    server.serve_forever()
"""


def serve(reader: Reader, name: str, *lines: str) -> subprocess.Popen[str]:
    """Have a program echo what comes on flows to a name, or say these lines and deallocate the flow."""
    started = reader.start("python", str(reader.save("server.py", ECHO)), name, *lines)
    served(name)
    return started


# --- that none is missing


def test_every_block_is_run_or_listed() -> None:
    for each in BLOCKS:
        runs = [piece for page, piece in _SHOWN if page == each.page and piece in each.text]
        listed = [piece for page, piece, _ in NOT_RUN if page == each.page and piece in each.text]
        interactive = each.language == "python" and each.text.startswith(">>>")
        assert len(runs) + len(listed) + interactive == 1, f"{each.page}, line {each.line}"


def test_none_is_listed_or_shown_twice_or_in_vain() -> None:
    for page, piece in [*_SHOWN, *((page, piece) for page, piece, _ in NOT_RUN)]:
        assert [each for each in BLOCKS if each.page == page and piece in each.text], (page, piece)
    assert len(set(_SHOWN)) == len(_SHOWN)


@pytest.mark.parametrize("page", [page for page in PAGES if page != GENERATED], ids=lambda page: page.name)
def test_page_is_plain_markdown(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"\{[\w:]+\}`|^:{3,}|^\([\w-]+\)=$|^```\{", text, re.M)
    assert text.count("```") == 2 * len(list(blocks_of(page)))


@pytest.mark.parametrize("each", BLOCKS, ids=lambda each: f"{each.page}:{each.line}")
def test_block_is_well_formed(each: Block) -> None:
    if each.language == "python" and not each.text.startswith(">>>"):
        ast.parse(each.text)
    elif each.language == "sh":
        subprocess.run(["bash", "-n"], input=each.text, text=True, check=True)
    elif each.language == "toml":
        tomllib.loads(each.text)
    else:
        assert each.language in ("python", "c", "text", "", "console")


@pytest.mark.parametrize("page", [page for page in PAGES if ">>>" in page.read_text()], ids=lambda page: page.name)
def test_interactive_examples_print_what_they_show(page: Path) -> None:
    text = "".join(each.text for each in blocks_of(page) if each.text.startswith(">>>"))
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


# --- page by page


@shows(
    ("README.md", "python examples/oecho.py -l"),
    ("README.md", "python examples/oecho.py\n"),
    ("README.md", "from ouroboros.dev import flow_alloc"),
    ("index.md", "from ouroboros.dev import flow_alloc"),
)
def test_first_flow_of_the_readme(reader: Reader) -> None:
    (reader.folder / "examples").symlink_to(ROOT / "examples")
    reader.start("bash", "-c", block("README.md", "python examples/oecho.py -l"))
    served("oecho")
    assert reader.sh(block("README.md", "python examples/oecho.py\n")) == "Server says: Hello, PyOuroboros!\n"
    for page in ("README.md", "index.md"):
        assert reader.python(block(page, "from ouroboros.dev import flow_alloc")) == "Hello, PyOuroboros!\n"


@shows(
    ("start.md", "# hello.py"),
    ("start.md", "# greet.py"),
    ("start.md", "python hello.py"),
    ("start.md", "python greet.py"),
)
def test_start(reader: Reader) -> None:
    for name in ("hello.py", "greet.py"):
        reader.save(name, block("start.md", f"# {name}"))
    reader.start("bash", "-c", block("start.md", "python hello.py"))
    served("hello")
    assert reader.sh(block("start.md", "python greet.py")) == "Hello, world\n"
    assert "prints `Hello, world`" in (ROOT / "docs" / "start.md").read_text()


FLOWS = [
    "timeo=2.5",
    "timeo=60, wait=True",
    "f = Flow()",
    "pieces = [f.read(40)]",
    "set_rcv_timeout(1.0)",
    "f.set_flags(",
    "print(f.security)",
]


@shows(*(("flows.md", piece) for piece in FLOWS))
def test_flows(reader: Reader) -> None:
    reader.start_python(
        "from ouroboros.dev import flow_accept\n"
        "with flow_accept(name='weather') as f:\n"
        "    f.read(); f.write(b'12 degrees')\n"
        "with flow_accept() as f: f.read()\n"
        "with flow_accept() as f: pass\n"
        "with flow_accept() as f:\n"
        "    f.write(b'x' * 80); f.readline()\n",
        "weather.py",
    )
    serve(reader, "clock")
    served("weather")
    # One after the other, as they are read; the last lines look at what the blocks have done.
    program = [block("flows.md", piece) for piece in FLOWS[:-1]]
    program += [
        "assert len(packet) == 80 and f.get_rcv_timeout() is None and f.get_snd_timeout() == 0.5",
        "assert FlowProperties.NonBlocking in f.get_flags()",
        "f.dealloc()",
        block("flows.md", FLOWS[-1]),
    ]
    first, security = reader.python("\n".join(program)).splitlines()
    assert first == "b'12 degrees'"
    assert security.startswith("FlowSecurity(suite='aes-256-gcm, key of the node', strength=256,")


@shows(("flows.md", '"log"'), ("flows.md", "from ouroboros.server import"))
def test_files_and_servers(reader: Reader) -> None:
    log = reader.start_python(
        "from ouroboros.dev import flow_accept\n"
        "with flow_accept(name='log') as f, f.makefile() as file: print(file.read(), end='')\n",
        "log.py",
    )
    served("log")
    reader.python(block("flows.md", '"log"'))
    assert ended(log) == "one line\n"
    reader.start_python(block("flows.md", "from ouroboros.server import"), "server.py")
    served("oecho")
    reader.python("from ouroboros.dev import *\nwith flow_alloc('oecho') as f: f.write(b'x'); assert f.read() == b'x'")


@shows(("flows.md", 'name="pool"'))
def test_a_pool_of_workers(reader: Reader) -> None:
    for _ in range(2):
        reader.start_python("def solve(task): return 2 * task\n" + block("flows.md", 'name="pool"'), "worker.py")
    until(lambda: [len(info.processes) for info in irm.list_names() if info.name == "pool"] == [2])
    client = (
        "from ouroboros.dev import *\nwith flow_alloc('pool', wait=True) as f: f.writeline('21'); print(f.readline())"
    )
    assert [reader.python(client).strip() for _ in range(3)] == ["42"] * 3


@shows(("events.md", "while len(fs) > 0"), ("events.md", "FlowEventTimeoutException"))
def test_events(reader: Reader) -> None:
    serve(reader, "weather", "sun", "rain")
    reader.start_python(
        "from ouroboros.dev import *\n"
        "with flow_accept(name='clock') as f: f.writeline('12:00')\n"
        # The next one hears nothing.
        "with flow_accept() as f:\n"
        "    try: f.read()\n"
        "    except FlowDownException: pass\n",
        "clock.py",
    )
    served("clock")
    text = block("events.md", "while len(fs) > 0") + block("events.md", "FlowEventTimeoutException")
    *told, silence = reader.python(text).splitlines()
    assert sorted(told) == ["12:00", "rain", "sun"]
    assert silence == "nothing happened for a second"


@shows(
    ("aio.md", '"Hello, PyOuroboros!"'), ("aio.md", "move_on_after"), ("aio.md", "stream()"), ("aio.md", "aio.serve")
)
def test_aio(reader: Reader) -> None:
    server = reader.start_python(block("aio.md", "aio.serve"), "server.py")
    served("oecho")
    text = block("aio.md", '"Hello, PyOuroboros!"')
    assert reader.python(text) == "Hello, PyOuroboros!\n"
    trio = text.replace("asyncio.run(main())", "trio.run(main)").replace("import asyncio", "import trio")
    assert reader.python(trio) == "Hello, PyOuroboros!\n"
    waits = """
from ouroboros import aio

async def main():
    async with await aio.flow_alloc("oecho") as f:
        await f.write(b"x")
        print(await next_or_none(f), await next_or_none(f))

anyio.run(main)
"""
    assert reader.python(block("aio.md", "move_on_after") + waits) == "b'x' None\n"
    streams = f"""
import anyio
from ouroboros import aio

async def main():
    async with await aio.flow_alloc("oecho") as f:
{textwrap.indent(block("aio.md", "stream()"), "        ")}
        print(answer)

anyio.run(main)
"""
    assert reader.python(streams) == "b'hello'\n"
    os.killpg(server.pid, signal.SIGINT)
    assert server.communicate()[0].startswith("the name is bound\n")


#: A server of one flow, which does what it is told.
ORACLE = """
import os, signal, sys
from ouroboros.dev import *
try:
    with flow_accept(name="oracle") as f:
        question = f.readline()
        exec(sys.argv[1])
except FlowException:
    pass
"""


@shows(("errors.md", "def ask(question"))
def test_client_of_the_errors_page_goes_on(reader: Reader) -> None:
    """Whatever the server does: it is not there, answers, says nothing, goes away, dies."""
    reader.save("asking.py", block("errors.md", "def ask(question"))
    reader.save("oracle.py", ORACLE)
    ask = "from asking import ask\nprint(ask('why?'))"
    assert reader.python(ask) == "None\n"
    for act, answer in [
        ("f.writeline(question)", "why?\n"),
        ("f.read()", "None\n"),
        ("f.dealloc()", "None\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "None\n"),
    ]:
        server = reader.start("python", "oracle.py", act)
        served("oracle")
        assert reader.python(ask) == answer
        server.wait()
        until(lambda: not any(info.processes for info in irm.list_names() if info.name == "oracle"))


@shows(
    ("broadcast.md", 'flow_join("broadcast")'),
    ("broadcast.md", "irm ipcp list --json"),
    ("broadcast.md", "layer chat"),
    ("broadcast.md", "[broadcast.b]"),
    ("broadcast.md", "[users]"),
)
def test_broadcast(reader: Reader) -> None:
    for table in ("[broadcast.b]", "[users]"):
        reader.run("irmd", "--check", str(reader.save("irmd.toml", block("broadcast.md", table))))
    listener = reader.start_python(
        "from ouroboros.dev import flow_join\nwith flow_join('broadcast') as f:\n    print('in')\n"
        "    print(f.readline())\n    f.writeline('Hello, you')\n",
        "listener.py",
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "in\n"
    speaker = reader.start_python(block("broadcast.md", 'flow_join("broadcast")'), "speaker.py")
    assert ended(listener) == "Hello, everybody\n"
    assert speaker.stdout is not None
    assert speaker.stdout.readline() == "Hello, you\n"
    assert '"lost": 0' in reader.sh(block("broadcast.md", "irm ipcp list --json"))
    reader.sh(block("broadcast.md", "layer chat"))
    reader.python("from ouroboros.dev import flow_join\nflow_join('chat').dealloc()")


@shows(("node.md", "[name.oping]"))
def test_configuration_file_is_the_one_of_contrib(reader: Reader) -> None:
    text = block("node.md", "[name.oping]")
    assert text == (ROOT / "contrib" / "irmd.toml").read_text()
    reader.run("irmd", "--check", str(reader.save("irmd.toml", text)))


@shows(("node.md", "mktemp -d"), ("node.md", "irm bind program clockd"), ("commands.md", "irm ipcp list --json"))
def test_node(reader: Reader) -> None:
    clock = reader.save("clockd", "#!/bin/sh\n")
    clock.chmod(0o755)
    text = block("node.md", "mktemp -d")
    text += block("node.md", "irm bind program clockd") + block("commands.md", "irm ipcp list --json")
    # What was started in the background is ended, too, and leaves an empty directory.
    text += f"irm name list\n{END}rm -r $OUROBOROS_RUNTIME_DIR\n"
    said = reader.sh(text)
    assert re.search(r"\bclock \|", said)
    assert re.search(r"^\[\]$", said, re.M)


@shows(("node.md", "irm save"))
def test_what_runs_is_saved(reader: Reader) -> None:
    save, begin = block("node.md", "irm save").replace("/etc/ouroboros", str(reader.folder)).splitlines()
    reader.run("irmd", "--background")
    reader.sh(f"irm name create clock\n{save}\n{END}")
    said = reader.sh(f"{begin.replace('irmd', 'irmd --background', 1)}\nirm name list\nirm save\n{END}")
    assert re.search(r"\bclock \|", said)
    assert (reader.folder / "node.toml").read_text() in said


@shows(("node.md", "last_figures()"))
def test_last_figures(reader: Reader) -> None:
    reader.run("irmd", "--background")
    running = reader.python(block("node.md", "last_figures()"))
    reader.sh("kill -9 $(cat $OUROBOROS_RUNTIME_DIR/irmd.lock)\n" + END.replace("kill $node", "true"))
    killed = reader.python(block("node.md", "last_figures()"))
    reader.run("irmd", "--background")
    again = reader.python(block("node.md", "last_figures()"))
    assert (running, again) == ("", "")
    assert "was killed or crashed; it had 0 flows" in killed


@pytest.mark.parametrize("page", ["node.md", "commands.md"])
@shows(("node.md", "irmd\n"), ("commands.md", "irmd\n"))
def test_irmd(reader: Reader, page: str) -> None:
    (text,) = [each.text for each in BLOCKS if each.page == page and each.text == "irmd\n"]
    node = reader.start("bash", "-c", f"exec {text}")
    assert node.stdout is not None
    assert "ready in" in node.stdout.readline()
    node.terminate()
    ended(node)


#: As shown, but for how long.
SHORTER = {"-d 5s": "-d 100ms", "-d 10 ": "-d 1 ", "-c 5": "-c 2"}


@pytest.mark.parametrize("tool", ["oecho", "oping", "operf", "ocbr"])
@shows(*(("commands.md", f"{tool} --listen") for tool in ("oecho", "oping", "operf", "ocbr")))
def test_tool(reader: Reader, tool: str) -> None:
    text = block("commands.md", f"{tool} --listen")
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    server, *clients = text.splitlines()
    reader.start("bash", "-c", f"exec {server}")
    served(tool)
    for client in clients:
        assert reader.sh(client)


@shows(("commands.md", "obc -n news"))
def test_obc(reader: Reader) -> None:
    irm.bootstrap_ipcp(irm.create_ipcp("news0", irm.IpcpType.BROADCAST), irm.IpcpConfig(irm.IpcpType.BROADCAST, "news"))
    reads, writes = block("commands.md", "obc -n news").splitlines()
    reading = reader.start("bash", "-c", f"exec {reads}")
    assert reading.stdout is not None
    assert [reading.stdout.readline() for _ in range(2)] == ["Starting a reader.\n", "New flow.\n"]
    reader.sh(writes)
    assert reading.stdout.readline() == "Message is hello all.\n"


@shows(("native.md", "ouroboros info"))
def test_native(reader: Reader) -> None:
    assert "our node" in reader.sh(block("native.md", "ouroboros info"))


@shows(
    ("security.md", "ouroboros cert authority"),
    ("security.md", "cypher_s=256"),
    ("security.md", "secp521r1, aes-256-gcm"),
)
def test_security(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "security"
    for environment in (os.environ, reader.environment):
        monkeypatch.setitem(environment, "OUROBOROS_SECURITY_DIR", str(directory))
    reader.sh(block("security.md", "ouroboros cert authority"))
    # Both hosts are this one, and the client requires what the page speaks of.
    shutil.copytree(tmp_path / "for-b" / "server", directory / "server")
    (directory / "client" / "clock" / "policy.conf").write_text("require=certificate\n")
    serve(reader, "clock")
    assert reader.python(block("security.md", "cypher_s=256")) == block("security.md", "secp521r1, aes-256-gcm")


TESTS = ["in_capitals", "copes_with_loss", "wants_encryption"]


@shows(
    ("lab.md", "three nodes in a line"),
    ("lab.md", "flow_accept(name="),
    ("lab.md", "flow_alloc("),
    ("lab.md", "lab.c.start("),
    ("lab.md", '-c "cut a-b"'),
    ("lab.md", "[[event]]"),
    ("lab.md", "lab run scenario.toml"),
)
def test_laboratory(reader: Reader) -> None:
    said = reader.python(block("lab.md", "three nodes in a line"))
    assert re.fullmatch(r"a to c: [\d.e+]+ ms, 2 hops: a - b - c\n", said)
    reader.save("clock.py", block("lab.md", "flow_accept(name="))
    reader.save("watch.py", block("lab.md", "flow_alloc("))
    assert reader.python(block("lab.md", "lab.c.start(")) == "it is late\n\n"
    assert "a - b (cut)" in reader.sh(block("lab.md", '-c "cut a-b"'))
    reader.save("scenario.toml", block("lab.md", "[[event]]"))
    assert reader.sh(block("lab.md", "lab run scenario.toml")).endswith("2 expectations, all met\n")


@shows(("testing.md", "flow_accept"), *(("testing.md", piece) for piece in TESTS))
def test_testing(tmp_path: Path) -> None:
    reader = Reader(tmp_path, tmp_path / "unused")
    reader.save("shout.py", block("testing.md", "flow_accept"))
    names = [reader.save(f"test_{piece}.py", block("testing.md", piece)).name for piece in TESTS]
    said = reader.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *names)
    reader.end()
    assert "3 passed" in said


@pytest.mark.skipif(NamespacePair.lacks() is not None, reason=str(NamespacePair.lacks()))
@shows(("testing.md", "NamespacePair"))
def test_link(tmp_path: Path) -> None:
    reader = Reader(tmp_path, tmp_path / "unused")
    reader.save(
        "server.py",
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind((sys.argv[1], 9))\n"
        "while True:\n    data, client = s.recvfrom(100)\n    s.sendto(data.upper(), client)\n",
    )
    reader.save(
        "client.py",
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(0.1)\n"
        "s.connect((sys.argv[1], 9))\n"
        "while True:\n"
        "    try:\n        s.send(b'hello')\n        print(s.recv(100))\n        break\n    except OSError: pass\n",
    )
    said = reader.python(block("testing.md", "NamespacePair"))
    reader.end()
    assert said.startswith("b'HELLO'\n")


@pytest.mark.skipif(cannot_build() is not None, reason=str(cannot_build()))
@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="there is no pkg-config")
@shows(("c.md", "ouroboros cdev"), ("c.md", "gcc hello.c"), ("c.md", "int main(void)"), ("c.md", "oping -n oping"))
def test_c(reader: Reader) -> None:
    serve(reader, "oecho")
    reader.start("oping", "--listen")
    served("oping")
    reader.save("hello.c", block("c.md", "int main(void)"))
    reader.sh(block("c.md", "ouroboros cdev"))
    assert reader.sh(block("c.md", "gcc hello.c")) == "Hello!\n"
    assert "2 packets" in reader.sh(block("c.md", "oping -n oping").replace("-c 5", SHORTER["-c 5"]))


UDP = ["oping --listen &", "irmd", "[udp4.net0]", "create_ipcp(", "irm ipcp peer"]


@shows(*(("udp.md", piece) for piece in UDP))
def test_udp(reader: Reader, tmp_path: Path, runtime_dir: Path) -> None:
    """The two hosts are two nodes, at addresses of the loopback interface that nobody else has."""
    network = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}."
    listen, ask, table, program, peer = (block("udp.md", piece).replace("192.0.2.", network) for piece in UDP)
    other = Reader(tmp_path / "other", runtime_dir / "a")
    other.folder.mkdir()
    server = reader.start("bash", "-e", "-c", f"{typed(listen)}wait")
    served("oping")
    until(lambda: any("net" in info.layers for info in irm.list_names()))
    try:
        said = other.sh(ask.replace("-c 5", SHORTER["-c 5"]) + peer + END)
        assert "2 packets" in said
        other.run("irmd", "--check", str(other.save("irmd.toml", table)))
        made = f"{program}\nprint(list_ipcps()[-1].layer)\ndestroy_ipcp(pid)\n"
        assert other.python(made) == "net\n"
    finally:
        other.end()
    assert server.poll() is None


UNICAST = [
    "name a layer campus autobind",
    "name b layer campus autobind",
    "oping --listen &",
    "oping -n oping",
    "name c layer campus dst b",
    "ouroboros trace oping",
    "irm ipcp keepalive",
    "connect name c dst a",
    "name top-a layer top",
    "name top-c layer top",
    "[unicast.b]",
    'create_ipcp("b"',
]


OVER = {"a": "irm name register campus layer net6", "b": "dst campus over net6"}


@shows(*(("unicast.md", piece) for piece in OVER.values()))
def test_a_layer_over_several_layers(tmp_path: Path, runtime_dir: Path) -> None:
    network = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}."
    hosts = {name: Reader(tmp_path / name, runtime_dir / name) for name in OVER}
    udp = f"irmd --background\nirm ipcp bootstrap type udp4 name net0 layer net ip {network}"
    begin = {
        "a": f"{udp}1\nirm ipcp bootstrap type unicast name a layer campus autobind\n",
        "b": f"{udp}2 peer campus@{network}1\nirm ipcp enroll name b layer campus autobind\n",
    }
    try:
        for name, host in hosts.items():
            host.folder.mkdir()
            host.sh(begin[name])
        for name, host in hosts.items():
            # There is one address of IPv6 on a loopback interface.
            text = block("unicast.md", OVER[name]).replace("udp6", "udp4").replace("2001:db8::", f"{network}6")
            shown = host.sh(text)
        assert re.findall(r"Data Transfer \|.*\| +(net6?) \| +up \|", shown) == ["net", "net6"]
    finally:
        for host in hosts.values():
            with contextlib.suppress(AssertionError):
                host.sh(END)
            host.end()


@shows(("unicast.md", "layer square routing ecmp"))
def test_a_layer_within_a_machine(reader: Reader) -> None:
    reader.run("irmd", "--background")
    shown = reader.sh(f"{block('unicast.md', 'layer square routing ecmp')}\n{END}")
    hops = re.findall(r"layer (\w+) \((\w+), rank (\d)\)  (n\d)", shown)
    assert [each[:3] for each in hops] == [("square", "unicast", "1"), ("here", "local", "0")] * 2
    assert hops[2][3] == "n4"


@shows(("unicast.md", "enroll alice"))
def test_who_may_enroll(reader: Reader) -> None:
    reader.environment["OUROBOROS_SECURITY_DIR"] = str(reader.folder / "security")
    reader.run("irmd", "--background")
    reader.sh(block("unicast.md", "enroll alice"))
    assert 'bootstrap = "campus"\nenroll = ["alice"]\nautobind = true' in reader.sh(f"irm save\n{END}")


@shows(*(("unicast.md", piece) for piece in UNICAST))
def test_unicast(tmp_path: Path, runtime_dir: Path) -> None:
    """The hosts are nodes, at addresses of the loopback interface that nobody else has."""
    network = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}."
    text = {piece: block("unicast.md", piece).replace("192.0.2.", network) for piece in UNICAST}
    hosts = {name: Reader(tmp_path / name, runtime_dir / name) for name in "abcd"}
    try:
        for name, host in hosts.items():
            host.folder.mkdir()
            if name == "b":
                host.sh(text[UNICAST[1]])
                server = host.start("bash", "-e", "-c", f"{typed(text['oping --listen &'])}wait")
                with at(runtime_dir / "b"):
                    served("oping")
            elif name == "d":
                host.sh("\n".join(text[UNICAST[1]].splitlines()[:2]).replace(f"{network}2 ", f"{network}4 "))
            else:
                host.sh(text[f"name {name} layer campus {'autobind' if name == 'a' else 'dst b'}"])
        assert "2 packets" in hosts["a"].sh(text["oping -n oping"].replace("-c 5", SHORTER["-c 5"]))
        shown = hosts["a"].sh(text["ouroboros trace oping"])
        assert re.findall(r"layer (\w+) \((\w+), rank (\d)\)  (b|[\d.]+)", shown)[-2:] == [
            ("campus", "unicast", "1", "b"),
            ("net", "udp4", "0", f"{network}2"),
        ]
        hosts["c"].sh(text["connect name c dst a"])
        hosts["a"].sh(text["name top-a layer top"])
        hosts["c"].sh(text["name top-c layer top"])
        assert "top-c is member" in hosts["c"].sh("irm layer show top")
        hosts["d"].sh(text["irm ipcp keepalive"])
        hosts["d"].sh("irm ipcp destroy name d")
        hosts["d"].run("irmd", "--check", str(hosts["d"].save("irmd.toml", text["[unicast.b]"])))
        assert hosts["d"].python(text['create_ipcp("b"'] + "\nprint(list_ipcps()[0].layer)\n") == "campus\n"
        assert server.poll() is None
    finally:
        for host in hosts.values():
            with contextlib.suppress(AssertionError):
                host.sh(END)
            host.end()
