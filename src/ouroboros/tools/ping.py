"""`ouroboros ping` and `ouroboros trace`: who is on the way to a name, in each layer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec

from ouroboros.errors import OuroborosError
from ouroboros.ping import TIMEOUT, Hop
from ouroboros.ping import ping as ask_ends
from ouroboros.ping import trace as ask_all
from ouroboros.tools._common import Quantity, fail, parse_duration, sleep_until
from ouroboros.tools._output import say

_DURATION = Quantity("duration", parse_duration)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print an object for programs, one a line."),
        click.option("-t", "--timeout", type=_DURATION, default=TIMEOUT, help="How long an answer may take [1s]."),
        click.option("--layer", metavar="LAYER", help="The layer that is to lead there [any]."),
        click.argument("name"),
    ):
        command = option(command)
    return command


@click.command()
@_options
@click.option("-c", "--count", type=click.IntRange(1), default=1, show_default=True, help="How often to ask.")
@click.option("-i", "--interval", type=_DURATION, default=1.0, help="How long to wait between two [1s].")
def ping(name: str, layer: str | None, timeout: float, as_json: bool, count: int, interval: float) -> None:
    """Ask the member that has NAME, and the end of the first hop in each layer below.

    Asks no program: members of the layers answer. Exits with 1 when the member that has NAME did not.
    """
    heard = 0
    start = time.monotonic()
    for number in range(count):
        sleep_until(start + number * interval)
        hops = _asked(lambda: ask_ends(name, layer=layer, timeout=timeout))
        heard += hops[0].state == "answered"
        _show(hops, name, as_json=as_json)
    raise SystemExit(0 if heard else 1)


@click.command()
@_options
def trace(name: str, layer: str | None, timeout: float, as_json: bool) -> None:
    """Show all members on the way to NAME, and, for each hop, those on the way of the flow that carries it below.

    A member that does not answer, such as one of the C prototype, is a star. Exits with 1 when the last one is.
    """
    hops = _asked(lambda: ask_all(name, layer=layer, timeout=timeout))
    _show(hops, name, as_json=as_json)
    last = [hop for hop in hops if not hop.within][-1]
    raise SystemExit(0 if last.state != "silent" else 1)


def _asked(ask: Callable[[], list[Hop]]) -> list[Hop]:
    try:
        return ask()
    except (OuroborosError, ValueError) as error:
        fail(str(error))


def _show(hops: Sequence[Hop], name: str, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps({"name": name, "hops": [_plain(hop) for hop in hops]}))
        return
    for hop in hops:
        say(_line(hop))


def _plain(hop: Hop) -> dict[str, Any]:
    return {**msgspec.to_builtins(hop), "path": list(hop.path)}


def _line(hop: Hop) -> str:
    """Such as `2.1  layer net (udp4, rank 0)  192.0.2.1:4000  -`."""
    where = f"layer {hop.layer} ({hop.type}, rank {hop.rank})" if hop.layer else "no layer"
    who = " ".join(filter(None, ("*" if hop.state == "silent" else hop.member, hop.address)))
    time = "" if hop.round_trip is None else f"  {hop.round_trip * 1000:.3f} ms"
    indent = "  " * len(hop.within)
    return f"{indent}{'.'.join(map(str, hop.path))}  {where}  {who}{time}"


__all__ = ["ping", "trace"]
