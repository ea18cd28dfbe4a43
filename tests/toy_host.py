"""The process of a private node that has the type of `toy.py` as well: `python toy_host.py DIRECTORY READY_FD`."""

from __future__ import annotations

import runpy

from toy import ToyIpcp

from ouroboros.runtime.node import IPCP_TYPES

IPCP_TYPES[ToyIpcp.type] = ToyIpcp

if __name__ == "__main__":
    runpy.run_module("ouroboros.testing.host", run_name="__main__", alter_sys=True)
