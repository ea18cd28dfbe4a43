"""Flows between members of a layer, which ask one another by messages: what such types share. Control side; packets are the
engine's.

::

    flow manager ── allocate ──▶ Directory ─▶ Outgoing ──▶ requests, again and again ──▶ peer
                 ◀─ answered ──────────────────────────◀── reply
                 ◀─ requested ── Incoming ◀────────────◀── request
                 ── accept ────────────────────────────▶── reply
    the engine   ── ended ─────▶ Notices ──────────────▶── notice, until acknowledged (nodes of ours only)

A type has its own `Directory`: where names are, and what an address is. The messages are those of layers over UDP
(`wire.udp`; `shims.md` 3); what two of our nodes say beyond them: `wire.extension`.
"""
