"""The packet engine: shared-memory rings and their workers, compiled. See `_engine.pyi` for what there is."""

import os

from ouroboros.dataplane._engine import (
    CAPACITY,
    MAX_PACKET,
    AwaitedFlow,
    BroadcastWorker,
    Endpoint,
    Frcp,
    LinkWorker,
    RelayWorker,
    UdpWorker,
    create_channel,
    mark_dead,
    note_fork,
)

os.register_at_fork(after_in_child=note_fork)

__all__ = [
    "CAPACITY",
    "MAX_PACKET",
    "AwaitedFlow",
    "BroadcastWorker",
    "Endpoint",
    "Frcp",
    "LinkWorker",
    "RelayWorker",
    "UdpWorker",
    "create_channel",
    "mark_dead",
]
