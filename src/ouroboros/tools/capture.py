"""`ouroboros capture`: shows what the members of layers on this node send and get, or writes it for Wireshark."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import IO

import click

from ouroboros.capture import MOST_SNAP, SNAP, Capture, Packet
from ouroboros.capture import capture as start
from ouroboros.errors import OuroborosError
from ouroboros.tools._common import fail
from ouroboros.tools._output import say


def _line(packet: Packet) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(packet.time // 10**9))
    return f"{moment}.{packet.time % 10**9 // 1000:06} {packet.comment}, length {packet.length}"


def _show(packets: Capture, count: int | None) -> int:
    shown = 0
    # Ctrl-C is the way to end it.
    with contextlib.suppress(KeyboardInterrupt):
        while count is None or shown < count:
            if (packet := next(packets, None)) is None:
                break
            say(_line(packet))
            shown += 1
    return shown


def _save(packets: Capture, file: IO[bytes], count: int | None) -> None:
    # As above. A reader that has closed the pipe has seen what it wanted.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        packets.save(file, count=count)


@click.command()
@click.argument("layer", required=False)
@click.option("-i", "--ipcp", "name", metavar="NAME", help="Only the packets of this IPC process.")
@click.option("-w", "--write", "path", metavar="FILE", help="Write pcapng, - for standard output, rather than lines.")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="End after so many packets.")
@click.option("-s", "--snap", type=click.IntRange(1, MOST_SNAP), default=SNAP, metavar="BYTES", help="Of each packet.")
def capture(layer: str | None, name: str | None, path: str | None, count: int | None, snap: int) -> None:
    """Show what the members of LAYER on this node send and get; without LAYER, those of all layers.

    Ends with Ctrl-C, after N packets, or with the layer. For Wireshark:

        ouroboros capture net -w - | wireshark -k -i -

    Only the owner of the node and root may. Packets between two programs of this node, with no impairment between them, do
    not pass the node and are not seen.
    """
    if path == "-" and sys.stdout.isatty():
        fail("A capture is not for terminals: name a file, or pipe it into a program (| wireshark -k -i -).")
    try:
        with start(layer, name=name, snap=snap) as packets:
            where = ", ".join(sorted({place.layer for place in packets.places}))
            say(f"Capturing {where}.", err=True)
            if path is None:
                _show(packets, count)
            elif path == "-":
                _save(packets, sys.stdout.buffer, count)
            else:
                with open(path, "wb") as file:
                    _save(packets, file, count)
            if packets.lost:
                say(f"{packets.lost} packets were lost, because they were not read fast enough.", err=True)
    except OuroborosError as error:
        fail(f"Cannot capture: {error}")
    except OSError as error:
        fail(f"Cannot write to {path}: {error.strerror}")


__all__ = ["capture"]
