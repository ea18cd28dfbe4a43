"""Why a peer refuses: codes of replies and what they become for a program."""

from __future__ import annotations

import errno

from ouroboros.control.effects import Address
from ouroboros.errors import FlowNameException, FlowRefusedException, NodeLimitError, OuroborosError
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


def error_of(code: int, name: str, address: Address) -> OuroborosError:
    """What an allocation of `name` fails with when the node at `address` answered with that code."""
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
            return FlowRefusedException(start + "the two sides do not agree on encryption")
        case -1009:
            return FlowRefusedException(
                start
                + "authentication failed, or the clocks of the two hosts differ (20 s late and 0.1 s early are allowed)"
            )
        case code if code == NO_ROOM:
            return FlowRefusedException(start + "it has no room for another flow")
    return FlowRefusedException(start + "it does not say why")


def code_of(error: OuroborosError) -> int:
    """What a peer is told when its request fails with that error."""
    match error:
        case NodeLimitError():
            return NO_ROOM
    return NOBODY
