"""The number by which the node tells a process from what the same pid runs later."""

from __future__ import annotations

import os
import struct

#: The entry of the auxiliary vector that says where the kernel put 16 random bytes.
_AT_RANDOM = 25

_FNV_START = 0xCBF2_9CE4_8422_2325
_FNV_PRIME = 0x100_0000_01B3
_UINT64 = 2**64 - 1


def instance() -> int:
    """The instance number of this process: the same for all that says hello from it, be it Python or a C library, and
    another one after a fork or an exec. `rust/client/src/instance.rs` computes it in the same way."""
    number = _FNV_START
    for byte in _random_of_exec() + struct.pack("<I", os.getpid()):
        number = (number ^ byte) * _FNV_PRIME & _UINT64
    return number & 0xFFFF_FFFF_FFFF


def _random_of_exec() -> bytes:
    """The bytes that the kernel drew when this program was executed."""
    try:
        with open("/proc/self/auxv", "rb") as file:
            vector = file.read()
        address = dict(struct.iter_unpack("@LL", vector))[_AT_RANDOM]
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            drawn = os.pread(memory.fileno(), 16, address)
    except (OSError, KeyError, struct.error):
        return _from_libc()
    return drawn if len(drawn) == 16 else _from_libc()


def _from_libc() -> bytes:
    """The same for a process that may not read these files, because it changed its user."""
    # Takes longer to import than all the rest.
    import ctypes

    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return ctypes.string_at(getauxval(_AT_RANDOM), 16)
