"""`ouroboros setup`: what root has to do once, as commands to look at and to run."""

from __future__ import annotations

import getpass
import shlex
from pathlib import Path

import click

import ouroboros
from ouroboros.runtime import rawsock
from ouroboros.tools._common import fail
from ouroboros.tools._output import say

#: The helper that this package carries.
_HELPER = Path(ouroboros.__file__).parent / "cdev/lib" / rawsock.HELPER.name

_COMMANDS = """\
# {state}
# Whoever is in the group {group} can send any frame on the devices in {allowed}.
getent group {group} > /dev/null || groupadd --system {group}
usermod --append --groups {group} {user}  # who has to log in again
install -D --owner=root --group={group} --mode=0750 {source} {helper}
setcap cap_net_raw=ep {helper}
mkdir -p {folder}
echo {line} >> {allowed}
chmod 0644 {allowed}"""


@click.group()
def setup() -> None:
    """Say the commands by which root sets something up.

    Nothing is changed. Look at them, then `ouroboros setup ... | sudo sh`.
    """


@setup.command()
@click.argument("device")
@click.argument("kind", default="a000", metavar="[ETHERTYPE|llc]")
@click.option("--group", default="ouroboros", show_default=True, help="Whose members may use the device.")
@click.option("--user", default=getpass.getuser, help="Who comes into that group.  [default: who asks]")
def ethernet(*, device: str, kind: str, group: str, user: str) -> None:
    """Let a node without privilege use DEVICE for layers eth-dix, or eth-llc.

    The commands install a small program, the only thing with a privilege, outside of this package: an upgrade takes nothing
    away. Run them again for each device and ethertype.
    """
    if not _HELPER.exists():
        fail(
            f"this package was built without {_HELPER.name}: `make build` in a checkout makes it, or "
            f"`cargo build --release -p {_HELPER.name}`, which leaves it in target/release"
        )
    words = {
        "group": group,
        "user": user,
        "source": str(_HELPER),
        "helper": str(rawsock.HELPER),
        "folder": str(rawsock.ALLOWED.parent),
        "allowed": str(rawsock.ALLOWED),
        "line": f"{device} {kind}",
    }
    quoted = {word: shlex.quote(value) for word, value in words.items()}
    say(_COMMANDS.format(state=rawsock.missing() or "It is installed, and you may use it.", **quoted))
