"""The first program: one end says hello, the other end says it back.

    python oecho.py --listen        in one terminal
    python oecho.py                 in another

Nothing has to be set up: the first of the two starts a node for this user, and a server that is bound to no name is
reached under the name of its program, here "oecho".
"""

import argparse
import sys

from ouroboros.dev import FlowException, flow_accept, flow_alloc

NAME = "oecho"


def server() -> None:
    print(f"Waiting for flows to {NAME}; stop with Ctrl-C.", flush=True)
    while True:
        with flow_accept() as flow:
            try:
                line = flow.readline()
                print(f"Client says: {line}", flush=True)
                flow.writeline(line)
            except (FlowException, UnicodeDecodeError) as error:  # a client that left early, or sent no text
                print(f"On to the next client: {error}", flush=True)


def client() -> None:
    with flow_alloc(NAME) as flow:
        flow.set_rcv_timeout(5.0)
        flow.writeline("Hello, PyOuroboros!")
        print(f"Server says: {flow.readline()}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Say hello over a flow.")
    parser.add_argument("-l", "--listen", action="store_true", help="be the server")
    try:
        server() if parser.parse_args().listen else client()
    except KeyboardInterrupt:
        print("Stopped.")
    except FlowException as error:
        sys.exit(f"oecho: {error}")


if __name__ == "__main__":
    main()
