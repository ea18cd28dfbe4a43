"""Builds the package as maturin does, and the C libraries that `ouroboros cdev` installs with it (PEP 517).

`python build_backend.py` builds only those libraries, for a package that is installed in place. With `--wheel DIRECTORY` it
makes a wheel that runs on older systems than this one.

What the build needs and pip cannot bring is looked for first. maturin could bring Rust (by puccinialin), but that loads it
from elsewhere than the package index, which is to be decided by whoever installs.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import maturin

ROOT = Path(__file__).parent
LIBRARIES = ROOT / "src/ouroboros/cdev/lib"
HELPER = "ouroboros-rawsock"

#: The oldest GNU C library that a wheel for others runs with: that of Debian 10, RHEL 8, Ubuntu 20.04 and later.
GLIBC = (2, 28)

_P = ParamSpec("_P")
_R = TypeVar("_R")


# --- hooks


def _checked(hook: Callable[_P, _R], check: Callable[[], None]) -> Callable[_P, _R]:
    """The hook, which ends with a sentence when a tool is missing. A frontend may call any of them first."""

    @functools.wraps(hook)
    def call(*arguments: _P.args, **options: _P.kwargs) -> _R:
        check()
        return hook(*arguments, **options)

    return call


def _build_wheel(wheel_directory: str, *arguments: object, **options: object) -> str:
    # A source distribution has only the crates of the engine.
    if (ROOT / "rust/capi").is_dir():
        build_c_libraries()
    name: str = maturin.build_wheel(wheel_directory, *arguments, **options)
    return name


def check_rust() -> None:
    """Exit with a sentence unless there is a Rust that is new enough."""
    for tool in ("cargo", "rustc"):
        path = shutil.which(tool)
        if path is None:
            _fail(f"there is no {tool} on PATH", _install_rust())
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        except OSError as error:
            _fail(f"{path} does not run ({error.strerror})", _install_rust())
        said = (done.stderr or done.stdout).strip().splitlines() or ["without a word"]
        version = re.match(rf"{tool} (\d+)\.(\d+)", done.stdout)
        if done.returncode or version is None:
            _fail(f"{path} does not run ({said[0]})", _install_rust())
        if (int(version[1]), int(version[2])) < _least_rust():
            _fail(f"{path} is {done.stdout.strip()}, which is too old", _install_rust())


def check_tools() -> None:
    """Exit with a sentence unless there are Rust and a C compiler, by which Rust links."""
    check_rust()
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    install = (
        "Install one, with the headers of the C library: `apt install gcc libc6-dev`, `dnf install gcc glibc-devel`"
    )
    if shutil.which(compiler[0]) is None:
        _fail(f"there is no C compiler ({compiler[0]}) on PATH", install)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "trial.c")
        source.write_text("#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n")
        command = [*compiler, str(source), "-o", str(source.with_suffix(""))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[-200:])
        _fail(f"{' '.join(compiler)} cannot make a program ({said.strip()})", install)


def _least_rust() -> tuple[int, int]:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    major, minor, *_ = manifest["workspace"]["package"]["rust-version"].split(".")
    return int(major), int(minor)


def _install_rust() -> str:
    version = ".".join(map(str, _least_rust()))
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
    if shutil.which("rustup") is not None:
        return f"Get Rust {version} or later: `rustup default stable && rustup update stable`"
    if (home / "cargo").exists():
        return f"There is one in {home}: `export PATH={home}:$PATH`; Rust has to be {version} or later"
    return f"Install Rust {version} or later by https://rustup.rs; most distributions have an older one"


def _fail(what: str, remedy: str) -> NoReturn:
    sys.exit(f"PyOuroboros cannot be built: {what}. {remedy}.")


def build_c_libraries(command: str = "cargo build", place: str = "target/release") -> None:
    """The two of them, and the helper for packet sockets, in the place from which a wheel takes them. `place`: where the
    command leaves them."""
    packages = "-p ouroboros-capi-dev -p ouroboros-capi-irm -p ouroboros-rawsock"
    options = f"--release --locked --target-dir target {packages}"
    subprocess.run([*command.split(), *options.split()], cwd=ROOT, check=True)
    LIBRARIES.mkdir(exist_ok=True)
    built = {f"libouroboros_{name}.so": f"libouroboros-{name}.so" for name in ("dev", "irm")} | {HELPER: HELPER}
    for made, name in built.items():
        # Not over the old one: programs that run may have it mapped.
        target = LIBRARIES / name
        target.unlink(missing_ok=True)
        shutil.copy(ROOT / place / made, target)


def build_portable_wheel(directory: Path) -> None:
    """Make a wheel that runs with the C library `GLIBC`: zig links it against the symbols of that one."""
    host, glibc = _host(), f"{GLIBC[0]}.{GLIBC[1]}"
    # zig would link an unwinder of its own, but threads are cancelled by this one, and two of them in a thread crash it.
    find = subprocess.run(["gcc", "-print-file-name=libgcc_s.so.1"], stdout=subprocess.PIPE, text=True, check=True)
    os.environ[f"CARGO_TARGET_{host.upper().replace('-', '_')}_RUSTFLAGS"] = (
        f"-C link-arg={Path(find.stdout.strip()).resolve()}"
    )
    build_c_libraries(f"cargo zigbuild --target {host}.{glibc}", f"target/{host}/release")
    tag = f"manylinux_{glibc.replace('.', '_')}"
    build = f"maturin build --release --locked --zig --compatibility {tag} --out {directory}"
    subprocess.run(build.split(), cwd=ROOT, check=True)
    for wheel in directory.glob("*.whl"):
        if found := problems(wheel):
            raise SystemExit(f"{wheel.name} does not run with the GNU C library {glibc}: {'; '.join(found)}")


def _host() -> str:
    version = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return next(line.removeprefix("host: ") for line in version.splitlines() if line.startswith("host: "))


def problems(wheel: Path) -> list[str]:
    """What in a wheel does not run with the C library `GLIBC`, its own tag included."""
    tag = re.search(r"-manylinux_(\d+)_(\d+)_\w+\.whl$", wheel.name)
    found = [] if tag and (int(tag[1]), int(tag[2])) <= GLIBC else ["its tag promises no such system"]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith((".so", HELPER)):
                continue
            # The versions of the symbols that a library needs, and the libraries, are words in it.
            content = archive.read(name)
            versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", content)
            newest = max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))
            if newest > GLIBC:
                found.append(f"{name} needs {newest[0]}.{newest[1]}")
            if name.endswith(".so") and b"\0libgcc_s.so.1\0" not in content:
                found.append(f"{name} does without the unwinder of the system")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the C libraries of the package in place.")
    parser.add_argument("--wheel", type=Path, metavar="DIRECTORY", help="make a wheel there that runs on older systems")
    directory = parser.parse_args().wheel
    check_tools()
    if directory is None:
        build_c_libraries()
    else:
        build_portable_wheel(directory)


build_wheel = _checked(_build_wheel, check_tools)
build_editable = _checked(maturin.build_editable, check_tools)
build_sdist = _checked(maturin.build_sdist, check_rust)
get_requires_for_build_wheel = _checked(maturin.get_requires_for_build_wheel, check_tools)
get_requires_for_build_editable = _checked(maturin.get_requires_for_build_editable, check_tools)
get_requires_for_build_sdist = _checked(maturin.get_requires_for_build_sdist, check_rust)
prepare_metadata_for_build_wheel = _checked(maturin.prepare_metadata_for_build_wheel, check_tools)
prepare_metadata_for_build_editable = _checked(maturin.prepare_metadata_for_build_editable, check_tools)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

if __name__ == "__main__":
    main()
