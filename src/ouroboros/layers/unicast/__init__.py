"""Unicast layers: members over flows of any layers, in one layer with those of the C prototype."""
