"""Echo: `echo.py listen` answers each line once, `echo.py` says one and prints the answer."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import sys

from ouroboros.dev import *  # noqa: F403


def server():
    while True:
        f = flow_accept()  # noqa: F405
        print("New flow.", flush=True)
        line = f.readline()
        print("Message from client is " + line, flush=True)
        f.writeline(line)
        f.dealloc()


def client():
    f = flow_alloc("echo")  # noqa: F405
    f.writeline("Hello, PyOuroboros!")
    print(f.readline())
    f.dealloc()


if __name__ == "__main__":
    server() if sys.argv[1:] == ["listen"] else client()
