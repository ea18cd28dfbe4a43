"""Why a peer refuses: codes of replies and what they become for a program."""

from __future__ import annotations

import errno

from ouroboros.control.effects import Address
from ouroboros.control.oap import OapError
from ouroboros.errors import (
    FlowAuthException,
    FlowCryptException,
    FlowNameException,
    FlowRefusedException,
    NodeLimitError,
    OuroborosError,
)
from ouroboros.layers.udp.options import written

#: Nobody accepts the name, or it is not known (`flows.md` 11).
NOBODY = -1003
#: The name is not known.
NAME = -1007
ENCRYPTION = -1008
AUTHENTICATION = -1009
#: The acceptor's node has no room for another flow.
NO_ROOM = -errno.ENOMEM

_NAMES = {
    -1000: "ENOTALLOC",
    -1001: "EIPCPTYPE",
    -1002: "EIRMD",
    NOBODY: "EIPCP",
    -1004: "EIPCPSTATE",
    -1005: "EFLOWDOWN",
    -1006: "EFLOWPEER",
    NAME: "ENAME",
    ENCRYPTION: "ECRYPT",
    AUTHENTICATION: "EAUTH",
}


def error_of(code: int, name: str, address: Address, why: str = "") -> OuroborosError:
    """What an allocation of `name` fails with when the node at `address` answered with that code.

    `why`: what the handshake makes of it.
    """
    number = f"{code} {_NAMES.get(code) or errno.errorcode.get(-code, '')}".strip()
    start = f"{written(address)} refused the flow to {name!r} ({number}): "
    match code:
        case -1003:
            return FlowRefusedException(
                start + "the name is not registered in its layer, or no program accepted in time"
            )
        case -1007:
            return FlowNameException(start + "it does not know the name")
        case -1008:
            return FlowCryptException(start + why)
        case -1009:
            return FlowAuthException(start + why)
        case code if code == NO_ROOM:
            return FlowRefusedException(start + "it has no room for another flow")
    return FlowRefusedException(start + "it does not say why")


def refusal(error: OapError, text: str) -> FlowRefusedException:
    """What a program gets for a handshake that failed: `text`, and why."""
    kind = FlowAuthException if error.code == AUTHENTICATION else FlowCryptException
    return kind(f"{text}: {error}")


def code_of(error: OuroborosError) -> int:
    """What a peer is told when its request fails with that error."""
    match error:
        case NodeLimitError():
            return NO_ROOM
        case FlowCryptException():
            return ENCRYPTION
        case FlowAuthException():
            return AUTHENTICATION
    return NOBODY
