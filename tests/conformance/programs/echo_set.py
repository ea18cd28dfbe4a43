"""Echo with a flow set: `echo_set.py listen` serves any number of clients with two threads, `echo_set.py` is one of them."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import sys
import threading

from ouroboros.dev import *  # noqa: F403
from ouroboros.event import *  # noqa: F403


def take(flows):
    while True:
        flows.add(flow_accept())  # noqa: F405


def answer(flows):
    fq = FEventQueue()  # noqa: F405
    while True:
        flows.wait(fq)
        f, t = fq.next()
        if t == FEventType.FlowPkt:  # noqa: F405
            f.writeline(f.readline())
        elif t in (FEventType.FlowDealloc, FEventType.FlowPeer):  # noqa: F405
            print(FEventType(t).name, flush=True)  # noqa: F405
            flows.remove(f)
            f.dealloc()


def server():
    flows = FlowSet()  # noqa: F405
    threading.Thread(target=take, args=(flows,), daemon=True).start()
    answer(flows)


def client():
    qos = QoSSpec(loss=0)  # noqa: F405
    with flow_alloc("echo_set", qos) as f:  # noqa: F405
        for number in range(3):
            f.writeline(f"line {number}")
            print(f.readline())


if __name__ == "__main__":
    server() if sys.argv[1:] == ["listen"] else client()
