"""Requests for flows, from what callers give: for `ouroboros.dev`, `ouroboros.aio` and `ouroboros.server`."""

from __future__ import annotations

import math

from ouroboros._arguments import as_name, as_text, shown
from ouroboros._values import time_limit
from ouroboros.errors import FlowNameException
from ouroboros.qos import QoSSpec, check_qos
from ouroboros.wire.control import Accept, Alloc, Join

#: Seconds that `flow_alloc` and `flow_join` wait when no `timeo` is given.
DEFAULT_TIMEOUT = 20.0


def alloc_request(dst: str, qos: QoSSpec | None, timeo: float | None, wait: bool, layer: str | None) -> Alloc:
    limit = time_limit(timeo, DEFAULT_TIMEOUT)
    if layer is not None:
        layer = as_name(as_text(layer, "layer"), "layer", FlowNameException)
    # To the node, None is its default.
    return Alloc(check_name(dst), check_qos(qos), math.inf if limit is None else limit, bool(wait), layer)


def accept_request(timeo: float | None, name: str | None) -> Accept:
    _check_no_name(timeo)
    return Accept(None if name is None else check_name(name), time_limit(timeo))


def join_request(dst: str, qos: QoSSpec | None, timeo: float | None) -> Join:
    return Join(check_name(dst), check_qos(qos), time_limit(timeo, DEFAULT_TIMEOUT))


def check_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {shown(name)}")
    return as_name(name, "name", FlowNameException)


def _check_no_name(timeo: object) -> None:
    if isinstance(timeo, str):
        raise TypeError(f"timeo is a number of seconds, not {shown(timeo)}: did you mean name={shown(timeo)}?")
