"""The commands: irmd, irm, oecho, oping."""
