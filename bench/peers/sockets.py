"""Sockets of the network: UDP, TCP, and TLS 1.3 over TCP, with the kernel's default buffers."""

from __future__ import annotations

import datetime
import platform
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.peers.face import GREETING_SIZE, Channel, Peer

_PORT = 47_101
_BACKLOG = 128
_TIMEOUT = 30.0
#: The largest record of TLS, which is what a call receives of it at most.
_RECORD = 16_384


class UdpSocket(Peer):
    """Connected UDP sockets. There is only ever one connection."""

    @staticmethod
    def version() -> str:
        return platform.release()

    def serve(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.address, _PORT))

    def accept(self) -> Channel:
        _, client = self._socket.recvfrom(GREETING_SIZE, socket.MSG_PEEK)
        self._socket.connect(client)
        return _datagrams(self._socket)

    def connect(self) -> Channel:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((self.address, _PORT))
        return _datagrams(sock)


class TcpSocket(Peer):
    """TCP, without Nagle's algorithm. All packets of a loop have one size, so that they need no framing.

    Congestion control is cubic, which is the kernel's own default, whatever the machine has been set to.
    """

    version = staticmethod(UdpSocket.version)
    _listener: socket.socket

    def serve(self) -> None:
        self._listener = socket.create_server((self.address, _PORT), backlog=_BACKLOG)

    def accept(self) -> Channel:
        return _stream(_tuned(self._listener.accept()[0]))

    def connect(self) -> Channel:
        sock = _tuned(socket.socket())
        sock.connect((self.address, _PORT))
        return _stream(sock)

    def shutdown(self) -> None:
        if hasattr(self, "_listener"):
            self._listener.close()


class TlsSocket(TcpSocket):
    """The `ssl` module over TCP. The client checks no certificate, as our flows without certificates do not."""

    @staticmethod
    def version() -> str:
        return ssl.OPENSSL_VERSION

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def serve(self) -> None:
        super().serve()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        with tempfile.TemporaryDirectory() as name:
            self._context.load_cert_chain(*write_certificate(Path(name)))

    def accept(self) -> Channel:
        return _records(self._context.wrap_socket(_tuned(self._listener.accept()[0]), server_side=True))

    def connect(self) -> Channel:
        sock = _tuned(socket.socket())
        sock.connect((self.address, _PORT))
        return _records(self._context.wrap_socket(sock))


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for P-256 that is signed with its own key, and the key; return where."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def _tuned(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    return sock


def _datagrams(sock: socket.socket) -> Channel:
    def recv_for(size: int) -> Callable[[], bytes]:
        return partial(sock.recv, size)

    # A lost packet ends a loop that needs it. The kernel keeps the time: Python would call poll for each packet.
    _give_up(sock, _TIMEOUT)
    return Channel(sock.send, recv_for(GREETING_SIZE), sock.close, recv_for, give_up=partial(_give_up, sock))


def _give_up(sock: socket.socket, seconds: float) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", *divmod(int(seconds * 1e6), 10**6)))


def _stream(sock: socket.socket) -> Channel:
    def recv_for(size: int) -> Callable[[], bytes]:
        return partial(sock.recv, size, socket.MSG_WAITALL)

    return Channel(sock.sendall, partial(sock.recv, GREETING_SIZE), sock.close, recv_for)


def _records(sock: ssl.SSLSocket) -> Channel:
    def recv_for(size: int) -> Callable[[], bytes]:
        # What was sent in one record is received in one call.
        return partial(sock.recv, size) if size <= _RECORD else partial(_receive, sock, memoryview(bytearray(size)))

    return Channel(sock.sendall, partial(sock.recv, GREETING_SIZE), sock.close, recv_for)


def _receive(sock: ssl.SSLSocket, buffer: memoryview) -> bytes:
    got = 0
    while got < len(buffer):
        count = sock.recv_into(buffer[got:])
        if count == 0:
            raise EOFError("the connection ended in a packet")
        got += count
    return bytes(buffer)
