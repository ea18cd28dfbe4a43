"""Somebody on the network who sends datagrams of his own, and says what comes back.

Argument: his address and the port of the layers. Each line of its input is a JSON list of an address and a datagram in
hexadecimal; it is sent there, and the next datagram that comes from there is the answer.
"""

from __future__ import annotations

import json
import socket
import sys


def main() -> None:
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as own:
        own.bind((address, port))
        print("ready", flush=True)
        for line in sys.stdin:
            to, datagram = json.loads(line)
            own.sendto(bytes.fromhex(datagram), (to, port))
            sender = None
            while sender != to:
                answer, (sender, *_) = own.recvfrom(65536)
            print(json.dumps(answer.hex()), flush=True)


main()
