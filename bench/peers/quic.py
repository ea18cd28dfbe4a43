"""QUIC by aioquic, on asyncio: a new connection each, with one stream."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Coroutine
from functools import partial
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from bench.peers.face import Awaited, Channel, Peer
from bench.peers.sockets import write_certificate

_PORT = 47_102
_PROTOCOLS = ["bench"]
_TIMEOUT = 30.0
#: Packets that are written at a time.
_TURN = 64

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Quic(Peer):
    """The client checks no certificate. All packets of a loop have one size, so that they need no framing."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._runner = asyncio.Runner()
        self._came: asyncio.Queue[Streams] = asyncio.Queue()

    @staticmethod
    def version() -> str:
        return f"aioquic {version('aioquic')}"

    def serve(self) -> None:
        configuration = QuicConfiguration(is_client=False, alpn_protocols=_PROTOCOLS)
        with tempfile.TemporaryDirectory() as name:
            configuration.load_cert_chain(*write_certificate(Path(name)))

        def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._came.put_nowait((reader, writer))

        self._run(serve(self.address, _PORT, configuration=configuration, stream_handler=came))

    def accept(self) -> Channel:
        return self._channel(*self._run(self._came.get()))

    def connect(self) -> Channel:
        return self._channel(*self._run(self._connect()))

    def shutdown(self) -> None:
        self._runner.close()

    async def _connect(self) -> Streams:
        # Not by aioquic's context manager, whose end waits three round trips for packets that may still come.
        configuration = QuicConfiguration(alpn_protocols=_PROTOCOLS, verify_mode=ssl.CERT_NONE)
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: QuicConnectionProtocol(QuicConnection(configuration=configuration)),
            local_addr=("0.0.0.0", 0),
        )
        protocol.connect((self.address, _PORT))
        await protocol.wait_connected()
        return await protocol.create_stream()

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(_TIMEOUT):
                return await call

        return self._runner.run(limited())

    def _channel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Channel:
        turn = cycle(range(_TURN))

        async def send(packet: bytes) -> None:
            writer.write(packet)
            # aioquic holds nobody back, so its connection would not get its turn before all is written.
            if next(turn) == 0:
                await asyncio.sleep(0)

        async def close() -> None:
            writer.transport.protocol.close()  # type: ignore[attr-defined]

        def awaited(size: int) -> Awaited:
            return Awaited(send, partial(reader.readexactly, size), self._runner.run)

        return Channel(
            lambda packet: self._run(send(packet)),
            lambda: self._run(reader.readexactly(1)),
            lambda: self._run(close()),
            awaited=awaited,
        )
