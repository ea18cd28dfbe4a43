"""The name that a program is known by, however the interpreter was told to run it."""

from __future__ import annotations

import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

SOURCE = """
import sys
from ouroboros.runtime.client import program_name
print("called", program_name(), sys.argv[1:])
"""

LINES = {
    "server.py -l": "server.py",
    "-m server -l": "server",
    "-m package -l": "package",
    "-m package.server -l": "server",
    "package -l": "package",
    "package/ -l": "package",
    "app.pyz -l": "app.pyz",
    "-m cProfile -o profile server.py -l": "server.py",
    "-m cProfile -o profile -m package.server -l": "server",
    "-m profile -o profile server.py -l": "server.py",
    "-m trace --count --missing --coverdir=covers server.py -l": "server.py",
    "-m pdb -c continue -c quit server.py -l": "server.py",
    "-m pdb -c continue -c quit -m package.server -l": "server",
    "-m runpy package.server -l": "server",
}


@pytest.mark.slow
def test_a_program_is_called_by_its_own_name_whatever_runs_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for path in (tmp_path / "server.py", package / "server.py", package / "__main__.py"):
        path.write_text(SOURCE)
    (package / "__init__.py").touch()
    zipapp.create_archive(package, tmp_path / "app.pyz")
    running = {
        line: subprocess.Popen(
            [sys.executable, *line.split()],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in LINES
    }
    said = {line: process.communicate()[0] for line, process in running.items()}
    for line, name in LINES.items():
        assert f"called {name} ['-l']\n" in said[line], (line, said[line])
