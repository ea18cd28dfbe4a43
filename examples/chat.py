"""A chat room without a server: everyone who joins the broadcast layer hears everyone else.

    python chat.py ada              in one terminal
    python chat.py grace            in another, and so on

What you type goes to all others. End with Ctrl-D. For scripts: `--say TEXT` says one line on joining, and `--count N`
leaves after N lines of others.
"""

import argparse
import os
import selectors
import sys

from ouroboros.dev import Flow, FlowException, FlowProperties, FlowWouldBlockException, flow_join


class Member:
    """One seat in the room. A packet is a line of text: who, and what was said."""

    def __init__(self, flow: Flow, nick: str) -> None:
        self.flow = flow
        self.flow.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlockingRead)
        self.nick = nick
        self.heard = 0
        self._typed = b""

    def say(self, text: str) -> None:
        self.flow.write(f"{self.nick}: {text}".encode(errors="replace"))

    def hear(self) -> None:
        try:
            packets = self.flow.read_many()
        except FlowWouldBlockException:  # the selector says that there may be something, not that there is
            return
        for packet in packets:
            print(packet.decode(errors="replace"), flush=True)
        self.heard += len(packets)

    def take_typed(self) -> bool:
        """Say the lines that were typed; False at the end of the input.

        Read from the descriptor itself: a buffered `sys.stdin` could hold lines back that the selector cannot see.
        """
        data = os.read(sys.stdin.fileno(), 4096)
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in lines:
            self.say(line.decode(errors="replace"))
        return bool(data)


def converse(member: Member, *, listen_for: int | None, interactive: bool) -> None:
    """Hear and speak until the input ends, or until `listen_for` lines were heard."""
    with selectors.DefaultSelector() as selector:
        selector.register(member.flow.fileno(), selectors.EVENT_READ, "flow")
        if interactive:
            selector.register(sys.stdin, selectors.EVENT_READ, "keyboard")
        while listen_for is None or member.heard < listen_for:
            for key, _ in selector.select():
                if key.data == "flow":
                    member.hear()
                elif not member.take_typed():
                    return


def main() -> None:
    parser = argparse.ArgumentParser(description="Chat over a broadcast layer.")
    parser.add_argument("nick", help="what the others call you")
    parser.add_argument("--layer", default="broadcast", help="the broadcast layer to join (default: %(default)s)")
    parser.add_argument("--say", metavar="TEXT", help="say this on joining and do not read the keyboard")
    parser.add_argument("--count", metavar="N", type=int, help="leave after N lines of others")
    options = parser.parse_args()
    try:
        with flow_join(options.layer) as flow:
            member = Member(flow, options.nick)
            print(f"{options.nick} joined {options.layer}.", flush=True)
            if options.say is not None:
                member.say(options.say)
            count = options.count if options.say is None else options.count or 0
            converse(member, listen_for=count, interactive=options.say is None)
    except KeyboardInterrupt:
        print("Left.")
    except FlowException as error:
        sys.exit(f"chat: {error}")


if __name__ == "__main__":
    main()
