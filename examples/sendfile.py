"""Send a file reliably: packets in order, none missing, and a digest to prove it.

    python sendfile.py --listen DIR       receives one file into DIR
    python sendfile.py FILE               sends it

The packets: size and name; the content; its SHA-256. The receiver answers with the digest of what it wrote.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ouroboros.dev import Flow, FlowException, QoSSpec, flow_accept, flow_alloc

CHUNK = 64 * 1024  # bytes per packet; a flow takes up to ouroboros.dev.MAX_PACKET
SILENCE = 30.0  # seconds of waiting after which the other end counts as gone


class TransferError(Exception):
    """The file did not arrive whole; what did is left in FILE.part."""


def progress(chunks: Iterator[bytes], size: int, what: str) -> Iterator[bytes]:
    """Pass the chunks on, draw a bar if somebody is watching, print the rate at the end."""
    started, done = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if sys.stderr.isatty():
            bar = f"\r[{'#' * (25 * done // size):25}] {100 * done // size} %"
            print(bar, end="\n" if done >= size else "", file=sys.stderr, flush=True)
    print(f"{what} {done} bytes, {done / (time.monotonic() - started) / 1e6:.1f} MB/s", flush=True)


def send(flow: Flow, path: Path) -> None:
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        flow.write(f"{size} {path.name}".encode(errors="surrogateescape"))
        for chunk in progress(iter(lambda: file.read(CHUNK), b""), size, "sent"):
            digest.update(chunk)
            try:
                flow.write(chunk)
            except FlowException as error:
                raise TransferError(f"cut short near byte {file.tell()} of {size}: {error}") from error
    flow.write(digest.digest())
    if flow.read() != digest.digest():
        raise TransferError("the receiver has something else than was sent")
    print(f"sha256 {digest.hexdigest()}: both ends agree", flush=True)


def content(flow: Flow, size: int) -> Iterator[bytes]:
    left = size
    while left > 0:
        try:
            chunk = flow.read()
        except FlowException as error:
            raise TransferError(f"cut short after {size - left} of {size} bytes: {error}") from error
        left -= len(chunk)
        yield chunk


def receive(flow: Flow, directory: Path) -> None:
    size, _, name = flow.read().decode(errors="surrogateescape").partition(" ")
    if not size.isdecimal():
        raise TransferError("the sender is not sendfile")
    target, digest = directory / Path(name).name, hashlib.sha256()  # the last part only: no way out of the directory
    with (part := directory / f"{target.name}.part").open("wb") as file:
        for chunk in progress(content(flow, int(size)), int(size), "received"):
            digest.update(chunk)
            file.write(chunk)
    if flow.read() != digest.digest():
        raise TransferError("the content is not what the sender says it sent")
    part.replace(target)
    flow.write(digest.digest())
    print(f"sha256 {digest.hexdigest()}: wrote {target}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Send a file over a reliable flow.")
    parser.add_argument("path", type=Path, metavar="FILE|DIR", help="file to send, or directory to receive into")
    parser.add_argument("-l", "--listen", action="store_true", help="receive one file")
    parser.add_argument("--keep", action="store_true", help="keep the flow until the input ends, to look at it")
    parser.add_argument("--name", default="sendfile", help="name of the receiver (default: %(default)s)")
    options = parser.parse_args()
    try:
        options.path.stat()  # what is not there is better noticed before the other end is kept busy
        print(f"Waiting for the {'sender' if options.listen else 'receiver'}; name {options.name}.", flush=True)
        with flow_accept(name=options.name) if options.listen else flow_alloc(options.name, QoSSpec(loss=0)) as flow:
            flow.set_rcv_timeout(SILENCE)
            flow.set_snd_timeout(SILENCE)
            receive(flow, options.path) if options.listen else send(flow, options.path)
            if options.keep:
                sys.stdin.read()
    except (TransferError, FlowException, OSError, KeyboardInterrupt) as error:
        sys.exit(f"sendfile: {str(error) or 'stopped'}")


if __name__ == "__main__":
    main()
