"""`ouroboros cdev`: the C libraries, their headers and pkg-config files, for programs in C on our node."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import ouroboros
from ouroboros.runtime.children import PYTHONPATH_BEFORE
from ouroboros.tools._output import say

#: The version of the C interface, and that of the files that programs ask for.
_VERSION = "0.23.0"
_SONAME = "0.23"

_LIBRARIES = {"dev": "Flows of Ouroboros, on PyOuroboros", "irm": "Management of Ouroboros, on PyOuroboros"}

#: What this package carries: headers, and libraries when it was built with them.
_SOURCE = Path(ouroboros.__file__).parent / "cdev"

_PC = """\
prefix={prefix}
libdir=${{prefix}}/lib
includedir=${{prefix}}/include

Name: ouroboros-{name}
Description: {description}
Version: {version}
Libs: -L${{libdir}} -louroboros-{name}
Cflags: -I${{includedir}}
"""

_STARTER = """\
#!/bin/sh
# Starts the node of PyOuroboros for a C program that finds none.
{before}=$PYTHONPATH
PYTHONPATH={package}${{PYTHONPATH:+:$PYTHONPATH}}
export PYTHONPATH {before}
exec {python} -m ouroboros.tools.irmd "$@"
"""


@click.command()
@click.option(
    "--prefix", required=True, type=click.Path(path_type=Path, file_okay=False), help="Directory to install into."
)
@click.option("--force", is_flag=True, help="Also replace the libraries of an installed C prototype.")
def cdev(*, prefix: Path, force: bool) -> None:
    """Install libouroboros-dev and libouroboros-irm for C programs.

    They have the names and functions of the C prototype's, version 0.23, so what is built for those runs on our node. They
    go into PREFIX/lib, headers into PREFIX/include, pkg-config files into PREFIX/lib/pkgconfig.
    """
    prefix = prefix.absolute()
    missing = [str(_library(name)) for name in _LIBRARIES if not _library(name).exists()]
    if missing:
        raise click.ClickException(
            f"this installation comes without the C libraries ({missing[0]} is missing): "
            "run 'pip install .' in a clone of the repository, which needs Rust"
        )
    libraries = prefix / "lib"
    starter = libraries / "ouroboros" / "irmd"
    foreign = libraries / f"libouroboros-dev.so.{_SONAME}"
    if foreign.exists() and not starter.exists() and not force:
        raise click.ClickException(f"{foreign} is there and not ours: take another prefix, or replace it with --force")
    try:
        for name in _LIBRARIES:
            _install_library(name, libraries)
        for header in _headers():
            _copy(header, prefix / "include" / "ouroboros" / header.name)
        for name, description in _LIBRARIES.items():
            text = _PC.format(prefix=prefix, name=name, description=description, version=_VERSION)
            _write(libraries / "pkgconfig" / f"ouroboros-{name}.pc", text)
        _write(
            starter,
            _STARTER.format(
                package=shlex.quote(str(_SOURCE.parents[1])),
                python=shlex.quote(sys.executable),
                before=PYTHONPATH_BEFORE,
            ),
        )
        starter.chmod(0o755)
    except OSError as error:
        raise click.ClickException(
            f"cannot install into {prefix}: {error.filename}: {error.strerror}; choose another --prefix"
        ) from error
    say(f"installed into {prefix}\n")
    say(f"build:  PKG_CONFIG_PATH={libraries}/pkgconfig pkg-config --cflags --libs ouroboros-dev")
    say(f"run:    LD_LIBRARY_PATH={libraries}")


def _library(name: str) -> Path:
    return _SOURCE / "lib" / f"libouroboros-{name}.so"


def _headers() -> Iterator[Path]:
    return (_SOURCE / "include" / "ouroboros").glob("*.h")


def _install_library(name: str, libraries: Path) -> None:
    """The file, the name that programs load it by, and the name that linkers find it by."""
    plain = f"libouroboros-{name}.so"
    _copy(_library(name), libraries / f"{plain}.{_VERSION}")
    for link, target in ((f"{plain}.{_SONAME}", f"{plain}.{_VERSION}"), (plain, f"{plain}.{_SONAME}")):
        (libraries / link).unlink(missing_ok=True)
        (libraries / link).symlink_to(target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not over the old one: programs that run have it mapped.
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
