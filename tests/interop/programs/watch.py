"""Watches what crosses the link between the hosts, from the network of one.

Arguments: the name of the interface, the port of the layers. Each line of its input is answered with a list of the datagrams
of flows, in both directions and in hexadecimal, that crossed since the last line; the line "management" with a list of those
of management.
"""

from __future__ import annotations

import json
import socket
import sys

ALL_PROTOCOLS, IPV4, UDP = 3, 4, 17
HEADERS = {IPV4: 20, 6: 40}
MANAGEMENT = bytes(4)


def datagram(packet: bytes, port: bytes) -> bytes | None:
    """What a packet carries for the layers."""
    version = packet[0] >> 4
    if version not in HEADERS:
        return None
    start = HEADERS[version]
    protocol = packet[9] if version == IPV4 else packet[6]
    return packet[start + 8 :] if protocol == UDP and packet[start + 2 : start + 4] == port else None


def main() -> None:
    # Packets are here when their sender returns from sending: nothing has to be waited for.
    watcher = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
    watcher.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
    watcher.bind((sys.argv[1], ALL_PROTOCOLS))
    watcher.setblocking(False)
    port = int(sys.argv[2]).to_bytes(2, "big")
    print("ready", flush=True)
    for line in sys.stdin:
        management = line.strip() == "management"
        seen = []
        while True:
            try:
                found = datagram(watcher.recv(65536), port)
            except BlockingIOError:
                break
            if found is not None and (found[:4] == MANAGEMENT) == management:
                seen.append(found.hex())
        print(json.dumps(seen), flush=True)


main()
