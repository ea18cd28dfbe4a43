"""The check of a wheel: whether all of it runs with the C library that its tag promises."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("maturin", reason="maturin is not installed: it is needed to build only")

_spec = importlib.util.spec_from_file_location("build_backend", Path(__file__).parents[2] / "build_backend.py")
assert _spec is not None
assert _spec.loader is not None
build_backend = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build_backend)

#: Part of a library that is linked with the unwinder of the system.
UNWINDER = b"\0libgcc_s.so.1\0"


def wheel(directory: Path, tag: str, **libraries: bytes) -> Path:
    path = directory / f"pyouroboros-0.1.0-cp311-abi3-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ouroboros/qos.py", "# GLIBC_9.99")
        for name, content in libraries.items():
            archive.writestr(f"ouroboros/{name}.so", content)
    return path


@pytest.mark.parametrize(
    ("tag", "library", "found"),
    [
        ("manylinux_2_28_x86_64", b"GLIBC_2.2.5\0GLIBC_2.28\0GLIBC_2.9" + UNWINDER, []),
        ("manylinux_2_17_aarch64", b"GLIBC_2.17" + UNWINDER, []),
        ("manylinux_2_28_x86_64", b"GLIBC_2.29\0GLIBC_2.34\0GLIBC_2.4" + UNWINDER, ["ouroboros/engine.so needs 2.34"]),
        ("manylinux_2_28_x86_64", b"GLIBC_3.0" + UNWINDER, ["ouroboros/engine.so needs 3.0"]),
        ("manylinux_2_34_x86_64", b"GLIBC_2.5" + UNWINDER, ["its tag promises no such system"]),
        ("linux_x86_64", b"GLIBC_2.5" + UNWINDER, ["its tag promises no such system"]),
        ("manylinux_2_28_x86_64", b"GLIBC_2.5", ["ouroboros/engine.so does without the unwinder of the system"]),
    ],
)
def test_a_wheel_that_does_not_run_everywhere_is_found(
    tmp_path: Path, tag: str, library: bytes, found: list[str]
) -> None:
    assert build_backend.problems(wheel(tmp_path, tag, engine=library, other=b"GLIBC_2.14" + UNWINDER)) == found
