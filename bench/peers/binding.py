"""Flows of the C prototype by its own Python package. Its interpreter has no other `ouroboros`."""

from __future__ import annotations

import importlib.metadata
import os

from bench.peers.face import Channel, Peer
from ouroboros import dev, irm


class Binding(Peer):
    """Flows between two programs of one host, with the default quality of service."""

    @staticmethod
    def version() -> str:
        return importlib.metadata.version("PyOuroboros")

    def serve(self) -> None:
        irm.bind_process(os.getpid(), self.address)

    def accept(self) -> Channel:
        return _channel(dev.flow_accept())

    def connect(self) -> Channel:
        return _channel(dev.flow_alloc(self.address))


def _channel(flow: dev.Flow) -> Channel:
    # A read whose time is over makes bytes of the error number.
    silence = (TimeoutError, ValueError)
    return Channel(flow.write, flow.read, flow.dealloc, give_up=flow.set_rcv_timeout, silence=silence)
