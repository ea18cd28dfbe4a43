"""The `oecho` command: says hello to the name `oecho`, or with `-l` is the server that answers.

One packet each way, 16 bytes, terminated by a NUL as the C prototype's are; either end can be one of its programs.
"""

from __future__ import annotations

import click

from ouroboros import __version__
from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.errors import FlowException, FlowTimeoutException
from ouroboros.tools._common import CONTEXT, Tool, fail, text_of
from ouroboros.tools._output import run_command, say

NAME = "oecho"
GREETING = b"Client says hi!\0"

#: Seconds that a server waits for the greeting and a client for the answer.
PATIENCE = 10.0


@click.command(
    cls=Tool, instead="it talks to the name oecho only; for others there is oping -n {}", context_settings=CONTEXT
)
@click.option("-l", "--listen", is_flag=True, help="Be the server.")
@click.version_option(__version__)
def oecho(listen: bool) -> None:
    """Send a greeting to the server of the name oecho and print what it sends back."""
    if listen:
        _serve()
    else:
        _greet()


def _serve() -> None:
    say("Starting the server.")
    try:
        while True:
            with flow_accept() as flow:
                say("New flow.")
                _answer(flow)
    except KeyboardInterrupt:
        say("Server stopped.")
    except FlowException as error:
        fail(f"Cannot accept flows: {error}")


def _answer(flow: Flow) -> None:
    flow.set_rcv_timeout(PATIENCE)
    flow.set_snd_timeout(PATIENCE)
    try:
        message = flow.read()
        say(f"Message from client is {text_of(message)}.")
        flow.write(message)
    except FlowException as error:
        # One client that leaves early or stays silent is no reason to leave the others without a server.
        say(f"No greeting from the client: {error}", err=True)


def _greet() -> None:
    try:
        flow = flow_alloc(NAME)
    except FlowException as error:
        fail(f"Failed to allocate a flow to {NAME}: {error}\nIs the server running? Start it with: oecho -l")
    with flow:
        flow.set_rcv_timeout(PATIENCE)
        try:
            flow.write(GREETING)
            say(f"Server replied with {text_of(flow.read())}")
        except FlowTimeoutException:
            fail(f"The server of {NAME} did not reply within {PATIENCE:g} s.")
        except FlowException as error:
            fail(f"The server of {NAME} did not reply: {error}")


def main() -> None:
    """Entry point of the `oecho` command."""
    run_command(oecho)


if __name__ == "__main__":
    main()
