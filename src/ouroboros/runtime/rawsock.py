"""The helper that has the privilege for packet sockets in the place of the node: `rust/rawsock`."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

#: Where `ouroboros setup ethernet` has it installed, and the file in which root allows devices.
HELPER = Path("/usr/local/libexec/ouroboros-rawsock")
ALLOWED = Path("/etc/ouroboros/ethernet")
#: The privilege of the file, as the kernel keeps it. Without the helper's it is gone with each copy of the file.
_CAPABILITY = "security.capability"
#: Seconds. It waits for nobody.
_PATIENCE = 10.0


def missing() -> str:
    """What is missing for the helper to work, and what to do about it; "" for nothing that can be seen from here."""
    if not HELPER.exists():
        return f"there is no {HELPER}, which has it in the place of the node: `ouroboros setup ethernet` installs it"
    if not os.access(HELPER, os.X_OK):
        return (
            f"only the group {_group()} may use {HELPER}: `usermod --append --groups {_group()} USER`, and log in again"
        )
    if _CAPABILITY not in os.listxattr(HELPER):
        return f"{HELPER} has lost it: `setcap cap_net_raw=ep {HELPER}`"
    if not ALLOWED.exists():
        return f"there is no {ALLOWED}, in which root allows devices: `ouroboros setup ethernet` makes it"
    return ""


def _group() -> str:
    try:
        return HELPER.group()
    except KeyError:
        return str(HELPER.stat().st_gid)


def open_socket(device: str, kind: str) -> socket.socket:
    """A packet socket that is bound to the device and has a locked filter. `kind`: "llc", or the digits of an ethertype.
    Raises `OSError` with a text that says what is missing."""
    if why := missing():
        raise OSError(0, f"this node is without the privilege CAP_NET_RAW, and {why}")
    with ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        try:
            done = subprocess.run(
                [str(HELPER), device, kind],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={},
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(0, f"{HELPER} does not answer") from error
        if done.returncode:
            raise OSError(0, f"{HELPER} refuses it: {done.stderr.strip() or f'exit status {done.returncode}'}")
        ours.setblocking(False)
        _, descriptors, *_ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise OSError(0, f"{HELPER} passed no socket on")
    sock = socket.socket(fileno=descriptors[0])
    sock.setblocking(False)
    return sock
