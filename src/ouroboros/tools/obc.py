"""The `obc` command: writes a message to a broadcast layer, or with `-l` prints the messages of the others.

One packet for each message, terminated by a NUL as the C prototype's are; either end can be one of its programs.
"""

from __future__ import annotations

import click

from ouroboros import __version__
from ouroboros.dev import Flow, flow_join
from ouroboros.errors import FlowException
from ouroboros.tools._common import CONTEXT, Tool, fail, text_of
from ouroboros.tools._output import run_command, say

#: The C prototype's reader takes this many bytes, NUL included.
LARGEST = 256

#: Seconds that the writer waits for the layer to take its message.
PATIENCE = 10.0


def encode_message(text: str) -> bytes:
    """The packet of a message; raise `ValueError` when a reader could not print all of it."""
    message = text.encode(errors="surrogateescape")
    if b"\0" in message:
        raise ValueError("the message has a null character in it, which would end it")
    if not 0 < len(message) < LARGEST:
        raise ValueError(f"the message has {len(message)} bytes; it can have 1 to {LARGEST - 1}")
    return message + b"\0"


def _join(layer: str) -> Flow:
    try:
        return flow_join(layer)
    except FlowException as error:
        fail(f"Failed to join {layer}: {error}")


def _read(layer: str) -> None:
    say("Starting a reader.")
    try:
        with _join(layer) as flow:
            say("New flow.")
            while True:
                say(f"Message is {text_of(flow.read())}.")
    except KeyboardInterrupt:
        say("Reader stopped.")
    except FlowException as error:
        fail(f"The flow to {layer} ended: {error}")


def _write(layer: str, packet: bytes) -> None:
    with _join(layer) as flow:
        flow.set_snd_timeout(PATIENCE)
        try:
            flow.write(packet)
        except FlowException as error:
            fail(f"Failed to write to {layer}: {error}")


@click.command(cls=Tool, instead="the layer is given by -n, the message by -m", context_settings=CONTEXT)
@click.option("-n", "--name", help="Name of the broadcast layer.")
@click.option("-m", "--message", help="What to write, up to 255 bytes.")
@click.option("-l", "--listen", is_flag=True, help="Print what others write.")
@click.version_option(__version__)
def obc(*, name: str | None, message: str | None, listen: bool) -> None:
    """Write a message to all members of a broadcast layer, or print what they write."""
    if name is None:
        raise click.UsageError("no layer given: add -n LAYER")
    if listen:
        _read(name)
        return
    if message is None:
        raise click.UsageError("nothing to write: add -m TEXT, or -l to read")
    try:
        packet = encode_message(message)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _write(name, packet)


def main() -> None:
    """Entry point of the `obc` command."""
    run_command(obc)


if __name__ == "__main__":
    main()
