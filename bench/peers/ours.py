"""Flows: `ouroboros.dev` on a node started for the measurement."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import ouroboros
from bench.loops import BATCH
from bench.peers.face import Channel, Peer
from ouroboros import dev, irm

#: Seconds. Only a failure takes this long, and then the report says what failed.
_TIMEOUT = 30.0


class Ours(Peer):
    """Flows allocated by name in a local layer, with the default quality of service."""

    needs_node = True

    def __init__(self, address: str) -> None:
        super().__init__(Path(address).name)

    @staticmethod
    def version() -> str:
        return str(ouroboros.__version__)

    def serve(self) -> None:
        layer = irm.create_ipcp("bench", irm.IpcpType.LOCAL)
        irm.bootstrap_ipcp(layer, irm.IpcpConfig(irm.IpcpType.LOCAL, layer_name="bench"))
        irm.create_name(irm.NameInfo(self.address))
        irm.reg_name(self.address, layer)
        irm.bind_process(os.getpid(), self.address)

    def accept(self) -> Channel:
        return _channel(dev.flow_accept(timeo=_TIMEOUT))

    def connect(self) -> Channel:
        return _channel(dev.flow_alloc(self.address, timeo=_TIMEOUT))


def _channel(flow: dev.Flow) -> Channel:
    return Channel(
        flow.write,
        flow.read,
        flow.dealloc,
        send_many=flow.write_many,
        recv_many=partial(flow.read_many, BATCH),
    )
