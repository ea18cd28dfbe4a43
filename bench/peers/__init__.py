"""The means of talking that are compared: one small class each, all with the face of `Peer`."""

from __future__ import annotations

import importlib

from bench.peers.face import Peer

#: Key -> where it lives. Imported one at a time, in the worker, so that a missing library costs only its own column.
_PEERS = {
    "seqpacket": "bench.peers.seqpacket:Seqpacket",
    "pipe": "bench.peers.pipe:Pipe",
    "zmq": "bench.peers.zmq_ipc:ZmqPair",
    "zmq-router": "bench.peers.zmq_ipc:ZmqRouter",
    "limit": "bench.peers.bare_ring:BareRing",
    "ours": "bench.peers.ours:Ours",
    "ours-aio": "bench.peers.awaited:OursAwaited",
    "broadcast": "bench.peers.ours:Broadcast",
    "ours-encrypted": "bench.peers.ours:OursEncrypted",
    "native": "bench.peers.ours:OursNative",
    "binding": "bench.peers.binding:Binding",
    "ours-udp": "bench.peers.ours:OursUdp",
    "ours-udp-reliable": "bench.peers.ours:OursUdpReliable",
    "ours-udp-encrypted": "bench.peers.ours:OursUdpEncrypted",
    "ours-udp-x25519": "bench.peers.ours:OursUdpX25519",
    "ours-udp-reliable-encrypted": "bench.peers.ours:OursUdpReliableEncrypted",
    "udp": "bench.peers.sockets:UdpSocket",
    "tcp": "bench.peers.sockets:TcpSocket",
    "tls": "bench.peers.sockets:TlsSocket",
    "quic": "bench.peers.quic:Quic",
    "streams": "bench.peers.awaited:Streams",
}


def load(name: str) -> type[Peer]:
    """Return the class of a peer; raise ImportError when what it needs is not installed."""
    module, _, cls = _PEERS[name].partition(":")
    peer: type[Peer] = getattr(importlib.import_module(module), cls)
    return peer
