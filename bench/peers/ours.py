"""Flows: `ouroboros.dev` on a node started for the measurement."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import ouroboros
from bench.harness import UDP_NAME
from bench.loops import BATCH
from bench.peers.face import Channel, Peer
from ouroboros import dev, irm
from ouroboros.qos import QoSSpec

#: Seconds. Only a failure takes this long, and then the report says what failed.
_TIMEOUT = 30.0


class Ours(Peer):
    """Flows allocated by name in a local layer, with the default quality of service."""

    needs_node = True
    #: What the flows are asked to give.
    qos = QoSSpec()

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
        return _channel(dev.flow_alloc(self.address, self.qos, _TIMEOUT))


class OursNative(Ours):
    """The same API over an installed C Ouroboros."""

    needs_node = False

    def serve(self) -> None:
        irm.bind_process(os.getpid(), self.address)


class Broadcast(Ours):
    """Flows of a broadcast layer, on a node of ours or, by our API, on the C prototype."""

    def serve(self) -> None:
        """Between hosts the harness has made the layer."""
        if not any(ipcp.layer == self.address for ipcp in irm.list_ipcps()):
            layer = irm.create_ipcp("bench", irm.IpcpType.BROADCAST)
            irm.bootstrap_ipcp(layer, irm.IpcpConfig(irm.IpcpType.BROADCAST, layer_name=self.address))

    def accept(self) -> Channel:
        return self.connect()

    def connect(self) -> Channel:
        return _channel(dev.flow_join(self.address))


class OursEncrypted(Ours):
    """The same, encrypted between the two programs."""

    qos = QoSSpec(cypher_s=256)


class OursUdp(Ours):
    """Flows between two nodes over a UDP layer, which the harness has made, with its name."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = UDP_NAME

    def serve(self) -> None:
        irm.bind_process(os.getpid(), self.address)


class OursUdpReliable(OursUdp):
    qos = QoSSpec(loss=0)


class OursUdpEncrypted(OursUdp):
    qos = QoSSpec(cypher_s=256)


class OursUdpX25519(OursUdp):
    """Encrypted by what is configured for the name, with the quickest key exchange."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        folder = Path(os.environ["OUROBOROS_SECURITY_DIR"], "client", self.address)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "enc.conf").write_text("kex=X25519\n")

    def connect(self) -> Channel:
        flow = dev.flow_alloc(self.address, self.qos, _TIMEOUT)
        if flow.security is None:
            raise RuntimeError("the flow is not encrypted")
        return _channel(flow)


class OursUdpReliableEncrypted(OursUdp):
    qos = QoSSpec(loss=0, cypher_s=256)


def _channel(flow: dev.Flow) -> Channel:
    return Channel(
        flow.write,
        flow.read,
        flow.dealloc,
        send_many=flow.write_many,
        recv_many=partial(flow.read_many, BATCH),
        give_up=flow.set_rcv_timeout,
        give_up_sending=flow.set_snd_timeout,
    )
