"""What a newcomer does with the pytest plugin, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import ended

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

#: A program as a newcomer writes it.
SHOUT = """
from ouroboros.dev import flow_accept

while True:
    with flow_accept() as flow:
        flow.writeline(flow.readline().upper())
"""

#: And its test, as in docs/testing.md.
TEST_SHOUT = """
from ouroboros.dev import flow_alloc


def test_it_answers_in_capitals(ouroboros_node):
    ouroboros_node.serve("shout", "shout.py")
    with flow_alloc("shout") as flow:
        flow.writeline("hello")
        assert flow.readline() == "HELLO"
"""


@pytest.fixture
def quiet(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder for a newcomer, on a machine where nothing of ours was set up."""
    monkeypatch.delenv("OUROBOROS_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("OUROBOROS_AUTOSTART", raising=False)
    return pytester


def run(pytester: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=test)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_the_test_of_a_program_takes_ten_lines(quiet: pytest.Pytester) -> None:
    quiet.makepyfile(shout=SHOUT)
    assert len(TEST_SHOUT.strip().splitlines()) <= 10
    run(quiet, TEST_SHOUT).assert_outcomes(passed=1)


def test_a_test_is_for_its_node_whatever_stack_programs_use(
    quiet: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUROBOROS_BACKEND", "native")
    quiet.makepyfile(shout=SHOUT)
    run(quiet, TEST_SHOUT).assert_outcomes(passed=1)


def test_the_documentation_shows_that_test() -> None:
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    for program in (SHOUT, TEST_SHOUT):
        assert f"```python\n{program.strip()}\n```" in text


def test_it_fails_when_the_program_answers_wrongly(quiet: pytest.Pytester) -> None:
    quiet.makepyfile(shout=SHOUT.replace("upper", "lower"))
    result = run(quiet, TEST_SHOUT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 'hello' == 'HELLO'*"])


def test_it_fails_at_once_and_says_why_when_the_program_crashes(quiet: pytest.Pytester) -> None:
    quiet.makepyfile(shout="raise SystemExit('I forgot to write this')")
    result = run(quiet, TEST_SHOUT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FlowRefusedException: 'shout.py'*ended with status 1*", "*I forgot to write this*"])


def test_it_fails_when_there_is_no_such_program(quiet: pytest.Pytester) -> None:
    result = run(quiet, TEST_SHOUT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FileNotFoundError: there is no program 'shout.py'*"])


def test_each_test_has_a_node_of_its_own_that_ends_with_it(quiet: pytest.Pytester) -> None:
    quiet.makepyfile(shout=SHOUT)
    test = """
        import os
        import pytest
        from pathlib import Path
        from ouroboros import irm
        from ouroboros.dev import flow_alloc

        seen = []

        @pytest.mark.parametrize("number", [0, 1])
        def test_it(number, ouroboros_node):
            for directory, pid in seen:
                assert not directory.exists()
                assert not Path(f"/proc/{pid}").exists()
            assert os.environ["OUROBOROS_RUNTIME_DIR"] == str(ouroboros_node.directory)
            assert irm.node_info().pid == ouroboros_node.pid != os.getpid()
            assert ouroboros_node.names() == []
            ouroboros_node.serve("shout", "shout.py")
            assert ouroboros_node.names() == ["shout"]
            flow_alloc("shout").dealloc()
            seen.append((ouroboros_node.directory, ouroboros_node.pid))

        def test_and_nothing_is_left_behind():
            assert "OUROBOROS_RUNTIME_DIR" not in os.environ
    """
    run(quiet, test).assert_outcomes(passed=3)


def test_a_node_that_was_killed_is_cleaned_up(quiet: pytest.Pytester) -> None:
    test = """
        import pytest
        from ouroboros.dev import flow_alloc
        from ouroboros.errors import NodeError

        def test_it(ouroboros_node):
            ouroboros_node.kill()
            with pytest.raises(NodeError, match="no node runs"):
                flow_alloc("shout")
    """
    run(quiet, test).assert_outcomes(passed=1)


def test_several_nodes_within_the_test_process(quiet: pytest.Pytester) -> None:
    quiet.makepyfile(shout=SHOUT)
    test = """
        import os
        import threading
        import pytest
        from ouroboros.dev import FlowNameException, flow_alloc

        def test_it(ouroboros_inproc_node):
            one, other = ouroboros_inproc_node(), ouroboros_inproc_node()
            assert one.pid == other.pid == os.getpid()
            other.serve("shout", "shout.py")
            assert (one.names(), other.names()) == ([], ["shout"])
            with flow_alloc("shout") as flow:
                with one.use(), pytest.raises(FlowNameException):
                    flow_alloc("shout")
                with one.use():
                    one.serve("echo", "shout.py")
                    also = flow_alloc("echo")
                # Neither node forgot the process in favour of the other.
                for each, word in ((flow, "there"), (also, "here")):
                    each.writeline(word)
                    assert each.readline() == word.upper()
                # It goes back to the node that it came from.
                also.dealloc()
            assert [name for name in map(lambda thread: thread.name, threading.enumerate()) if "node in" in name]

        def test_and_nothing_is_left_behind():
            assert "OUROBOROS_RUNTIME_DIR" not in os.environ
            assert threading.active_count() == 1
    """
    run(quiet, test).assert_outcomes(passed=2)


def test_an_impaired_layer(quiet: pytest.Pytester) -> None:
    quiet.makepyfile(shout=SHOUT.replace("flow.writeline(flow.readline().upper())", "while flow.read(): pass"))
    test = """
        import pytest
        from ouroboros.dev import flow_alloc
        from ouroboros.errors import IpcpBootstrapError

        def test_it(ouroboros_node, ouroboros_impaired_layer):
            layer = ouroboros_impaired_layer("shout", "loss=25%", seed=7)
            ouroboros_node.serve("shout", "shout.py")
            with flow_alloc("shout") as flow:
                for number in range(200):
                    flow.write(b"%d" % number)
                while layer.counters.delivered + layer.counters.lost < 200:
                    pass
                lost = layer.counters.lost
                assert 10 < lost < 100
                layer.partition()
                flow.write(b"lost")
                while layer.counters.lost == lost:
                    pass
                layer.heal()
            assert ouroboros_impaired_layer("shout", "none") is layer

        def test_a_wrong_word(ouroboros_impaired_layer):
            with pytest.raises(IpcpBootstrapError, match="loss must look like 1%"):
                ouroboros_impaired_layer("shout", "loss=1")
    """
    run(quiet, test).assert_outcomes(passed=2)


def test_who_does_not_use_the_plugin_does_not_pay_for_it(quiet: pytest.Pytester) -> None:
    test = """
        import sys

        def test_it(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("ouroboros")
            ours = {name for name in sys.modules if name.startswith("ouroboros")}
            assert ours == {"ouroboros", "ouroboros.testing", "ouroboros.testing.plugin"}
            assert "asyncio" not in sys.modules
    """
    run(quiet, test, "-p", "no:anyio").assert_outcomes(passed=1)


def test_the_node_ends_when_the_test_process_is_killed(quiet: pytest.Pytester) -> None:
    test = """
        import os
        import signal

        def test_it(ouroboros_node):
            print("node", ouroboros_node.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    path = quiet.makepyfile(test_it=test)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", str(path)], capture_output=True, text=True, check=False
    )
    pid = int(result.stdout.partition("node ")[2].split()[0])
    ended(pid)
