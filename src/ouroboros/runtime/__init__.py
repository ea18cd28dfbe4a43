"""The only place with sockets, clocks, processes and asyncio: runs the node and talks to it."""
