"""The commands: irmd, irm, oecho, oping, operf, ocbr, obc."""
