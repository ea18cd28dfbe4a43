"""Why a peer refuses: codes of replies and what they become for a program."""

from __future__ import annotations

import errno
from enum import IntEnum

from ouroboros.errors import (
    FlowAuthException,
    FlowCryptException,
    FlowNameException,
    FlowRefusedException,
    NodeLimitError,
    OuroborosError,
)


class Refusal(IntEnum):
    """Error codes of the prototype (`flows.md` 11), by its names, and the one for a lack of memory."""

    ENOTALLOC = -1000
    EIPCPTYPE = -1001
    EIRMD = -1002
    #: Nobody accepts the name, or it is not known.
    EIPCP = -1003
    EIPCPSTATE = -1004
    EFLOWDOWN = -1005
    EFLOWPEER = -1006
    #: The name is not known, or not served any more.
    ENAME = -1007
    ECRYPT = -1008
    EAUTH = -1009
    #: The acceptor's node has no room for another flow.
    ENOMEM = -errno.ENOMEM


_NAMES = {int(each): each.name for each in Refusal}


def error_of(code: int, name: str, place: str, why: str = "") -> OuroborosError:
    """The error of an allocation of `name` when the node at `place` answered with that code.

    `why`: what the handshake makes of it.
    """
    number = f"{code} {_NAMES.get(code) or errno.errorcode.get(-code, '')}".strip()
    start = f"{place} refused the flow to {name!r} ({number}): "
    match code:
        case Refusal.EIPCP:
            return FlowRefusedException(
                start + "the name is not registered in its layer, or no program accepted in time"
            )
        case Refusal.ENAME:
            return FlowNameException(start + "it does not know the name, or the program that served it has ended")
        case Refusal.ECRYPT:
            return FlowCryptException(start + why)
        case Refusal.EAUTH:
            return FlowAuthException(start + why)
        case Refusal.ENOMEM:
            return FlowRefusedException(start + "it has no room for another flow")
    return FlowRefusedException(start + "it does not say why")


def code_of(error: OuroborosError) -> int:
    """The code for a peer whose request fails with that error."""
    match error:
        case NodeLimitError():
            return Refusal.ENOMEM
        case FlowCryptException():
            return Refusal.ECRYPT
        case FlowAuthException():
            return Refusal.EAUTH
        case FlowNameException():
            return Refusal.ENAME
    return Refusal.EIPCP
