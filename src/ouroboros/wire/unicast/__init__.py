"""Messages between members of a unicast layer, byte by byte. Pure. Source: `unicast-control.md` and `unicast-data.md`."""
