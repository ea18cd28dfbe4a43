"""The IRM as pure state machines: requests and time go in, effects come out. No sockets, no clocks."""
