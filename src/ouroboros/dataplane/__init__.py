"""The packet engine, compiled: shared-memory rings, and the thread that carries their packets. See `_engine.pyi`."""

import os

from ouroboros.dataplane._engine import (
    CAPACITY,
    MAX_PACKET,
    AwaitedFlow,
    BlockingFlow,
    Endpoint,
    Engine,
    Frcp,
    LinkSettings,
    LinkWorker,
    Setup,
    SimulatedEngine,
    Simulation,
    create_channel,
    mark_dead,
    note_exit,
    note_fork,
)

os.register_at_fork(after_in_child=note_fork)

__all__ = [
    "CAPACITY",
    "MAX_PACKET",
    "AwaitedFlow",
    "BlockingFlow",
    "Endpoint",
    "Engine",
    "Frcp",
    "LinkSettings",
    "LinkWorker",
    "Setup",
    "SimulatedEngine",
    "Simulation",
    "create_channel",
    "mark_dead",
    "note_exit",
]
