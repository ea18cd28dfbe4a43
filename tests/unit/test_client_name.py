"""What a program is called: the name that it is bound by, and that it accepts under on the embedded node."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from ouroboros.runtime.client import program_name


def run_as(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], module: str | None = None, origin: str | None = None
) -> None:
    """Make it look as if the interpreter was started so; `module`: what `python -m` ran, `origin`: its file."""
    main = ModuleType("__main__")
    main.__spec__ = None if module is None else ModuleSpec(module, None, origin=origin)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", argv)


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("oecho.py", "oecho.py"),
        ("./examples/oecho.py", "oecho.py"),
        ("/usr/local/bin/oping", "oping"),
        ("/opt/two words", "two words"),
        ("app.pyz", "app.pyz"),
        ("service/", "service"),
        ("/srv/service/__main__.py", "service"),
    ],
)
def test_a_script_is_called_by_its_file(monkeypatch: pytest.MonkeyPatch, script: str, name: str) -> None:
    run_as(monkeypatch, [script, "-l"])
    assert program_name() == name


@pytest.mark.parametrize(
    ("module", "name"),
    [("oecho", "oecho"), ("ouroboros.tools.oecho", "oecho"), ("package.__main__", "package"), ("a.b.__main__", "b")],
)
def test_a_module_is_called_by_the_last_part_of_its_name(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    run_as(monkeypatch, ["/lib/whatever/__main__.py"], module)
    assert program_name() == name


@pytest.mark.parametrize(
    ("module", "argv", "name"),
    [
        # A profiler or a debugger, and what it runs.
        ("cProfile", "server.py", "server.py"),
        ("trace", "./examples/server.py", "server.py"),
        ("coverage.__main__", "/usr/local/bin/server", "server"),
        ("cProfile", "server", "server"),
        ("cProfile", "package.server", "server"),
        ("cProfile", "package.__main__", "package"),
        ("trace", "/lib/package/__main__.py", "package"),
        # It runs itself.
        ("timeit", "/lib/timeit.py", "timeit"),
        ("package.server", "/lib/timeit.py", "server"),
        # It has put something for people there.
        ("unittest.__main__", "python3 -m unittest", "unittest"),
    ],
)
def test_what_a_module_runs_is_called_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch, module: str, argv: str, name: str
) -> None:
    run_as(monkeypatch, [argv, "-l"], module, argv if module == "package.server" else "/lib/timeit.py")
    assert program_name() == name


@pytest.mark.parametrize("argv", [[""], ["-c"], ["-"], ["-c", "x"], []], ids=repr)
def test_an_interpreter_without_a_script_is_called_python(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    run_as(monkeypatch, argv)
    assert program_name() == "python"


def test_a_program_without_a_main_module_is_called_by_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/host"])
    monkeypatch.delitem(sys.modules, "__main__")
    assert program_name() == "host"
