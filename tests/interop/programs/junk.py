"""Sends junk to a node until its input ends.

Arguments: address and port of the node, own address and port (0 for any), a seed.
Says "sending" after the first hundred datagrams, and at the end how many it sent.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import sys

#: Codes of management datagrams, known and unknown.
CODES = (0, 1, 2, 3, 9, 0x71, 0x72, 0x73, 0xFF)


def management(chance: random.Random) -> bytes:
    head = struct.pack("!4I", 0, *(chance.choice((0, 1, 64, chance.getrandbits(32))) for _ in range(3)))
    body = head + chance.randbytes(28) + bytes([chance.choice(CODES), 0, chance.randrange(2)])
    whole = body + chance.randbytes(chance.choice((0, 15, 16, 52, 84, 1500)))
    return whole[: chance.choice((len(whole), chance.randrange(len(whole) + 1)))]


def datagram(chance: random.Random) -> bytes:
    kind = chance.randrange(4)
    if kind == 0:
        return management(chance)
    if kind == 1:
        return bytes(4) + chance.randbytes(chance.randrange(3000))
    if kind == 2:
        return struct.pack("!I", chance.choice((1, 64, 65, 4095, 0xFFFFFFFF))) + chance.randbytes(chance.randrange(100))
    return chance.randbytes(chance.choice((0, 1, 3, 4, 5, 1400, 9000)))


def main() -> None:
    address, port, own_address, own_port, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((own_address, int(own_port)))
        sent = 0
        # A thousand a second, so that it is its content and not its amount that is tried.
        while not select.select([sys.stdin], [], [], 0.001)[0]:
            sender.sendto(datagram(chance), (address, int(port)))
            sent += 1
            if sent == 100:
                print("sending", flush=True)
    print(sent, flush=True)


main()
