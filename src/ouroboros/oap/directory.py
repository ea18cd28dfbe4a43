"""The security directory: which files protect a name, and who is trusted.

::

    server/<name>/   for the node that accepts flows for the name
    client/<name>/   for a node that allocates flows to it
        enc.conf  policy.conf              how strong, and what the peer must do; see files.py
        crt.pem  key.pem                   who we are
        kex.key.pem  kex.key.raw           server: the published key of an ML-KEM, or a hybrid exchange
        kex.srv.pub.pem  kex.srv.pub.raw   client: its public part
    cacert/*         certificates of those whom we trust, PEM
    untrusted/*      certificates between those and the peers'

Nothing is read here: a `Reader` gives the content of a file by its path, which is relative to the directory unless it was
configured, or None when there is no such file. It raises `OSError` for a file that cannot be read, which is not the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from ouroboros.oap.files import parse_encryption, parse_policy
from ouroboros.oap.session import EAUTH, ECRYPT, Encryption, OapError, Policy, Settings

if TYPE_CHECKING:
    from ouroboros.oap.certificates import Credentials, TrustStore
    from ouroboros.oap.exchange import PublishedKey, StaticKey

Reader = Callable[[str], bytes | None]
Side = Literal["server", "client"]

_T = TypeVar("_T")


class Paths(msgspec.Struct, frozen=True):
    """Files that are configured to be elsewhere. They have to exist; without a path the place in the directory counts."""

    encryption: str | None = None
    certificate: str | None = None
    key: str | None = None


_IN_DIRECTORY = Paths()


def load_settings(
    read: Reader,
    side: Side,
    name: str,
    trust: TrustStore | None = None,
    paths: Paths = _IN_DIRECTORY,
    root: str = "",
) -> Settings:
    """What protects flows for, or to, a name. Raises `OapError` for the first file that is wrong, naming it.

    `root`: path of the directory, with a slash behind it, which goes before every path.
    """
    files = _Files(read, side, name, root)
    encryption = files.encryption(paths.encryption)
    policy = files.policy()
    if side == "client":
        if policy.peers:
            raise OapError(
                ECRYPT, f"{root}client/{name}/policy.conf: allow= is for server/{name}; a server has one name only"
            )
        published = files.published() if encryption is not None and encryption.client_encapsulates else None
        return Settings(encryption, policy, files.credentials(paths), trust, published)
    return Settings(encryption, policy, files.credentials(paths), trust, static=files.static())


def load_trust(cacert: Mapping[str, bytes], untrusted: Mapping[str, bytes]) -> TrustStore | None:
    """The CA store, by the files in its two directories; None when they are empty. Raises `OapError` naming a bad one."""
    if not cacert and not untrusted:
        return None
    from ouroboros.oap.certificates import TrustStore

    try:
        return TrustStore(cacert, untrusted)
    except ValueError as error:
        raise OapError(EAUTH, str(error)) from error


#: Parts of names that are no names of directories, or lead elsewhere.
_NO_DIRECTORIES = frozenset(("", ".", ".."))


def has_directory(name: str) -> bool:
    """Whether a name can have a directory of its own; `..` could lead to that of another."""
    return "\0" not in name and _NO_DIRECTORIES.isdisjoint(name.split("/"))


class _Files:
    """The files of one name."""

    def __init__(self, read: Reader, side: Side, name: str, root: str) -> None:
        self._read_file, self._side = read, side
        self._directory = f"{root}{side}/{name}" if has_directory(name) else None

    def encryption(self, path: str | None) -> Encryption | None:
        found, file = self._read("enc.conf", path, ECRYPT)
        return parse_encryption(found, file) if file is not None else None

    def policy(self) -> Policy:
        path, file = self._read("policy.conf", None, ECRYPT)
        return parse_policy(path, file) if file is not None else Policy()

    def credentials(self, paths: Paths) -> Credentials | None:
        crt_path, certificate = self._read("crt.pem", paths.certificate, EAUTH)
        key_path, key = self._read("key.pem", paths.key, EAUTH)
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            here, missing = (key_path, crt_path) if certificate is None else (crt_path, key_path)
            raise OapError(EAUTH, f"there is {here}, but no {missing} that belongs to it")
        from ouroboros.oap.certificates import Credentials

        try:
            credentials = Credentials(certificate, key)
        except ValueError as error:
            raise OapError(EAUTH, f"{crt_path}, {key_path}: {error}") from error
        try:
            credentials.check_use(self._side)
        except ValueError as error:
            raise OapError(EAUTH, f"{crt_path}: {error}") from error
        return credentials

    def published(self) -> PublishedKey | None:
        return next(iter(self._keys(("kex.srv.pub.pem", "kex.srv.pub.raw"), _published)), None)

    def static(self) -> tuple[StaticKey, ...]:
        return self._keys(("kex.key.pem", "kex.key.raw"), _static)

    def _keys(self, names: tuple[str, str], make: Callable[[bytes], _T]) -> tuple[_T, ...]:
        keys = []
        for name in names:
            path, file = self._read(name, None, ECRYPT)
            try:
                if file is not None:
                    keys.append(make(file))
            except ValueError as error:
                raise OapError(ECRYPT, f"{path}: {error}") from error
        return tuple(keys)

    def _read(self, name: str, configured: str | None, code: int) -> tuple[str, bytes | None]:
        """Where the file is or would be, and what is in it."""
        if configured is None and self._directory is None:
            return name, None
        path = configured if configured is not None else f"{self._directory}/{name}"
        try:
            file = self._read_file(path)
        except OSError as error:
            raise OapError(code, f"{path} cannot be read: {error.strerror}") from error
        if configured is not None and file is None:
            raise OapError(code, f"{path} is configured, but there is no such file")
        return path, file


# Without such files, nothing needs `cryptography`.


def _published(file: bytes) -> PublishedKey:
    from ouroboros.oap.exchange import PublishedKey

    return PublishedKey(file)


def _static(file: bytes) -> StaticKey:
    from ouroboros.oap.exchange import StaticKey

    return StaticKey(file)
