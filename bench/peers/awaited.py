"""Connections whose calls are awaited, on asyncio: our async flows, and the streams of the standard library."""

from __future__ import annotations

import asyncio
import platform
from functools import partial
from pathlib import Path

from bench.peers.face import Awaited, Channel, Peer
from bench.peers.ours import Ours
from ouroboros import aio

#: Seconds. Only a failure takes this long.
_TIMEOUT = 30.0


class OursAwaited(Ours):
    """`ouroboros.aio` on asyncio, with the node of `Ours`."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._runner = asyncio.Runner()

    def accept(self) -> Channel:
        return self._channel(self._runner.run(aio.flow_accept(_TIMEOUT)))

    def connect(self) -> Channel:
        return self._channel(self._runner.run(aio.flow_alloc(self.address, timeo=_TIMEOUT)))

    def shutdown(self) -> None:
        self._runner.close()

    def _channel(self, flow: aio.Flow) -> Channel:
        run = self._runner.run
        awaited = Awaited(flow.write, flow.read, run)
        return Channel(flow.sync.write, flow.sync.read, flow.dealloc, awaited=lambda _: awaited)


class Streams(Peer):
    """asyncio streams over a Unix socket. All packets of a loop have one size, so that they need no framing."""

    _server: asyncio.Server

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._runner = asyncio.Runner()
        self._came: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    @staticmethod
    def version() -> str:
        return platform.python_version()

    def serve(self) -> None:
        def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._came.put_nowait((reader, writer))

        async def start() -> asyncio.Server:
            return await asyncio.start_unix_server(came, self.address)

        self._server = self._runner.run(start())

    def accept(self) -> Channel:
        return self._channel(*self._runner.run(self._came.get()))

    def connect(self) -> Channel:
        return self._channel(*self._runner.run(asyncio.open_unix_connection(self.address)))

    def shutdown(self) -> None:
        if hasattr(self, "_server"):
            self._server.close()
            Path(self.address).unlink(missing_ok=True)
        self._runner.close()

    def _channel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Channel:
        run = self._runner.run

        async def send(packet: bytes) -> None:
            writer.write(packet)
            await writer.drain()

        async def close() -> None:
            writer.close()
            await writer.wait_closed()

        def awaited(size: int) -> Awaited:
            return Awaited(send, partial(reader.readexactly, size), run)

        # Outside of the loops only the greeting goes through these.
        return Channel(
            lambda packet: run(send(packet)), lambda: run(reader.readexactly(1)), lambda: run(close()), awaited=awaited
        )
